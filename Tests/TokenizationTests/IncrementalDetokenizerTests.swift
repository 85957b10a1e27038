import TestSupport
import Testing
import Tokenization

@Suite struct IncrementalDetokenizerTests {
    /// What streaming clients get, delta by delta; every delta is text on its own.
    private func deltas(_ tokenizer: Tokenizer, _ ids: [Int32], skipSpecialTokens: Bool) throws -> String {
        var detokenizer = IncrementalDetokenizer(tokenizer, skipSpecialTokens: skipSpecialTokens)
        var all = ""
        var delta: [UInt8] = []
        for id in ids {
            delta.removeAll()
            detokenizer.append(id, into: &delta)
            all += try #require(String(validating: delta, as: UTF8.self))
        }
        delta.removeAll()
        detokenizer.finish(into: &delta)
        all += try #require(String(validating: delta, as: UTF8.self))
        return all
    }

    @Test(arguments: GoldenTokenizer.names)
    func deltasAreTheWholeDecoding(name: String) throws {
        let golden = try GoldenTokenizer(name)
        for entry in golden.decodings {
            #expect(sameBytes(try deltas(golden.tokenizer, entry.ids, skipSpecialTokens: false), entry.all))
            #expect(sameBytes(try deltas(golden.tokenizer, entry.ids, skipSpecialTokens: true), entry.skipped))
        }
        for entry in golden.encodings {
            let text = try deltas(golden.tokenizer, entry.withSpecialTokens, skipSpecialTokens: true)
            #expect(sameBytes(text, entry.decodedWithoutSpecialTokens))
        }
    }

    @Test(arguments: GoldenTokenizer.names)
    func continuesAPrompt(name: String) throws {
        let golden = try GoldenTokenizer(name)
        #expect(golden.streams.count > 10)
        for stream in golden.streams {
            var detokenizer = IncrementalDetokenizer(
                golden.tokenizer, continuing: stream.prompt, skipSpecialTokens: stream.skipSpecialTokens)
            var text: [UInt8] = []
            for id in stream.ids { detokenizer.append(id, into: &text) }
            detokenizer.finish(into: &text)
            #expect(String(decoding: text, as: UTF8.self).utf8.elementsEqual(stream.text.utf8), "\(name) \(stream)")
        }
    }

    @Test(arguments: ["gpt2", "llama2", "gemma", "mistral"])
    func randomIdsOfEveryLength(name: String) throws {
        let tokenizer = try GoldenTokenizer.tokenizer(name)
        let bytes = try byteTokens(tokenizer, name)
        var generator = SeededGenerator(seed: 11)
        for round in 0..<3000 {
            let pool = round % 2 == 0 ? bytes : (0..<Int32(tokenizer.vocabularySize)).map { $0 }
            let ids = (0..<Int.random(in: 1...40, using: &generator)).map { _ in pool.randomElement(using: &generator)!
            }
            let whole = tokenizer.decode(ids, skipSpecialTokens: true)
            #expect(sameBytes(try deltas(tokenizer, ids, skipSpecialTokens: true), whole), "\(ids)")
        }
    }

    /// Ids of the tokens for single bytes, by byte.
    private func byteTokens(_ tokenizer: Tokenizer, _ name: String) throws -> [Int32] {
        try (0..<256).map { byte in
            if name != "gpt2" {
                let digits = String(byte, radix: 16, uppercase: true)
                return try #require(tokenizer.id(forToken: "<0x\(digits.count < 2 ? "0" : "")\(digits)>"))
            }
            let found = (0..<Int32(tokenizer.vocabularySize)).first {
                !tokenizer.isSpecial($0) && tokenizer.byteLevelToken($0) == UInt8(byte)
            }
            return try #require(found)
        }
    }

