import JSONBytes
import OpenAIServer
import Testing

/// Routes for callers that tokenise themselves; answers as vLLM's Python frontend gave them to the same requests.
@Suite struct ScaleOutTests {
    private func server(_ isEnabled: Bool = true) throws -> GenerationServer {
        try GenerationServer {
            $0.enableScaleOut = isEnabled
            $0.enableTokenizerInfoEndpoint = isEnabled
        }
    }

    private static let prompt = #""token_ids": [318, 5647, 10]"#

    @Test func generateAnswersWithTokens() throws {
        let body = try server().post(
            "/inference/v1/generate",
            "{\(Self.prompt), \"request_id\": \"one\", \"return_token_ids\": true, "
                + #""sampling_params": {"max_tokens": 3, "temperature": 0, "allowed_token_ids": [766]}}"#
        ).body
        let answer = try JSONValue.parse(body)
        #expect(answer["request_id"]?.stringValue == "generate-tokens-one")
        #expect(answer["usage"]?["total_tokens"]?.numberValue?.intValue == 6)
        #expect(answer["output_mode"]?.stringValue == "tokens")
        #expect(answer["prompt_token_ids"]?.serialized() == "[318,5647,10]")
        let choice = try #require(answer["choices"]?.arrayValue?.first)
        #expect(choice["token_ids"]?.serialized() == "[766,766,766]")
        #expect(choice["finish_reason"]?.stringValue == "length")
        #expect(choice["logprobs"]?.isNull == true)
    }

    @Test func generateStreamsOneFramePerOutput() throws {
        let body = try server().post(
            "/inference/v1/generate",
            "{\(Self.prompt), \"stream\": true, \"stream_options\": {\"include_usage\": true}, "
                + #""sampling_params": {"max_tokens": 2, "temperature": 0, "allowed_token_ids": [766]}}"#
        ).body
        let frames = try AnswerShape.events(body)
        #expect(frames.count == 4)
        #expect(frames[0]["data"]?["choices"]?.arrayValue?.first?["token_ids"]?.serialized() == "[766]")
        #expect(frames[1]["data"]?["choices"]?.arrayValue?.first?["finish_reason"]?.stringValue == "length")
        #expect(frames[2]["data"]?["usage"]?["completion_tokens"]?.numberValue?.intValue == 2)
        #expect(frames[3]["data"]?.stringValue == "[DONE]")
    }

