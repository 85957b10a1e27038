import EngineProtocol
import JSONBytes
import Testing
import Text
import Tokenization

@Suite struct OutputProcessorTests {
    static func model(_ json: String = OutputGolden.byteLevelTokenizer) throws -> TextModel {
        TextModel(tokenizer: try Tokenizer(tokenizerJSON: Array(json.utf8)))
    }

    static func ids(_ json: JSONValue?) throws -> [Int32] {
        try #require(json?.arrayValue).map { Int32(try #require($0.numberValue?.intValue)) }
    }

    private func output(_ ids: [Int32], _ reason: FinishReason? = nil, _ stop: StopReason? = nil) -> EngineCoreOutput {
        var output = EngineCoreOutput()
        output.newTokenIDs = ids
        output.finishReason = reason
        output.stopReason = stop
        return output
    }

    private func processor(
        _ model: TextModel, stop: [String] = [], prompt: [Int32] = [],
        _ change: (inout OutputProcessor.Options) -> Void = { _ in }
    ) -> OutputProcessor {
        var options = OutputProcessor.Options()
        options.stop = StopStrings(stop)
        change(&options)
        return OutputProcessor(model, prompt: prompt, options: options)
    }

    @Test func textStopAndTokensAreThoseOfVLLM() throws {
        let model = try Self.model()
        var matches = 0
        for line in OutputGolden.cases.split(separator: "\n") {
            let json = try JSONValue.parse(String(line))
            let stop = try #require(json["stop"]?.arrayValue).compactMap(\.stringValue)
            var processor = try processor(model, stop: stop, prompt: Self.ids(json["prompt"])) {
                $0.includesStop = json["include"] == .bool(true)
                $0.minTokens = json["minTokens"]?.numberValue?.intValue ?? 0
                $0.skipsSpecialTokens = json["skipSpecial"] == .bool(true)
            }
            let updates = try #require(json["updates"]?.arrayValue).map { try Self.ids($0) }
            let isStopped = json["stopTerminated"] == .bool(true)
            var text: [UInt8] = []
            var tokens = 0
            var finish: SequenceFinish?
            for (index, update) in updates.enumerated() {
                #expect(finish == nil)
                let reason: FinishReason? = index + 1 < updates.count ? nil : isStopped ? .stop : .length
                let result = processor.process(output(update, reason), into: &text)
                tokens += result.tokenCount
                finish = result.finish
                #expect(result.mustAbortEngine == (result.finish != nil && reason == nil))
            }
            let matched = json["matched"]?.stringValue
            if matched != nil { matches += 1 }
            #expect(String(decoding: text, as: UTF8.self) == json["text"]?.stringValue, "\(line)")
            #expect(tokens == json["tokens"]?.numberValue?.intValue, "\(line)")
            #expect(finish?.stopReason == matched.map { .text($0) }, "\(line)")
            #expect(finish?.reason == (matched != nil || isStopped ? "stop" : "length"), "\(line)")
        }
        #expect(matches > 100)
    }

    @Test func onlyWhatMayBecomeAStopStringIsHeldBack() throws {
        let model = try Self.model()
        var processor = processor(model, stop: ["abc"])
        var deltas: [String] = []
        for letter in "xabyab" {
            var text: [UInt8] = []
            let id = try #require(model.tokenizer.id(forToken: String(letter)))
            _ = processor.process(output([id]), into: &text)
            deltas.append(String(decoding: text, as: UTF8.self))
        }
        #expect(deltas == ["x", "", "", "aby", "", ""])
        var text: [UInt8] = []
        let result = processor.process(output([], .length), into: &text)
        #expect(String(decoding: text, as: UTF8.self) == "ab")
        #expect(result.finish == SequenceFinish(reason: "length", stopReason: nil))
    }

    @Test func aStopStringMayEndInsideTheNextCharactersToken() throws {
        let model = try Self.model()
        // Two tokens of one byte each make the character that the stop string ends with.
        let ids = try ["a", "Ã", "©", "b"].map { try #require(model.tokenizer.id(forToken: $0)) }
        var processor = processor(model, stop: ["aé"])
        var text: [UInt8] = []
        #expect(processor.process(output([ids[0]]), into: &text).finish == nil)
        #expect(processor.process(output([ids[1]]), into: &text).finish == nil)
        let result = processor.process(output([ids[2], ids[3]]), into: &text)
        #expect(result.finish == SequenceFinish(reason: "stop", stopReason: .text("aé")))
        #expect(result.mustAbortEngine)
        #expect(result.tokenCount == 1)
        #expect(text.isEmpty)
    }

    @Test func outputsBehindTheEndAreIgnored() throws {
        let model = try Self.model()
        let id = try #require(model.tokenizer.id(forToken: "a"))
        var processor = processor(model, stop: ["a"])
        var text: [UInt8] = []
        #expect(processor.process(output([id]), into: &text).mustAbortEngine)
        #expect(processor.isFinished)
        let late = processor.process(output([id], .length), into: &text)
        #expect(late.finish == nil && !late.mustAbortEngine && late.tokenCount == 0)
        #expect(text.isEmpty)
        #expect(processor.tokenCount == 1)
    }

    @Test func anIncompleteCharacterAtTheEndIsAReplacementCharacter() throws {
        let model = try Self.model()
        let ids = try ["a", "Ã"].map { try #require(model.tokenizer.id(forToken: $0)) }
        var processor = processor(model)
        var text: [UInt8] = []
        #expect(processor.process(output(ids), into: &text).finish == nil)
        #expect(text == Array("a".utf8))
        _ = processor.process(output([], .length), into: &text)
        #expect(String(decoding: text, as: UTF8.self) == "a\u{FFFD}")
    }

    @Test(arguments: [FinishReason.abort, .error, .repetition, .length])
    func otherEndsKeepTheLastToken(reason: FinishReason) throws {
        let model = try Self.model()
        let id = try #require(model.tokenizer.id(forToken: "a"))
        var processor = processor(model)
        var text: [UInt8] = []
        let stop: StopReason? = reason == .repetition ? .text("repetition_detected") : nil
        let result = processor.process(output([id, id], reason, stop), into: &text)
        #expect(text == Array("aa".utf8))
        #expect(result.finish == SequenceFinish(reason: "\(reason)", stopReason: stop))
        #expect(!result.mustAbortEngine)
    }

    @Test func theStopTokenIsReportedAndLeftOut() throws {
        let model = try Self.model()
        let tool = try #require(model.tokenizer.id(forToken: "<tool>"))
        let id = try #require(model.tokenizer.id(forToken: "a"))
        for includes in [false, true] {
            var processor = processor(model) { $0.includesStop = includes }
            var text: [UInt8] = []
            let result = processor.process(output([id, tool], .stop, .token(Int(tool))), into: &text)
            #expect(String(decoding: text, as: UTF8.self) == (includes ? "a<tool>" : "a"))
            #expect(result.finish == SequenceFinish(reason: "stop", stopReason: .token(Int(tool))))
            #expect(result.tokenCount == 2)
        }
    }

    /// A stop string that overlaps itself must be found wherever it ends first.
    @Test func selfOverlappingStopStrings() throws {
        let model = try Self.model()
        var processor = processor(model, stop: ["aabaaab"])
        var text: [UInt8] = []
        var finish: SequenceFinish?
        for letter in "caabaabaaab" where finish == nil {
            let id = try #require(model.tokenizer.id(forToken: String(letter)))
            finish = processor.process(output([id]), into: &text).finish
        }
        #expect(finish?.stopReason == .text("aabaaab"))
        #expect(String(decoding: text, as: UTF8.self) == "caab")
    }
}
