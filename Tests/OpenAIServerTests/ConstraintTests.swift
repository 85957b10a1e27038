import EngineProtocol
import JSONBytes
import Testing

/// Constraints that cannot be compiled are the client's mistake and never reach the engine.
@Suite struct ConstraintTests {
    private func answer(_ fields: String) throws -> (status: Int, error: JSONValue?, engineRequests: Int) {
        let server = try GenerationServer()
        let response = try server.post(
            "/v1/completions", #"{"prompt": "def foo(", "max_tokens": 3, "allowed_token_ids": [766], \#(fields)}"#)
        let body = try JSONValue.parse(response.body)
        return (response.status, body["error"], server.engine.requests.count)
    }

    @Test(arguments: [
        #""structured_outputs": {"regex": "(ab"}"#, #""structured_outputs": {"regex": "ab)"}"#,
        #""structured_outputs": {"regex": "[ab"}"#, #""structured_outputs": {"regex": "ab\\"}"#,
        #""structured_outputs": {"regex": "*a"}"#, #""structured_outputs": {"regex": "(+a)"}"#,
        #""structured_outputs": {"grammar": "root ::= \"unterminated"}"#,
        #""structured_outputs": {"grammar": "root ::= [a-z"}"#,
        #""structured_outputs": {"grammar": "start: \"lark\""}"#,
        ##""structured_outputs": {"grammar": "# root ::= \"a\""}"##,
        #""structured_outputs": {"json": {"type": "nonsense"}}"#,
        #""structured_outputs": {"json": "{\"items\": {\"type\": [\"string\", \"text\"]}}"}"#,
        #""structured_outputs": {"json": "not json"}"#,
    ])
    func anUnusableConstraintIsABadRequest(_ fields: String) throws {
        let answer = try answer(fields)
        #expect(answer.status == 400)
        #expect(answer.error?["type"]?.stringValue == "BadRequestError")
        #expect(answer.error?["param"]?.isNull == true)
        #expect(answer.engineRequests == 0)
    }

    @Test(arguments: [#"{"regex": "a", "choice": ["b"]}"#, #"{"json_object": true, "json": "{}"}"#, "{}"])
    func anyNumberOfConstraintsButOneIsABadRequest(_ constraints: String) throws {
        let answer = try answer(#""structured_outputs": \#(constraints)"#)
        #expect(answer.status == 400)
        #expect(answer.error?["type"]?.stringValue == "BadRequestError")
        let isFieldError = constraints.contains("choice")
        #expect(answer.error?["param"]?.stringValue == (isFieldError ? "structured_outputs" : nil))
        #expect(answer.engineRequests == 0)
    }

    /// An engine keeps the backend of its first constraint for good, so that every request has to name the same one; and
    /// up to 0.32 it cannot compile choices, which vLLM's Python frontend writes as this grammar.
    @Test func everyConstraintNamesTheSameBackend() throws {
        let server = try GenerationServer()
        let tools = #""tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required""#
        for fields in [
            #""structured_outputs": {"choice": ["yes", "no"]}"#, #""structured_outputs": {"regex": "a"}"#,
            #""structured_outputs": {"json": {}}"#, #""structured_outputs": {"grammar": "root ::= \"a\""}"#,
            #""structured_outputs": {"json_object": true}"#, #""response_format": {"type": "json_object"}"#, tools,
        ] {
            let messages = #""messages": [{"role": "user", "content": "a"}], "max_tokens": 1"#
            let response = try server.post("/v1/chat/completions", "{\(messages), \(fields)}")
            #expect(response.status == 200, "\(response.body)")
            #expect(server.engine.requests.last?.samplingParams.structuredOutputs?.backend == "xgrammar", "\(fields)")
        }
        #expect(server.engine.requests.count == 7)
        let choice = server.engine.requests.first?.samplingParams.structuredOutputs?.constraint
        #expect(choice == .grammar(#"root ::= "yes" | "no""#))
    }

    /// What only the engine's backend finds out is the client's mistake as well.
    @Test(arguments: [true, false])
    func aConstraintThatTheEngineRefusesIsABadRequest(_ stream: Bool) throws {
        let server = try GenerationServer(engine: ObedientEngine(refusesGrammars: true))
        let fields = #""prompt": "def foo(", "max_tokens": 3, "allowed_token_ids": [766], "stream": \#(stream)"#
        let response = try server.post(
            "/v1/completions", #"{\#(fields), "structured_outputs": {"grammar": "root ::= other"}}"#)
        #expect(response.status == 400)
        let error = try JSONValue.parse(response.body)["error"]
        #expect(error?["type"]?.stringValue == "BadRequestError")
        #expect(error?["message"]?.stringValue?.contains("grammar backend") == true)
        #expect(try server.post("/v1/completions", "{\(fields)}").status == 200)
    }

    @Test func anUnusableResponseFormatIsABadRequest() throws {
        let answer = try answer(
            #""response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "text"}}}"#)
        #expect(answer.status == 400)
        #expect(answer.error?["type"]?.stringValue == "BadRequestError")
        #expect(answer.engineRequests == 0)
    }

    @Test(arguments: [
        #""structured_outputs": {"regex": "(?:a|(b*)+?)[(*]{2,3}\\(\\]"}"#,
        #""structured_outputs": {"regex": "a+?b??"}"#, #""structured_outputs": {"regex": "[]a]|[^\\]]"}"#,
        #""structured_outputs": {"grammar": "root ::= \"\\\"[#\" item\nitem ::= [^\"\\]#] # \"rest"}"#,
        #""structured_outputs": {"grammar": "a::=\"x\"\nroot::=a"}"#,
        // Not a type: properties and values may have any name.
        #""structured_outputs": {"json": {"properties": {"type": {"enum": ["nonsense"]}}, "default": {"type": "x"}}}"#,
        #""structured_outputs": {"json": "true"}"#, #""structured_outputs": {"json_object": true}"#,
        #""response_format": {"type": "json_object"}"#,
    ])
    func aUsableConstraintReachesTheEngine(_ fields: String) throws {
        let answer = try answer(fields)
        #expect(answer.status == 200, "\(String(describing: answer.error))")
        #expect(answer.engineRequests == 1)
    }
}