    /// What engines that hand requests over to each other have to say goes through whole answers.
    @Test(arguments: [
        ("/v1/completions", #""prompt": "def""#),
        ("/v1/chat/completions", #""messages": [{"role": "user", "content": "a"}]"#),
    ])
    func transferParametersAreTold(_ path: String, _ prompt: String) throws {
        let server = try GenerationServer(engine: ObedientEngine(tellsTransfers: true))
        let fields = #", "max_tokens": 2, "allowed_token_ids": [766], "kv_transfer_params": {"do_remote_decode": true}"#
        let answer = try JSONValue.parse(try server.post(path, "{\(prompt)\(fields)}").body)
        #expect(answer["kv_transfer_params"]?.serialized() == #"{"kv_transfer_params":{"do_remote_decode":true}}"#)
        #expect(answer["ec_transfer_params"]?.serialized() == #"{"k":1}"#)
        #expect(answer["metrics"]?.isNull == true)
    }

    @Test func timesOfARequestAreToldWhenAskedFor() throws {
        let server = try GenerationServer { $0.enablePerRequestMetrics = true }
        let request = #"{"prompt": "def", "max_tokens": 3, "allowed_token_ids": [766]"#
        let names = [
            "time_to_first_token_ms", "generation_time_ms", "queue_time_ms", "mean_itl_ms", "tokens_per_second",
            "speculative_decoding",
        ]
        let whole = try JSONValue.parse(try server.post("/v1/completions", request + "}").body)
        #expect(whole["metrics"]?.objectValue?.pairs.map(\.key) == names)
        #expect(whole["metrics"]?["generation_time_ms"]?.numberValue?.doubleValue == 0)
        #expect(whole["metrics"]?["queue_time_ms"]?.isNull == true, "this engine tells no events")
        let two = try JSONValue.parse(try server.post("/v1/completions", request + #", "n": 2, "seed": 1}"#).body)
        #expect(two["metrics"]?.isNull == true, "of which one?")
        let stream = try server.post(
            "/v1/completions", request + #", "stream": true, "stream_options": {"include_usage": true}}"#)
        let events = try AnswerShape.events(stream.body)
        #expect(events.dropLast().last?["data"]?["metrics"]?.objectValue?.pairs.map(\.key) == names)
    }

    @Test func exchangedWeightsAreTold() throws {
        func server() throws -> GenerationServer {
            try GenerationServer(engine: ObedientEngine(weightVersions: [1: "default", 3: "w2", 4: "w2"])) {
                $0.enableScaleOut = true
            }
        }
        let request = "{\(Self.prompt), \"sampling_params\": {\"max_tokens\": 4, \"allowed_token_ids\": [766]}"
        let spans = #"[{"version":"default","start":0,"end":2},{"version":"w2","start":2,"end":4}]"#
        let answer = try JSONValue.parse(try server().post("/inference/v1/generate", request + "}").body)
        #expect(answer["choices"]?.arrayValue?.first?["weight_versions"]?.serialized() == spans)
        let body = try server().post("/inference/v1/generate", request + ", \"stream\": true}").body
        let told = try AnswerShape.events(body).compactMap {
            $0["data"]?["choices"]?.arrayValue?.first?["weight_versions"]?.serialized()
        }
        #expect(told == ["null", "null", "null", spans])
    }

    @Test(arguments: [
        (#"{"sampling_params": {}}"#, "body.token_ids"),
        (#"{"token_ids": [], "sampling_params": {}}"#, "body.token_ids"),
        (#"{"token_ids": [-1], "sampling_params": {}}"#, "body.token_ids"),
        (#"{"token_ids": [1]}"#, "body.sampling_params"),
        (#"{"token_ids": [1], "sampling_params": []}"#, "body.sampling_params"),
        (#"{"token_ids": [1], "sampling_params": {"temperature": 5}}"#, "temperature"),
        (#"{"token_ids": [1], "sampling_params": {"max_tokens": 0}}"#, "max_tokens"),
        (#"{"token_ids": [1], "sampling_params": {"allowed_token_ids": []}}"#, "allowed_token_ids"),
        (#"{"token_ids": [1], "sampling_params": {}, "cache_salt": ""}"#, "cache_salt"),
    ])
    func wrongRequestsNameTheField(_ body: String, _ param: String) throws {
        let server = try server()
        let response = try server.post("/inference/v1/generate", body)
        #expect(response.status == 400)
        #expect(try JSONValue.parse(response.body)["error"]?["param"]?.stringValue == param)
        #expect(server.engine.requests.isEmpty)
    }

    @Test(arguments: ["/inference/v1/generate", "/inference/v1/abort_requests", "/v1/completions/render"])
    func theRoutesNeedTheirSwitch(_ path: String) throws {
        let response = try server(false).post(path, "{}")
        #expect(response.status == 403)
        #expect(response.body.contains("\"type\":\"PermissionDeniedError\",\"param\":null,\"code\":403"))
    }

    @Test func renderedRequestsCanBeGenerated() throws {
        let server = try server()
        let rendered = try JSONValue.parse(
            try server.post(
                "/v1/completions/render", #"{"prompt": "def foo(", "max_tokens": 2, "allowed_token_ids": [766]}"#
            ).body)
        let request = try #require(rendered.arrayValue?.first)
        #expect(request["token_ids"]?.serialized() == "[318,5647,10]")
        #expect(request["sampling_params"]?["max_tokens"]?.numberValue?.intValue == 2)
        let answer = try JSONValue.parse(try server.post("/inference/v1/generate", request.serialized()).body)
        #expect(answer["choices"]?.arrayValue?.first?["token_ids"]?.serialized() == "[766,766]")
    }

    @Test func aBatchHasOneChoicePerConversation() throws {
        let body = try server().post(
            "/v1/chat/completions/batch",
            #"{"messages": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]], "#
                + #""max_tokens": 2, "allowed_token_ids": [766]}"#
        ).body
        let answer = try JSONValue.parse(body)
        let choices = try #require(answer["choices"]?.arrayValue)
        #expect(choices.map { $0["message"]?["content"]?.stringValue } == ["importimport", "importimport"])
        #expect(answer["usage"]?["prompt_tokens"]?.numberValue?.intValue == 22)
        let two = try server().post(
            "/v1/chat/completions/batch", #"{"messages": [[{"role": "user", "content": "a"}]], "n": 2}"#)
        #expect(two.status == 400 && two.body.contains("\"param\":\"n\""))
    }

    @Test func invocationsGoWhereTheirBodyBelongs() throws {
        let server = try server()
        let text = try server.post(
            "/invocations", #"{"prompt": "def foo(", "max_tokens": 2, "allowed_token_ids": [766]}"#)
        #expect(text.body.contains("\"text\":\"importimport\""))
        let chat = try server.post(
            "/invocations",
            #"{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "allowed_token_ids": [766]}"#)
        #expect(chat.body.contains("\"object\":\"chat.completion\""))
    }
}
