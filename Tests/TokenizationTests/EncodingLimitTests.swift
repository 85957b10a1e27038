import Testing
import Tokenization

@Suite struct EncodingLimitTests {
    /// Inputs on which careless algorithms take quadratic time: each is a second or so at worst, not minutes.
    @Test(arguments: ["gpt2", "llama3", "qwen2", "llama2", "mistral", "gemma", "custom"])
    func longInputsOfOneKind(name: String) throws {
        let tokenizer = try GoldenTokenizer.tokenizer(name)
        for unit in ["a", " ", "ab", "\n", "é", "'", "<", "<thin", "字", "\u{301}", "<both> ", "1"] {
            let text = String(repeating: unit, count: 20_000)
            let ids = try tokenizer.encode(text, addSpecialTokens: false)
            #expect(!ids.isEmpty)
            if name == "gpt2" || name == "llama3" {
                #expect(sameBytes(tokenizer.decode(ids, skipSpecialTokens: false), text))
            }
        }
    }

    @Test(arguments: GoldenTokenizer.names)
    func theLowerBoundHolds(name: String) throws {
        let golden = try GoldenTokenizer(name)
        // White space that an added token swallows is not in the bound.
        for entry in golden.encodings
        where !["<both>", "<left>", "<right>", "<|tool|>"].contains(where: entry.text.contains) {
            #expect(golden.tokenizer.minimumTokenCount(utf8Count: entry.text.utf8.count) <= entry.ids.count)
        }
        if ["gpt2", "llama3", "tiny"].contains(name) {
            let size = try #require(golden.tokenizer.maxBytesPerToken)
            #expect(golden.tokenizer.minimumTokenCount(utf8Count: size * 1000) == 1000)
        }
        // Text that is thrown away has no bound.
        if name == "fuse-unknown" { #expect(golden.tokenizer.maxBytesPerToken == nil) }
    }

    @Test func stopsBehindTheLimit() throws {
        let tokenizer = try GoldenTokenizer.tokenizer("gpt2")
        let text = String(repeating: "hello world ", count: 10_000)
        let whole = try tokenizer.encode(text, addSpecialTokens: false)
        let part = try tokenizer.encode(text, addSpecialTokens: false, stoppingAfter: 100)
        #expect(part.count > 100 && part.count < 120)
        #expect(whole.starts(with: part))
        let exact = try tokenizer.encode(text, addSpecialTokens: false, stoppingAfter: whole.count)
        #expect(exact == whole)
    }

    @Test func bytesThatAreNotUTF8AreReplaced() throws {
        for name in ["gpt2", "llama2"] {
            let tokenizer = try GoldenTokenizer.tokenizer(name)
            for bytes: [UInt8] in [
                [0xFF], [0x61, 0xC3], [0xED, 0xA0, 0x80, 0x62], [0xF0, 0x9F, 0x98, 0x20], [0xC0, 0x80],
            ] {
                let ids = try bytes.withUnsafeBufferPointer { try tokenizer.encode($0, addSpecialTokens: false) }
                let repaired = String(decoding: bytes, as: UTF8.self)
                #expect(try ids == tokenizer.encode(repaired, addSpecialTokens: false))
            }
        }
    }

    /// The caches inside must not depend on who fills them.
    @Test func isTheSameFromManyThreads() async throws {
        let golden = try GoldenTokenizer("tiny")
        let tokenizer = golden.tokenizer
        let entries = golden.encodings.map { ($0.text, $0.ids) }
        let allEqual = await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    entries.allSatisfy { (try? tokenizer.encode($0.0, addSpecialTokens: false)) == $0.1 }
                }
            }
            return await group.reduce(true) { $0 && $1 }
        }
        #expect(allEqual)
    }
}