    @Test(arguments: ["gpt2", "llama2", "gemma"])
    func everyCharacterArrivesWhole(name: String) throws {
        let tokenizer = try GoldenTokenizer.tokenizer(name)
        let bytes = try byteTokens(tokenizer, name)
        for character in [
            "a", "é", "߿", "ࠀ", "€", "\u{D7FF}", "\u{E000}", "\u{FFFD}", "\u{FFFF}", "\u{10000}", "😀", "\u{10FFFF}",
        ] {
            let text = "x\(character)"
            let ids = text.utf8.map { bytes[Int($0)] }
            #expect(sameBytes(try deltas(tokenizer, ids, skipSpecialTokens: true), text))
        }
        // Each byte that cannot stand alone is one replacement character.
        for byte in UInt8.min...UInt8.max {
            let whole = try deltas(tokenizer, [bytes[Int(byte)]], skipSpecialTokens: true)
            let expected = byte < 0x80 ? String(Unicode.Scalar(byte)) : "\u{FFFD}"
            #expect(sameBytes(whole, name == "llama2" && byte == 0x20 ? "" : expected))
        }
    }

    @Test func anIncompleteCharacterIsHeldBack() throws {
        let tokenizer = try GoldenTokenizer.tokenizer("gpt2")
        let bytes = try byteTokens(tokenizer, "gpt2")
        var detokenizer = IncrementalDetokenizer(tokenizer, skipSpecialTokens: true)
        var text: [UInt8] = []
        for byte in "😀".utf8.dropLast() { detokenizer.append(bytes[Int(byte)], into: &text) }
        #expect(text.isEmpty)
        #expect(detokenizer.hasPending)
        detokenizer.append(bytes[Int("😀".utf8.last!)], into: &text)
        #expect(text == Array("😀".utf8))
        #expect(!detokenizer.hasPending)
    }

    @Test func aPromptMayEndInsideACharacter() throws {
        for name in ["gpt2", "llama2"] {
            let tokenizer = try GoldenTokenizer.tokenizer(name)
            let bytes = try byteTokens(tokenizer, name)
            let ids = "ab😀!".utf8.map { bytes[Int($0)] }
            for cut in 2..<6 {
                var detokenizer = IncrementalDetokenizer(tokenizer, continuing: ids[..<cut], skipSpecialTokens: true)
                var text: [UInt8] = []
                for id in ids[cut...] { detokenizer.append(id, into: &text) }
                detokenizer.finish(into: &text)
                #expect(String(decoding: text, as: UTF8.self) == "😀!", "\(name) \(cut)")
            }
        }
    }

    /// Text without any other token must not wait for its end.
    @Test func longRunsOfByteTokensFlow() throws {
        let tokenizer = try GoldenTokenizer.tokenizer("llama2")
        let bytes = try byteTokens(tokenizer, "llama2")
        let text = String(repeating: "字", count: 500)
        var detokenizer = IncrementalDetokenizer(tokenizer, skipSpecialTokens: true)
        var output: [UInt8] = []
        for byte in text.utf8 {
            detokenizer.append(bytes[Int(byte)], into: &output)
            #expect(String(validating: output, as: UTF8.self) != nil)
        }
        #expect(output.count > text.utf8.count - IncrementalDetokenizer.byteRunLimit)
        detokenizer.finish(into: &output)
        #expect(output == Array(text.utf8))
    }

    @Test func idsOutsideTheVocabularyAreNothing() throws {
        let tokenizer = try GoldenTokenizer.tokenizer("gpt2")
        for id in [-1, Int32.min, Int32.max, Int32(tokenizer.vocabularySize)] {
            #expect(tokenizer.decode([id], skipSpecialTokens: false) == "")
        }
    }
}

extension Tokenizer {
    /// The byte that a byte-level token of one byte stands for.
    fileprivate func byteLevelToken(_ id: Int32) -> UInt8? {
        guard let name = tokenString(id), name.unicodeScalars.count == 1, let scalar = name.unicodeScalars.first else {
            return nil
        }
        let isPrintable = { (byte: UInt32) in
            (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte)
        }
        if scalar.value < 256 { return isPrintable(scalar.value) ? UInt8(scalar.value) : nil }
        let others = (UInt32(0)..<256).filter { !isPrintable($0) }
        let index = Int(scalar.value) - 256
        return index < others.count ? UInt8(others[index]) : nil
    }
}
