import EngineProtocol
import JSONBytes

/// How much of tool calls is constrained when neither `tool_choice` nor the tools say so (vLLM: `--tool-strict-level`).
package enum ToolStrictLevel: String, Sendable, CaseIterable {
    /// What the request says.
    case auto
    /// The form of calls, for every request with tools.
    case function
    /// Arguments, too, as if every tool were `strict`.
    case parameter
}

/// Turns a choice of tools into a grammar, so that calls always parse.
enum ToolConstraint {
    /// A structural tag that makes hermes-style calls (`<tool_call>{"name": …, "arguments": …}</tool_call>`), or nil when
    /// the model decides for itself: with `none`, and with `auto` unless a tool is `strict`.
    ///
    /// As in vLLM only the arguments of `strict` tools follow their schema; those of others are any JSON.
    static func constraint(
        for choice: ChatRequest.ToolChoice, tools: [ToolDefinition], parallelCalls: Bool, level: ToolStrictLevel
    ) -> StructuredOutputs? {
        var allowed = tools
        var format: [(String, JSONValue)]
        switch choice {
        case .none: return nil
        case .auto:
            guard level != .auto || tools.contains(where: \.isStrict) else { return nil }
            format = [("type", .string("triggered_tags")), ("triggers", .array([.string("<tool_call>")]))]
        case .required:
            format = Self.callsOnly
        case .function(let name):
            allowed = tools.filter { $0.name == name }
            format = Self.callsOnly
        }
        format.append(("tags", .array(allowed.flatMap { tags(for: $0, strict: $0.isStrict || level == .parameter) })))
        var isSingle = !parallelCalls
        if case .function = choice { isSingle = true }
        if isSingle { format.append(("stop_after_first", .bool(true))) }
        let tag = JSONObject([("type", .string("structural_tag")), ("format", .object(JSONObject(format)))])
        return StructuredOutputs(constraint: .structuralTag(JSONValue.object(tag).serialized()))
    }

    private static let callsOnly: [(String, JSONValue)] = [
        ("type", .string("tags_with_separator")), ("separator", .string("")), ("at_least_one", .bool(true)),
    ]

    /// Models write calls on lines of their own or without line breaks.
    private static func tags(for tool: ToolDefinition, strict: Bool) -> [JSONValue] {
        var name: [UInt8] = []
        name.appendJSONString(tool.name)
        let begin = "{\"name\": " + String(decoding: name, as: UTF8.self) + ", \"arguments\": "
        // Everything is a value of the schema `true`.
        let schema = strict ? tool.parameters.map(JSONValue.object) ?? .bool(true) : .bool(true)
        let content = JSONValue.object(JSONObject([("type", .string("json_schema")), ("json_schema", schema)]))
        return ["\n", ""].map { lineBreak in
            .object(
                JSONObject([
                    ("begin", .string("<tool_call>" + lineBreak + begin)), ("content", content),
                    ("end", .string("}" + lineBreak + "</tool_call>")),
                ]))
        }
    }
}
