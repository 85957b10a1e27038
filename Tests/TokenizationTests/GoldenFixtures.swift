import Foundation
import JSONBytes
import Testing
import Tokenization

/// Results of the PyPI package `tokenizers` 0.23.3, written by tools/fixtures/generate_tokenizer_fixtures.py.
struct GoldenTokenizer {
    static let names = [
        "gpt2", "gpt2-prefix", "llama3", "qwen2", "o200k", "tekken", "deepseek", "digits", "custom", "nfd", "llama2",
        "mistral", "metaspace", "fuse-unknown", "gemma", "crossing", "no-decoder", "tiny",
    ]

    struct Encoding {
        var text: String
        var ids: [Int32]
        var withSpecialTokens: [Int32]
        var decoded: String
        var decodedWithoutSpecialTokens: String
    }

    struct Decoding {
        var ids: [Int32]
        var all: String
        var skipped: String
    }

    /// A continuation and its text as the package's own incremental decoder gives it behind a prompt.
    struct Stream {
        var prompt: [Int32]
        var ids: [Int32]
        var skipSpecialTokens: Bool
        var text: String
    }

    let tokenizer: Tokenizer
    var encodings: [Encoding] = []
    var decodings: [Decoding] = []
    var streams: [Stream] = []
    var strings: [Int32: String] = [:]
    var vocabularySize = 0

    static func bytes(_ name: String) throws -> [UInt8] {
        let url = try #require(Bundle.module.url(forResource: "Fixtures", withExtension: nil))
        return [UInt8](try Data(contentsOf: url.appendingPathComponent(name)))
    }

    static func tokenizer(_ name: String) throws -> Tokenizer {
        try Tokenizer(tokenizerJSON: bytes("\(name).tokenizer.json"))
    }

    static func corpus() throws -> [String] {
        try #require(JSONValue.parse(bytes("corpus.json")).arrayValue).map { try #require($0.stringValue) }
    }

    init(_ name: String) throws {
        tokenizer = try Self.tokenizer(name)
        let json = try JSONValue.parse(Self.bytes("\(name).golden.json"))
        vocabularySize = try #require(json["vocabularySize"]?.numberValue?.intValue)
        let texts = try Self.corpus()
        for (text, entry) in zip(texts, try #require(json["encodings"]?.arrayValue)) {
            let ids = try Self.ids(entry["ids"])
            let around = try entry["around"]?.arrayValue?.map { try Self.ids($0) } ?? [[], []]
            encodings.append(
                Encoding(
                    text: text, ids: ids, withSpecialTokens: around[0] + ids + around[1],
                    decoded: entry["all"]?.stringValue ?? text,
                    decodedWithoutSpecialTokens: entry["skipped"]?.stringValue ?? entry["all"]?.stringValue ?? text))
        }
        for entry in try #require(json["decodings"]?.arrayValue) {
            let all = try #require(entry["all"]?.stringValue)
            decodings.append(
                Decoding(ids: try Self.ids(entry["ids"]), all: all, skipped: entry["skipped"]?.stringValue ?? all))
        }
        for entry in try #require(json["streams"]?.arrayValue) {
            streams.append(
                Stream(
                    prompt: try Self.ids(entry["prompt"]), ids: try Self.ids(entry["ids"]),
                    skipSpecialTokens: try #require(entry["skip"]?.boolValue as Bool?),
                    text: try #require(entry["text"]?.stringValue)))
        }
        for (id, string) in try #require(json["strings"]?.objectValue).pairs {
            let name: String = try #require(string.stringValue)
            strings[try #require(Int32(id))] = name
        }
    }

    private static func ids(_ json: JSONValue?) throws -> [Int32] {
        try #require(json?.arrayValue).map { Int32(try #require($0.numberValue?.intValue)) }
    }
}

/// Swift's string equality ignores normalisation; the tests must not.
func sameBytes(_ a: String, _ b: String) -> Bool { a.utf8.elementsEqual(b.utf8) }
