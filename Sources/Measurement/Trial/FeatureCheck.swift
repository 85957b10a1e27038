import JSONBytes
import Tokenization

/// Requests that use what the workload does not: log-probabilities, tool calls, several choices, stop strings, text of many
/// scripts, refusals; streamed and whole. The answers are scripted, played back by the engine's replay, so that every
/// frontend has the same tokens to work on.
package struct FeatureCheck: Sendable {
    package struct Feature: Sendable, Equatable {
        package let name: String
        package let path: String
        package let body: String
        /// What the engine generates for each of its choices, as texts.
        package let answers: [String]
    }

    /// In the order in which they are to be sent, one at a time.
    package let features: [Feature]
    /// Takes one of the scripted answers away.
    package let filler: Feature

    /// What `serve` has to be told for them.
    package let serveOptions: [String]

    private static let manyScripts = "Straße, naïve café: 日本語 and Ελληνικά — 🙂👩‍🚀 done."
    private static let plain = "One two three, and then the END of it, which nobody reads."
    private static let call = """
        <tool_call>
        {"name": "get_weather", "arguments": {"city": "Zürich", "days": 3}}
        </tool_call>
        """
    private static let calls =
        "I will look it up.\n" + call + "\n" + call.replacing("Zürich", with: "Oslo \\\"north\\\"")

    /// - Parameters:
    ///   - model: as the servers call it; nil leaves it out.
    ///   - outputTokens: most of an answer; enough for the scripted ones.
    ///   - reasons: also with answers that begin with reasoning; vLLM's parsers need a tokenizer with its markers.
    package init(model: String?, outputTokens: Int = 120, reasons: Bool = false) {
        serveOptions =
            ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
            + (reasons ? ["--reasoning-parser", "qwen3"] : [])
        let tools = JSONValue.array([
            .object([
                ("type", .string("function")),
                (
                    "function",
                    .object([
                        ("name", .string("get_weather")), ("description", .string("Weather of a city")),
                        (
                            "parameters",
                            .object([
                                ("type", .string("object")),
                                (
                                    "properties",
                                    .object([
                                        ("city", .object([("type", .string("string"))])),
                                        ("days", .object([("type", .string("integer"))])),
                                    ])
                                ),
                            ])
                        ),
                    ])
                ),
            ])
        ])
        var features: [Feature] = []
        func add(
            _ name: String, _ endpoint: Workload.Endpoint, _ members: [(String, JSONValue)], answers: [String],
            streams: [Bool] = [true, false]
        ) {
            for stream in streams {
                var body = JSONObject()
                if let model { body["model"] = .string(model) }
                if endpoint == .chat {
                    body["messages"] = .array([
                        .object([("role", .string("user")), ("content", .string("Tell me."))])
                    ])
                } else {
                    body["prompt"] = .string("Tell me.")
                }
                body["max_tokens"] = .number(outputTokens)
                body["temperature"] = .number(0)
                body["stream"] = .bool(stream)
                if reasons, endpoint == .chat { body["chat_template_kwargs"] = Self.thinking(false) }
                if stream { body["stream_options"] = .object([("include_usage", .bool(true))]) }
                for (key, value) in members { body[key] = value }
                features.append(
                    Feature(
                        name:
                            "\(name), \(endpoint == .chat ? "chat" : "completions"), \(stream ? "streamed" : "whole")",
                        path: endpoint.path, body: JSONValue.object(body).serialized(), answers: answers))
            }
        }
        for endpoint in Workload.Endpoint.allCases {
            add("many scripts", endpoint, [("return_token_ids", .bool(true))], answers: [Self.manyScripts])
            add("stop string", endpoint, [("stop", .array([.string("e END o")]))], answers: [Self.plain])
            add(
                "stop string kept", endpoint,
                [("stop", .array([.string("then the")])), ("include_stop_str_in_output", .bool(true))],
                answers: [Self.plain])
            add("length", endpoint, [("max_tokens", .number(5))], answers: [Self.plain])
            let logprobs: [(String, JSONValue)] =
                endpoint == .chat
                ? [("logprobs", .bool(true)), ("top_logprobs", .number(2))] : [("logprobs", .number(2))]
            add("logprobs", endpoint, logprobs, answers: [Self.plain])
            add("logprobs of many scripts", endpoint, logprobs, answers: [Self.manyScripts])
            // Several greedy answers would all be the same; vLLM refuses them.
            add(
                "n=2", endpoint, [("n", .number(2)), ("temperature", .number(1)), ("seed", .number(7))],
                answers: [Self.plain, Self.manyScripts])
            add("refused", endpoint, [("temperature", .number(-1))], answers: [])
        }
        add(
            "two prompts", .completions, [("prompt", .array([.string("One."), .string("Two.")]))],
            answers: [Self.plain, Self.manyScripts])
        add("tool call", .chat, [("tools", tools)], answers: [Self.call])
        add("text and tool calls", .chat, [("tools", tools), ("tool_choice", .string("auto"))], answers: [Self.calls])
        add("tools not used", .chat, [("tools", tools), ("tool_choice", .string("none"))], answers: [Self.plain])
        if reasons {
            for (name, members, answer) in [
                ("reasoning", [], "It is two\nand two.\n</think>\n\n" + Self.manyScripts),
                ("reasoning with its marker", [], "<think>Two and two.</think>" + Self.plain),
                ("reasoning without an end", [], Self.plain),
                ("reasoning and tool call", [("tools", tools)], "A city.\n</think>\n\n" + Self.call),
                ("reasoning left out", [("include_reasoning", .bool(false))], "Two.</think>" + Self.plain),
            ] as [(String, [(String, JSONValue)], String)] {
                add(name, .chat, members + [("chat_template_kwargs", Self.thinking(true))], answers: [answer])
            }
        }
        self.features = features
        var body = JSONObject()
        if let model { body["model"] = .string(model) }
        body["prompt"] = .string("One.")
        body["max_tokens"] = .number(1)
        filler = Feature(
            name: "", path: Workload.Endpoint.completions.path, body: JSONValue.object(body).serialized(), answers: [])
    }

    private static func thinking(_ on: Bool) -> JSONValue { .object([("enable_thinking", .bool(on))]) }

    /// The answers as `blas-engine --mock-replay` reads them: no prompt is known, so they are played in their order.
    package func recording(_ tokenizer: Tokenizer) throws -> String {
        var lines = ["blas-engine-recording 1 \(tokenizer.vocabularySize) 4096 float32"]
        let answers = features.flatMap(\.answers)
        for (number, answer) in answers.enumerated() {
            var ids = try tokenizer.encode(answer, addSpecialTokens: false)
            if let end = tokenizer.eosTokenID { ids.append(end) }
            lines.append("request \(number) 0 1")
            for (step, id) in ids.enumerated() { lines.append("step \(number) \(step * 200) \(id)") }
        }
        return lines.map { $0 + "\n" }.joined()
    }
}

extension JSONValue {
    fileprivate static func object(_ members: [(String, JSONValue)]) -> JSONValue { .object(JSONObject(members)) }
}
