import Chat
import Testing

/// The final result of a parse, however its input was cut.
private struct Parsed: Equatable {
    var content = ""
    var reasoning = ""
    var calls: [[String]] = []

    init(_ pieces: [String], toolParser: String? = "hermes", reasoningParser: String? = nil, prompt: String = "") throws
    {
        let selection = try ParserSelection(toolParser: toolParser, reasoningParser: reasoningParser)
        let parser = try #require(selection.makeParser(parseTools: true, prompt: prompt))
        var events: [OutputEvent] = []
        for piece in pieces { Array(piece.utf8).withUnsafeBufferPointer { parser.append($0, events: &events) } }
        parser.finish(events: &events)
        var contentBytes: [UInt8] = []
        var reasoningBytes: [UInt8] = []
        var arguments: [[UInt8]] = []
        for event in events {
            switch event {
            case .content(let bytes): contentBytes += bytes
            case .reasoning(let bytes): reasoningBytes += bytes
            case .toolCallStart(let index, let id, let name):
                #expect(index == calls.count)
                #expect(id.hasPrefix("chatcmpl-tool-"))
                calls.append([name])
                arguments.append([])
            case .toolCallArguments(let index, let fragment): arguments[index] += fragment
            }
        }
        for index in calls.indices { calls[index].append(String(decoding: arguments[index], as: UTF8.self)) }
        content = String(decoding: contentBytes, as: UTF8.self)
        reasoning = String(decoding: reasoningBytes, as: UTF8.self)
        #expect(parser.sawToolCall == !calls.isEmpty)
    }
}

/// A text and what vLLM's hermes and qwen3 parsers make of it.
struct ParserSample: Sendable, CustomTestStringConvertible {
    let name: String
    let text: String
    var content = ""
    var reasoning = ""
    var calls: [[String]] = []
    var reasoningParser: String?

    var testDescription: String { name }

    static let all: [ParserSample] = [
        ParserSample(name: "plain", text: "no tool needed", content: "no tool needed"),
        ParserSample(
            name: "one call",
            text: "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
            calls: [["get_weather", "{\"city\": \"Paris\"}"]]),
        ParserSample(
            name: "two calls",
            text: "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": {\"y\": [1, \"}\"]}}}\n</tool_call>\n"
                + "<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>",
            calls: [["a", "{\"x\": {\"y\": [1, \"}\"]}}"], ["b", "{}"]]),
        ParserSample(
            name: "text before", text: "Let me see. <tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>",
            content: "Let me see. ", calls: [["a", "{}"]]),
        ParserSample(
            name: "malformed", text: "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": \n</tool_call>",
            content: "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": \n</tool_call>"),
        ParserSample(
            name: "arguments first", text: "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>",
            calls: [["f", "{\"a\": 1}"]]),
        ParserSample(name: "marker cut off", text: "a <tool_cal", content: "a <tool_cal"),
        ParserSample(
            name: "unicode", text: "é<tool_call>{\"name\": \"ü\", \"arguments\": {\"k\": \"日本\\\"}\"}}</tool_call>",
            content: "é",
            calls: [["ü", "{\"k\": \"日本\\\"}\"}"]]),
        ParserSample(
            name: "thinking", text: "<think>\nhm <b>\n</think>\n\nYes.", content: "\n\nYes.", reasoning: "\nhm <b>\n",
            reasoningParser: "qwen3"),
        ParserSample(name: "thinking never ends", text: "hm </thin", reasoning: "hm </thin", reasoningParser: "qwen3"),
        ParserSample(
            name: "thinking then a call", text: "x</think><tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>",
            reasoning: "x", calls: [["a", "{}"]], reasoningParser: "deepseek_r1"),
    ]
}

@Suite struct OutputParserTests {
    @Test(arguments: ParserSample.all)
    func resultIsTheSameForEveryCut(_ sample: ParserSample) throws {
        func check(_ pieces: [String]) throws {
            let parsed = try Parsed(pieces, reasoningParser: sample.reasoningParser)
            #expect(parsed.content == sample.content, "\(pieces)")
            #expect(parsed.reasoning == sample.reasoning, "\(pieces)")
            #expect(parsed.calls == sample.calls, "\(pieces)")
        }
        let scalars = Array(sample.text.unicodeScalars)
        func text(_ range: Range<Int>) -> String { String(String.UnicodeScalarView(scalars[range])) }
        try check([sample.text])
        try check(scalars.indices.map { text($0..<($0 + 1)) })
        for cut in 1..<max(2, scalars.count - 1) { try check([text(0..<cut), text(cut..<scalars.count)]) }
        var generator = SeededGenerator(state: 7)
        for _ in 0..<100 {
            var pieces: [String] = []
            var start = 0
            while start < scalars.count {
                let end = min(scalars.count, start + Int.random(in: 1...9, using: &generator))
                pieces.append(text(start..<end))
                start = end
            }
            try check(pieces)
        }
    }

    @Test func aPromptThatClosedItsThinkingMakesContent() throws {
        let parsed = try Parsed(
            ["Hello"], reasoningParser: "qwen3", prompt: "<|im_start|>assistant\n<think>\n\n</think>\n\n")
        #expect(parsed.content == "Hello")
    }

    @Test func unknownParsersAreRefusedWithTheKnownOnes() {
        #expect { try ParserSelection(toolParser: "hermez", reasoningParser: nil) } throws: {
            "\($0)".contains("hermez") && "\($0)".contains("hermes")
        }
        #expect { try ParserSelection(toolParser: nil, reasoningParser: "qwen9") } throws: {
            "\($0)".contains("deepseek_r1, qwen3")
        }
    }
}

private struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ (state >> 29)
    }
}
