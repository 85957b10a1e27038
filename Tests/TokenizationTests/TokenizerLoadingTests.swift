import Foundation
import JSONBytes
import TestSupport
import Testing
import Tokenization

@Suite struct TokenizerLoadingTests {
    /// A tiny valid file with one part replaced.
    private func file(
        model: String = #"{"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}"#, rest: String = ""
    ) -> [UInt8] {
        Array(#"{"model": \#(model), "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}\#(rest)}"#.utf8)
    }

    private func error(_ file: [UInt8], config: String? = nil) throws -> TokenizerError {
        try #require(throws: TokenizerError.self) {
            _ = try Tokenizer(tokenizerJSON: file, tokenizerConfigJSON: config.map { Array($0.utf8) })
        }
    }

    @Test(arguments: [
        (#""normalizer": {"type": "Precompiled"}"#, "normalizer Precompiled"),
        (#""normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}"#, "normalizer NFKC"),
        (#""pre_tokenizer": {"type": "UnicodeScripts"}"#, "pre-tokenizer UnicodeScripts"),
        (
            #""pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Sideways"}"#,
            "behavior Sideways"
        ),
        (#""pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"}"#, "&&"),
        (#""pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated"}"#, "not understood"),
        (
            #""pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}"#,
            "Digits behind ByteLevel"
        ),
        (#""post_processor": {"type": "Magic"}"#, "post-processor Magic"),
        (#""normalizer": {"type": "Prepend", "prepend": "\#(String(repeating: "x", count: 300))"}"#, "300 bytes"),
        (#""decoder": {"type": "WordPiece"}"#, "decoder WordPiece"),
        (#""decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "CTC"}]}"#, "decoder CTC"),
    ])
    func unsupportedPartsAreNamed(part: String, word: String) throws {
        let error = try error(file(rest: ", " + part))
        #expect(error.code == .unsupported)
        #expect(error.description.contains(word), "\(error)")
    }

    @Test(arguments: ["Unigram", "WordPiece", "WordLevel"])
    func otherModelsAreNamed(type: String) throws {
        let error = try error(file(model: #"{"type": "\#(type)", "vocab": {}}"#))
        #expect(error.code == .unsupported)
        #expect(error.description.contains("model \(type)"))
    }

    @Test(arguments: [
        (#"{"type": "BPE", "vocab": {"a": -1}, "merges": []}"#, "the id of a"),
        (#"{"type": "BPE", "vocab": {"a": 99999999999}, "merges": []}"#, "the id of a"),
        (#"{"type": "BPE", "vocab": {"a": 4194304}, "merges": []}"#, "the id of a"),
        (#"{"type": "BPE", "vocab": {"a": 1.5}, "merges": []}"#, "the id of a"),
        (#"{"type": "BPE", "vocab": ["a"], "merges": []}"#, "an object"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}"#, "not in the vocabulary"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": ["ab"]}"#, "two tokens"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}"#, "two tokens"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": [7]}"#, "two tokens"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": ["a a", ["a", "a"]]}"#, "two tokens"),
        (#"{"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a a", "a b", "a a a"]}"#, "merges[1]"),
        (#"{"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a a", "a a a"]}"#, "merges[1] should"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": {"a": 1}}"#, "an array"),
        (#"{"type": "BPE", "vocab": {"a": 0}}"#, "model.merges is missing"),
        (#"{"type": "BPE", "merges": []}"#, "model.vocab is missing"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "?"}"#, "in the vocabulary"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}"#, "dropout"),
        (#"{"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}"#, "end_of_word_suffix"),
    ])
    func brokenModelsAreExplained(model: String, word: String) throws {
        let error = try error(file(model: model))
        #expect(error.description.contains(word), "\(error)")
    }

    @Test func brokenJSONIsExplained() throws {
        #expect(try error(Array("{".utf8)).description.contains("tokenizer.json"))
        #expect(try error([]).code == .malformed)
        #expect(try error(Array("[]".utf8)).description.contains("model is missing"))
        #expect(try error(file(), config: "nope").description.contains("tokenizer_config.json"))
        #expect(try error(Array(String(repeating: "[", count: 100_000).utf8)).code == .malformed)
        let missing = try #require(throws: TokenizerError.self) { _ = try Tokenizer.load(folder: "/nonexistent") }
        #expect(missing.code == .unreadable)
    }

    /// Any damage to a file gives an error or a tokenizer that works, never a crash.
    @Test(arguments: ["qwen2", "llama2"])
    func damagedFilesNeverCrash(name: String) throws {
        let intact = try GoldenTokenizer.bytes("\(name).tokenizer.json")
        // Most of the file is vocabulary, most of the meaning stands before it.
        let model = try #require(String(decoding: intact, as: UTF8.self).range(of: "\"model\""))
        let header = String(decoding: intact, as: UTF8.self)[..<model.lowerBound].utf8.count
        var generator = SeededGenerator(seed: 3)
        var loaded = 0
        for round in 0..<120 {
            var damaged = intact
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let end = round % 4 == 0 ? damaged.count : header
                let index = Int.random(in: 0..<end - 8, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: damaged[index] = UInt8.random(in: 0x20...0x7E, using: &generator)
                case 1: damaged.remove(at: index)
                default:
                    damaged.insert(contentsOf: Array("9\"[{,:".utf8).shuffled(using: &generator).prefix(1), at: index)
                }
            }
            guard let tokenizer = try? Tokenizer(tokenizerJSON: damaged) else { continue }
            loaded += 1
            let ids = try? tokenizer.encode("Hello <think> wörld 123\n", addSpecialTokens: true)
            _ = tokenizer.decode(ids ?? [], skipSpecialTokens: false)
            _ = tokenizer.decode((-2..<Int32(tokenizer.vocabularySize + 2)).map { $0 }, skipSpecialTokens: true)
        }
        #expect(loaded > 0)
    }

    @Test func bothSpellingsOfMergesAreTheSame() throws {
        let pairs = #"{"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}"#
        for file in [file(), file(model: pairs)] {
            #expect(try Tokenizer(tokenizerJSON: file).encode("ab", addSpecialTokens: false) == [2])
        }
    }

    /// Python's reader and `tokenizers` keep the last of several members with one name.
    @Test func vocabulariesMayBeUnordered() throws {
        let merges = #""merges": ["a b", "\u0061 c", "é a"]"#
        let vocabulary = #"{"ab": 6, "\u0063": 2, "a": 9, "a": 0, "ac": 3, "b": 1, "é": 4, "éa": 5}"#
        for model in [
            #"{"type": "BPE", "vocab": \#(vocabulary), \#(merges)}"#,
            #"{\#(merges), "vocab": {"x": 0}, "vocab": \#(vocabulary), "type": "BPE"}"#,
        ] {
            let file = #"{"model": {"vocab": {}}, "model": \#(model)}"#
            let tokenizer = try Tokenizer(tokenizerJSON: Array(file.utf8))
            #expect(try tokenizer.encode("abacéa", addSpecialTokens: false) == [6, 3, 5])
            // Nothing has the id 9 any more.
            #expect(tokenizer.decode([6, 0, 9, 5], skipSpecialTokens: false) == "ab a éa")
        }
    }

    @Test func tokenizerConfigDecidesAboutBeginAndEnd() throws {
        let rest = #", "added_tokens": [{"id": 3, "content": "<s>", "special": true}]"#
        let names = #""bos_token": "<s>", "eos_token": {"content": "</s>"}"#
        func tokenizer(_ config: String) throws -> Tokenizer {
            try Tokenizer(tokenizerJSON: file(rest: rest), tokenizerConfigJSON: Array("{\(names)\(config)}".utf8))
        }
        let plain = try tokenizer("")
        #expect(plain.bosTokenID == 3)
        // A special token that only the config knows is numbered behind the others.
        #expect(plain.eosTokenID == 4)
        #expect(plain.isSpecial(4))
        #expect(!plain.addsBOS)
        #expect(try plain.encode("a</s>", addSpecialTokens: true) == [0, 4])
        let both = try tokenizer(#", "add_bos_token": true, "add_eos_token": true"#)
        #expect(both.addsBOS)
        #expect(try both.encode("a", addSpecialTokens: true) == [3, 0, 4])
        #expect(try both.encode("a", addSpecialTokens: false) == [0])
        // Without the flags the post-processor of the other file counts.
        let golden = try Tokenizer(
            tokenizerJSON: GoldenTokenizer.bytes("llama2.tokenizer.json"),
            tokenizerConfigJSON: Array(#"{"bos_token": "<s>"}"#.utf8))
        #expect(golden.addsBOS)
        let switchedOff = try Tokenizer(
            tokenizerJSON: GoldenTokenizer.bytes("llama2.tokenizer.json"),
            tokenizerConfigJSON: Array(#"{"bos_token": "<s>", "add_bos_token": false}"#.utf8))
        #expect(!switchedOff.addsBOS)
    }

    @Test func loadsAFolder() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(GoldenTokenizer.bytes("gpt2.tokenizer.json")).write(
            to: folder.appendingPathComponent("tokenizer.json"))
        try Data(#"{"eos_token": "<|end|>"}"#.utf8).write(to: folder.appendingPathComponent("tokenizer_config.json"))
        let tokenizer = try Tokenizer.load(folder: folder.path)
        #expect(tokenizer.eosTokenID == tokenizer.id(forToken: "<|end|>"))
        #expect(tokenizer.bosTokenID == nil)
    }
}
