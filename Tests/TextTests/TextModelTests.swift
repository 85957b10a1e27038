import EngineProtocol
import Foundation
import JSONBytes
import Testing
import Text
import Tokenization

@Suite struct TextModelTests {
    /// A model folder with the given files beside `tokenizer.json`; removed when the body returns.
    private func withFolder(_ files: [String: String], _ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("text-model-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for (name, text) in files { try Data(text.utf8).write(to: folder.appendingPathComponent(name)) }
        try body(folder.path)
    }

    private let tokenizer = OutputGolden.byteLevelTokenizer

    @Test func readsDefaultsAndEnds() throws {
        try withFolder([
            "tokenizer.json": tokenizer,
            "tokenizer_config.json": #"{"eos_token": "<eos>", "bos_token": {"content": "<b>"}}"#,
            "config.json": #"{"eos_token_id": 7, "max_position_embeddings": 4096, "rope_scaling": null}"#,
            "generation_config.json": """
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": null, "repetition_penalty": 1, "max_new_tokens": 512,
             "eos_token_id": [261, 262, 65, 262], "do_sample": true}
            """,
        ]) { folder in
            let model = try TextModel.load(folder: folder)
            #expect(model.eosTokenID == model.tokenizer.id(forToken: "<eos>"))
            #expect(model.tokenizer.bosTokenID == model.tokenizer.id(forToken: "<b>"))
            #expect(model.eosTokenID == 261)
            #expect(model.extraEOSTokenIDs == [262, 65])
            #expect(model.contextLength == 4096)
            var expected = GenerationDefaults()
            expected.temperature = 0.6
            expected.topP = 0.95
            expected.topK = 20
            expected.repetitionPenalty = 1
            expected.maxTokens = 512
            #expect(model.generationDefaults == expected)
            let neutral = try TextModel.load(folder: folder, generationConfig: .neutral)
            #expect(neutral.generationDefaults == GenerationDefaults())
            #expect(neutral.extraEOSTokenIDs == [262, 65])
        }
    }

    @Test func configurationMayLieElsewhereAndBePatched() throws {
        try withFolder(["tokenizer.json": tokenizer, "config.json": #"{"max_position_embeddings": 10}"#]) { folder in
            let patch = try JSONValue.parse(
                #"{"max_position_embeddings": null, "n_positions": 30, "text_config": {"n_positions": 20, "x": null}}"#
            ).objectValue
            #expect(try TextModel.load(folder: folder, configPatch: patch).contextLength == 20)
            try withFolder([
                "config.json": #"{"max_position_embeddings": 77}"#, "generation_config.json": #"{"temperature": 0.5}"#,
            ]) { other in
                let model = try TextModel.load(folder: folder, configFolder: other)
                #expect(model.contextLength == 77)
                #expect(model.generationDefaults.temperature == 0.5)
            }
            #expect(throws: TextError.self) { try TextModel.load(folder: folder, configFolder: folder + "/none") }
        }
    }

    @Test func endsComeFromTheModelConfigWithoutAGenerationConfig() throws {
        try withFolder([
            "tokenizer.json": tokenizer,
            "config.json": """
            {"text_config": {"max_position_embeddings": 1000, "n_positions": 800, "rope_scaling": {"type": "linear", "factor": 2.5}},
             "eos_token_id": 65}
            """,
        ]) { folder in
            let model = try TextModel.load(folder: folder)
            #expect(model.eosTokenID == nil)
            #expect(model.extraEOSTokenIDs == [65])
            #expect(model.contextLength == 2000)
        }
    }

    @Test func llama3ScalingIsInTheLengthAlready() throws {
        try withFolder([
            "tokenizer.json": tokenizer,
            "config.json":
                #"{"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}"#,
        ]) { folder in
            let model = try TextModel.load(folder: folder)
            #expect(model.contextLength == 131072)
        }
    }

    @Test(arguments: [
        ("config.json", #"{"max_position_embeddings": "long"}"#, "max_position_embeddings"),
        ("generation_config.json", #"{"temperature": "hot"}"#, "temperature"),
        ("generation_config.json", #"{"top_k": 1e300}"#, "top_k"),
        ("generation_config.json", #"{"eos_token_id": [1, -2]}"#, "eos_token_id"),
        ("generation_config.json", #"{"temperature": "#, "generation_config.json"),
        ("tokenizer_config.json", "[", "tokenizer_config.json"),
    ])
    func brokenFilesAreNamed(file: String, content: String, word: String) throws {
        try withFolder(["tokenizer.json": tokenizer, file: content]) { folder in
            let error = try #require(throws: TextError.self) { _ = try TextModel.load(folder: folder) }
            #expect(error.description.contains(word), "\(error)")
        }
    }

    @Test func aMissingTokenizerIsNamed() throws {
        try withFolder([:]) { folder in
            let error = try #require(throws: TextError.self) { _ = try TextModel.load(folder: folder) }
            #expect(error.description.contains("tokenizer.json does not exist"))
            let other = try #require(throws: TextError.self) { _ = try TextModel.load(folder: folder + "/none") }
            #expect(other.description.contains("model folder \(folder)/none does not exist"))
        }
    }

    @Test func badWordsAreThoseOfVLLM() throws {
        let lines = OutputGolden.badWords.split(separator: "\n")
        for (line, json) in zip(lines, [OutputGolden.byteLevelTokenizer, OutputGolden.metaspaceTokenizer]) {
            let golden = try JSONValue.parse(String(line))
            let words = try #require(golden["words"]?.arrayValue).compactMap(\.stringValue)
            let expected = try #require(golden["ids"]?.arrayValue).map { try OutputProcessorTests.ids($0) }
            #expect(try OutputProcessorTests.model(json).badWordsTokenIDs(words) == expected)
        }
    }

    @Test func badWordsAreBounded() throws {
        let model = try OutputProcessorTests.model()
        #expect(throws: TextError.self) { _ = try model.badWordsTokenIDs([" "]) }
        let many = (0..<200).map { "a\($0)" }
        #expect(throws: TextError.self) { _ = try model.badWordsTokenIDs(many) }
    }

    @Test func tokenTextsAreThoseOfVLLM() throws {
        let lines = OutputGolden.tokenTexts.split(separator: "\n")
        for (line, json) in zip(lines, [OutputGolden.byteLevelTokenizer, OutputGolden.metaspaceTokenizer]) {
            let model = try OutputProcessorTests.model(json)
            let golden = try JSONValue.parse(String(line))
            for (id, text) in try #require(golden["alone"]?.arrayValue).enumerated() {
                #expect(model.tokenText(Int32(id)) == text.stringValue, "\(id)")
            }
            for sequence in try #require(golden["sequences"]?.arrayValue) {
                let ids = try OutputProcessorTests.ids(sequence["ids"])
                for (index, text) in try #require(sequence["texts"]?.arrayValue).enumerated() {
                    #expect(model.tokenText(ids[index], after: ids[..<index]) == text.stringValue, "\(ids) \(index)")
                }
            }
        }
    }
}
