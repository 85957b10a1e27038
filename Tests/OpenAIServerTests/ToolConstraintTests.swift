import EngineProtocol
import JSONBytes
import OpenAIServer
import Testing

/// Which calls the engine may write. Expected values: `get_model_structural_tag("hermes", …)` of vLLM 0.32, without the
/// members that have xgrammar's default.
@Suite struct ToolConstraintTests {
    private static let parameters = #"{"type":"object","properties":{"a":{"type":"integer"}}}"#

    private func constraint(
        _ choice: String, strict: Bool = false, parallel: Bool = true, level: ToolStrictLevel = .auto,
        fields: String = "", grammars: Bool = true
    ) throws -> (status: Int, tag: StructuredOutputs?) {
        let engine = ObedientEngine(knowsGrammars: grammars)
        let server = try GenerationServer(engine: engine) {
            $0.toolCallParser = "hermes"
            $0.toolStrictLevel = level
        }
        let response = try server.post(
            "/v1/chat/completions",
            """
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "allowed_token_ids": [766],
             "tools": [{"type": "function", "function": {"name": "add", "parameters": \(Self.parameters), "strict": \(strict)}},
                       {"type": "function", "function": {"name": "now"}}],
             "parallel_tool_calls": \(parallel), "tool_choice": \(choice)\(fields)}
            """)
        return (response.status, engine.requests.first?.samplingParams.structuredOutputs)
    }

    private func tags(_ names: [(String, String)]) -> String {
        names.flatMap { name, schema in
            [#"\n"#, ""].map { lineBreak in
                #"{"begin":"<tool_call>\#(lineBreak){\"name\": \"\#(name)\", \"arguments\": ","#
                    + #""content":{"type":"json_schema","json_schema":\#(schema)},"end":"}\#(lineBreak)</tool_call>"}"#
            }
        }.joined(separator: ",")
    }

    private func expect(_ outputs: StructuredOutputs?, _ format: String) throws {
        guard case .structuralTag(let text)? = outputs?.constraint else {
            Issue.record("no structural tag: \(String(describing: outputs))")
            return
        }
        let wanted = try JSONValue.parse(#"{"type":"structural_tag","format":{\#(format)}}"#)
        #expect(try JSONValue.parse(text).serialized() == wanted.serialized())
    }

    @Test func autoLeavesTheModelAloneUnlessSomethingIsStrict() throws {
        #expect(try constraint(#""auto""#).tag == nil)
        #expect(try constraint(#""none""#, strict: true).tag == nil)
        let begin = #""type":"triggered_tags","triggers":["<tool_call>"],"tags":["#
        try expect(
            constraint(#""auto""#, strict: true).tag, begin + tags([("add", Self.parameters), ("now", "true")]) + "]")
        try expect(
            constraint(#""auto""#, level: .function).tag, begin + tags([("add", "true"), ("now", "true")]) + "]")
        try expect(
            constraint(#""auto""#, parallel: false, level: .parameter).tag,
            begin + tags([("add", Self.parameters), ("now", "true")]) + #"],"stop_after_first":true"#)
    }

    @Test func aForcedCallHasItsForm() throws {
        let begin = #""type":"tags_with_separator","separator":"","at_least_one":true,"tags":["#
        try expect(constraint(#""required""#).tag, begin + tags([("add", "true"), ("now", "true")]) + "]")
        try expect(
            constraint(#""required""#, strict: true, parallel: false).tag,
            begin + tags([("add", Self.parameters), ("now", "true")]) + #"],"stop_after_first":true"#)
        try expect(
            constraint(#"{"type":"function","function":{"name":"now"}}"#).tag,
            begin + tags([("now", "true")]) + #"],"stop_after_first":true"#)
        try expect(
            constraint(#"{"type":"function","function":{"name":"add"}}"#, strict: true).tag,
            begin + tags([("add", Self.parameters)]) + #"],"stop_after_first":true"#)
    }

    @Test func theClientsOwnConstraintHoldsWhereACallIsNotForced() throws {
        let own = #","response_format":{"type":"json_object"}"#
        #expect(try constraint(#""auto""#, strict: true, fields: own).tag?.constraint == .jsonObject)
        guard case .structuralTag? = try constraint(#""required""#, fields: own).tag?.constraint else {
            Issue.record("a forced call wins")
            return
        }
    }

    /// Our engine says so when it registers; what only helps is left out, what was asked for is refused.
    @Test func anEngineWithoutGrammarsIsNotAskedForThem() throws {
        let auto = try constraint(#""auto""#, strict: true, grammars: false)
        #expect(auto.status == 200 && auto.tag == nil)
        #expect(try constraint(#""required""#, grammars: false).status == 400)
        let regex = #","structured_outputs":{"regex":"a"}"#
        #expect(try constraint(#""auto""#, fields: regex, grammars: false).status == 400)
    }
}
