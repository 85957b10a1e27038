import EngineProtocol
import JSONBytes

/// Turns a forced tool choice into a grammar, so that the output always parses.
enum ToolConstraint {
    /// A structural tag that makes hermes-style calls (`<tool_call>{"name": …, "arguments": …}</tool_call>`), or nil when
    /// the model decides for itself (vLLM adds nothing for `auto` and `none` either).
    static func constraint(for choice: ChatRequest.ToolChoice, tools: [ToolDefinition]) -> StructuredOutputs? {
        let allowed: [ToolDefinition]
        switch choice {
        case .none, .auto: return nil
        case .required: allowed = tools
        case .function(let name): allowed = tools.filter { $0.name == name }
        }
        var tags: [JSONValue] = []
        for tool in allowed {
            var name: [UInt8] = []
            name.appendJSONString(tool.name)
            let schema = tool.parameters.map(JSONValue.object) ?? .object(JSONObject([("type", .string("object"))]))
            tags.append(
                .object(
                    JSONObject([
                        (
                            "begin",
                            .string(
                                "<tool_call>\n{\"name\": " + String(decoding: name, as: UTF8.self) + ", \"arguments\": "
                            )
                        ),
                        ("content", .object(JSONObject([("type", .string("json_schema")), ("json_schema", schema)]))),
                        ("end", .string("}\n</tool_call>")),
                    ])))
        }
        var format: [(String, JSONValue)] = [
            ("type", .string("triggered_tags")), ("triggers", .array([.string("<tool_call>")])),
            ("tags", .array(tags)), ("at_least_one", .bool(true)),
        ]
        if case .function = choice { format.append(("stop_after_first", .bool(true))) }
        let tag = JSONObject([("type", .string("structural_tag")), ("format", .object(JSONObject(format)))])
        return StructuredOutputs(constraint: .structuralTag(JSONValue.object(tag).serialized()))
    }
}
