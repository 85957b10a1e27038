import Chat
import Foundation
import JSONBytes
import TestSupport
import Testing

@Suite struct OutputParserTests {
    private struct Case {
        let text: String
        let selection: ParserSelection
        let parseTools: Bool
        let thinking: Bool
        let expected: JSONValue

        init(_ json: JSONValue) throws {
            text = try #require(json["text"]?.stringValue)
            selection = try ParserSelection(
                toolParser: json["tool_parser"]?.stringValue, reasoningParser: json["reasoning_parser"]?.stringValue)
            parseTools = selection.hasTools
            thinking = json["enable_thinking"]?.boolValue ?? true
            expected = json
        }

        func parser() -> (any OutputParser)? {
            selection.makeParser(parseTools: parseTools, prompt: "", thinking: thinking)
        }

        func stream(_ pieces: [ArraySlice<UInt8>]) -> Collected { Collected(pieces, parser()) }
    }

    /// Text before a late `<think>` stays reasoning here, see `DeepSeekR1ReasoningParser`.
    private static let lateStart = ["thoughts</think>a<think>b</think>c", "before<think>inside</think>after"]

    /// vLLM's own parsers on the same whole texts.
    @Test func wholeAnswersParseAsInVLLM() throws {
        let cases = try Fixture.cases("parsers.json").map(Case.init)
        #expect(cases.count > 100)
        for one in cases {
            if one.expected["reasoning_parser"]?.stringValue == "deepseek_r1", Self.lateStart.contains(one.text) {
                continue
            }
            let output = one.selection.parseWhole(
                one.text, parseTools: one.parseTools, prompt: "", thinking: one.thinking)
            #expect(output.reasoning ?? "" == one.expected["reasoning"]?.stringValue ?? "", "\(one.text)")
            #expect(output.content == one.expected["content"]?.stringValue, "\(one.text)")
            let calls = output.toolCalls.map { Collected.Call(name: $0.name, arguments: $0.arguments) }
            let expectedCalls = try #require(one.expected["tool_calls"]?.arrayValue).map {
                Collected.Call(name: $0["name"]?.stringValue ?? "", arguments: $0["arguments"]?.stringValue ?? "")
            }
            #expect(calls == expectedCalls, "\(one.text)")
        }
    }

    /// What a stream adds up to is what the whole text parses to, except where a call breaks off or is malformed after
    /// its arguments began: then it has already been streamed.
    @Test func streamsAddUpToTheWholeAnswer() throws {
        var compared = 0
        for one in try Fixture.cases("parsers.json").map(Case.init) {
            let streamed = one.stream([Array(one.text.utf8)[...]])
            let whole = one.selection.parseWhole(
                one.text, parseTools: one.parseTools, prompt: "", thinking: one.thinking)
            if whole.toolCalls.isEmpty, !streamed.calls.isEmpty { continue }
            compared += 1
            #expect(streamed.reasoning == whole.reasoning ?? "", "\(one.text)")
            #expect(streamed.content == whole.content ?? "", "\(one.text)")
            #expect(streamed.calls.map(\.name) == whole.toolCalls.map(\.name), "\(one.text)")
            for (call, expected) in zip(streamed.calls, whole.toolCalls) {
                // The stream keeps the model's spelling, the whole answer is normalised: equal values, other text.
                #expect(try Self.object(call.arguments) == Self.object(expected.arguments), "\(one.text)")
            }
        }
        #expect(compared > 110)
    }

    private static func object(_ text: String) throws -> NSObject? {
        // Foundation does not know NaN.
        let text = text.replacingOccurrences(of: "NaN", with: "-123456789")
        return try JSONSerialization.jsonObject(with: Data(text.utf8), options: .fragmentsAllowed) as? NSObject
    }

    /// The result must not depend on how the tokens fall.
    @Test func everySplitGivesTheSameResult() throws {
        var generator = SeededGenerator(seed: 3)
        for one in try Fixture.cases("parsers.json").map(Case.init) {
            let bytes = Array(one.text.utf8)
            let expected = one.stream([bytes[...]])
            #expect(one.stream(bytes.indices.map { bytes[$0...$0] }) == expected, "\(one.text) by bytes")
            for cut in 0...bytes.count {
                #expect(one.stream([bytes[..<cut], bytes[cut...]]) == expected, "\(one.text) at \(cut)")
            }
            for _ in 0..<50 {
                var cuts = (0..<Int.random(in: 2...8, using: &generator)).map { _ in
                    Int.random(in: 0...bytes.count, using: &generator)
                }
                cuts.sort()
                let bounds = [0] + cuts + [bytes.count]
                let pieces = zip(bounds, bounds.dropFirst()).map { bytes[$0..<$1] }
                #expect(one.stream(pieces) == expected, "\(one.text) at \(cuts)")
            }
        }
    }

    /// Random mixtures of markers, JSON and text: no split changes the result and nothing crashes.
    @Test func randomTextsSplitAnywhere() throws {
        let words = [
            "<think>", "</think>", "<tool_call>", "</tool_call>", "{\"name\": \"f\", \"arguments\": ", "{\"a\": 1}",
            "}",
            "{", "\"", "\\", "<", "<t", "</", "</tool", "text", " ", "\n", "é", "😀", "[1,2]", "null", ",",
            "\"name\": 1",
            "{\"arguments\": {}, \"name\": \"g\"}", ">",
        ]
        var generator = SeededGenerator(seed: 11)
        let selections = [
            try ParserSelection(toolParser: "hermes", reasoningParser: nil),
            try ParserSelection(toolParser: "hermes", reasoningParser: "qwen3"),
            try ParserSelection(toolParser: "qwen3_json", reasoningParser: "deepseek_r1"),
            try ParserSelection(toolParser: nil, reasoningParser: "deepseek_r1"),
        ]
        for round in 0..<1500 {
            let selection = selections[round % selections.count]
            let text = (0..<Int.random(in: 1...14, using: &generator)).map { _ in
                words.randomElement(using: &generator)!
            }.joined()
            let bytes = Array(text.utf8)
            let make = { selection.makeParser(parseTools: true, prompt: "x") }
            let expected = Collected([bytes[...]], make())
            #expect(Collected(bytes.indices.map { bytes[$0...$0] }, make()) == expected, "\(text)")
            let cut = Int.random(in: 0...bytes.count, using: &generator)
            #expect(Collected([bytes[..<cut], bytes[cut...]], make()) == expected, "\(text) at \(cut)")
            _ = selection.parseWhole(text, parseTools: true, prompt: "x")
        }
    }

    @Test func argumentsStreamAsTheyCome() throws {
        let parser = try #require(
            try ParserSelection(toolParser: "hermes", reasoningParser: nil).makeParser(parseTools: true, prompt: ""))
        var events: [OutputEvent] = []
        func feed(_ text: String) -> [String] {
            events.removeAll()
            Array(text.utf8).withUnsafeBufferPointer { parser.append($0, events: &events) }
            return events.map { event in
                switch event {
                case .content(let bytes): "content " + String(decoding: bytes, as: UTF8.self)
                case .reasoning(let bytes): "reasoning " + String(decoding: bytes, as: UTF8.self)
                case .toolCallStart(let index, _, let name): "start \(index) \(name)"
                case .toolCallArguments(let index, let bytes):
                    "arguments \(index) " + String(decoding: bytes, as: UTF8.self)
                }
            }
        }
        #expect(feed("Hi <tool") == ["content Hi "])
        #expect(feed("_call>{\"name\": \"f\", ") == [])
        #expect(!parser.sawToolCall)
        #expect(feed("\"arguments\": {\"a\"") == ["start 0 f", "arguments 0 {\"a\""])
        #expect(feed(": 1") == ["arguments 0 : 1"])
        #expect(feed("}") == ["arguments 0 }"])
        #expect(
            feed("}\n</tool_call>\n<tool_call>\n{\"name\":\"g\",\"arguments\":[") == ["start 1 g", "arguments 1 ["])
        #expect(parser.sawToolCall)
        #expect(feed("]}</tool_call> rest") == ["arguments 1 ]"])
    }

    @Test func contentIsHeldBackOnlyWhileItMayBeAMarker() throws {
        let parser = try #require(
            try ParserSelection(toolParser: "hermes", reasoningParser: nil).makeParser(parseTools: true, prompt: ""))
        var events: [OutputEvent] = []
        var seen = 0
        for character in "a <b <tool <tool_cat <tool_call" {
            events.removeAll()
            Array(String(character).utf8).withUnsafeBufferPointer { parser.append($0, events: &events) }
            for case .content(let bytes) in events { seen += bytes.count }
        }
        #expect(seen == "a <b <tool <tool_cat ".utf8.count)
        events.removeAll()
        parser.finish(events: &events)
        guard case .content(let rest)? = events.first else {
            Issue.record("nothing released")
            return
        }
        #expect(String(decoding: rest, as: UTF8.self) == "<tool_call")
    }

    @Test func anEndlessHeadIsNotHeldForever() throws {
        let parser = try #require(
            try ParserSelection(toolParser: "hermes", reasoningParser: nil).makeParser(parseTools: true, prompt: ""))
        let text = Array(("<tool_call>{\"x\": \"" + String(repeating: "y", count: 200_000)).utf8)
        var events: [OutputEvent] = []
        text.withUnsafeBufferPointer { parser.append($0, events: &events) }
        var content: [UInt8] = []
        for case .content(let bytes) in events { content.append(contentsOf: bytes) }
        #expect(content == text)
    }

    @Test(arguments: ["qwen3", "deepseek_r1"])
    func thePromptDecidesWhereTheAnswerStarts(name: String) throws {
        let selection = try ParserSelection(toolParser: nil, reasoningParser: name)
        func parsed(_ prompt: String, continuing text: String? = nil) -> String {
            let output = selection.parseWhole("words", parseTools: false, prompt: prompt, continuedText: text)
            return output.reasoning != nil ? "reasoning" : "content"
        }
        #expect(parsed("<|im_start|>assistant\n") == "reasoning")
        #expect(parsed("<|im_start|>assistant\n<think>\n") == "reasoning")
        #expect(parsed("<|im_start|>assistant\n<think>\n\n</think>\n\n") == "content")
        #expect(parsed("user: what is </think>?<|im_start|>assistant\n") == "reasoning")
        #expect(parsed("… <think>a</think>b", continuing: "<think>a</think>b") == "content")
        #expect(parsed("… <think>a", continuing: "<think>a") == "reasoning")
        #expect(parsed("… b", continuing: "b") == "reasoning")
    }

    @Test func reasoningEndsVisibly() throws {
        let parser = try #require(
            try ParserSelection(toolParser: nil, reasoningParser: "qwen3").makeParser(parseTools: true, prompt: ""))
        var events: [OutputEvent] = []
        Array("thoughts</thi".utf8).withUnsafeBufferPointer { parser.append($0, events: &events) }
        #expect(parser.isReasoning)
        Array("nk>answer".utf8).withUnsafeBufferPointer { parser.append($0, events: &events) }
        #expect(!parser.isReasoning)
    }

    @Test func unknownNamesAreRefusedWithTheKnownOnes() throws {
        let tool = #expect(throws: ChatError.self) { try ParserSelection(toolParser: "nope", reasoningParser: nil) }
        #expect(tool?.description == "unknown tool call parser 'nope' (known: hermes, qwen3_json)")
        let reasoning = #expect(throws: ChatError.self) {
            try ParserSelection(toolParser: nil, reasoningParser: "nope")
        }
        #expect(reasoning?.description == "unknown reasoning parser 'nope' (known: deepseek_r1, qwen3)")
        let none = try ParserSelection(toolParser: nil, reasoningParser: nil)
        #expect(none.makeParser(parseTools: true, prompt: "") == nil)
        let onlyTools = try ParserSelection(toolParser: "hermes", reasoningParser: nil)
        #expect(onlyTools.makeParser(parseTools: false, prompt: "") == nil)
    }
}
