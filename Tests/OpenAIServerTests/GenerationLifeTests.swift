import EngineProtocol
import Foundation
import JSONBytes
import Metrics
import NIOCore
import NIOEmbedded
import OpenAIServer
import Synchronization
import Testing

/// How generating requests end when something goes wrong.
@Suite struct GenerationLifeTests {
    /// vLLM answers each of these 400 as well; an empty value once ended the process.
    @Test(arguments: ["", " ", ";", ";charset=utf-8", "text/plain", "application/jsonx"])
    func aBodyThatIsNotDeclaredAsJSONIsRefused(_ contentType: String) throws {
        let server = try GenerationServer()
        let response = try server.post(
            "/v1/completions", #"{"prompt": "def foo("}"#, headers: [("Content-Type", contentType)])
        #expect(response.status == 400)
        #expect(response.body.contains("Unsupported Media Type"))
    }

    private static let streamed =
        #"{"prompt": "def foo(", "max_tokens": 100, "allowed_token_ids": [766], "stream": true}"#
    private static let whole = #"{"prompt": "def foo(", "max_tokens": 100, "allowed_token_ids": [766]}"#

    private func send(_ body: String, to server: GenerationServer) throws {
        try server.wire.send(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
    }

    @Test func engineDeathEndsAStreamWithAnErrorEvent() throws {
        let server = try GenerationServer()
        try send(Self.streamed, to: server)
        _ = server.engine.step()
        _ = server.engine.step()
        server.wire.loop.run()
        server.engine.die()
        let response = try #require(WireResponse.parse(try server.wire.receive()).first)
        let events = try AnswerShape.events(response.body)
        #expect(events.last?["data"]?.stringValue == "[DONE]")
        #expect(events.dropLast().last?["data"]?["error"]?["code"]?.numberValue?.intValue == 500)
    }

    @Test func engineDeathBeforeTheFirstTokenIsARealStatus() throws {
        for body in [Self.streamed, Self.whole] {
            let server = try GenerationServer()
            try send(body, to: server)
            server.engine.die()
            let response = try #require(WireResponse.parse(try server.wire.receive()).first)
            #expect(response.status == 500)
            #expect(try JSONValue.parse(response.body)["error"]?["type"]?.stringValue == "InternalServerError")
        }
    }

    @Test func aClientThatLeavesIsAbortedInTheEngine() throws {
        for body in [Self.streamed, Self.whole] {
            let server = try GenerationServer()
            try send(body, to: server)
            _ = server.engine.step()
            server.wire.loop.run()
            #expect(server.engine.inFlight == 1)
            server.wire.close()
            #expect(server.engine.inFlight == 0)
        }
    }

    /// As vLLM's Python frontend answers to `/abort_requests`: what has come is kept.
    @Test(arguments: [#", "n": 2, "seed": 1"#, ""], [true, false])
    func anOperatorsAbortIsAFinishReason(_ n: String, _ isStreamed: Bool) throws {
        let server = try GenerationServer()
        let body = (isStreamed ? Self.streamed : Self.whole).dropLast() + n + "}"
        try send(String(body), to: server)
        _ = server.engine.step()
        server.wire.loop.run()
        #expect(server.wire.context.loopStates.reduce(0) { $0 + $1.abortRequests(ids: []) } == 1)
        #expect(server.engine.inFlight == 0)
        let response = try #require(WireResponse.parse(try server.wire.receive()).first)
        #expect(response.status == 200)
        let count = n.isEmpty ? 1 : 2
        if isStreamed {
            let events = try AnswerShape.events(response.body)
            #expect(events.last?["data"]?.stringValue == "[DONE]")
            let reasons = events.compactMap {
                $0["data"]?["choices"]?.arrayValue?.first?["finish_reason"]?.stringValue
            }
            #expect(reasons == Array(repeating: "abort", count: count))
        } else {
            let choices = try #require(try JSONValue.parse(response.body)["choices"]?.arrayValue)
            #expect(choices.map { $0["finish_reason"]?.stringValue } == Array(repeating: "abort", count: count))
            #expect(choices.allSatisfy { $0["text"]?.stringValue?.isEmpty == false })
        }
    }

    @Test func theAnswersOfAPromptAreCountedTogether() throws {
        let server = try GenerationServer()
        for (prompts, n) in [(1, 3), (2, 2)] {
            let list = Array(repeating: "\"def foo(\"", count: prompts).joined(separator: ",")
            let body = "{\"prompt\": [\(list)], \"n\": \(n), \"max_tokens\": 4, \"allowed_token_ids\": [766]}"
            #expect(try server.post("/v1/completions", body).status == 200)
        }
        let page = String(decoding: MetricsPage(server.wire.context.metrics, accept: nil).body, as: UTF8.self)
        let labels = "{engine=\"0\",model_name=\"tiny\"}"
        for line in [
            "vllm:request_params_n_count\(labels) 3", "vllm:request_params_n_sum\(labels) 7",
            "vllm:request_max_num_generation_tokens_count\(labels) 3",
            "vllm:request_max_num_generation_tokens_sum\(labels) 12",
        ] {
            #expect(page.contains(line), "\(line)")
        }
    }

    @Test func tokensForAClientThatDoesNotReadComeInOneEvent() throws {
        let server = try GenerationServer()
        let channel = server.wire.channel
        func step(_ count: Int) {
            for _ in 0..<count {
                _ = server.engine.step()
                server.wire.loop.run()
            }
        }
        try send(Self.streamed, to: server)
        step(2)
        var received = try server.wire.receive()
        channel.isWritable = false
        channel.pipeline.fireChannelWritabilityChanged()
        step(50)
        #expect(try server.wire.receiveWrites() == [])
        channel.isWritable = true
        channel.pipeline.fireChannelWritabilityChanged()
        let late = try server.wire.receive()
        #expect(late.components(separatedBy: "data: ").count == 2)
        step(48)
        received += late + (try server.wire.receive())
        let response = try #require(WireResponse.parse(received).first)
        let texts = try AnswerShape.events(response.body).compactMap { event in
            event["data"]?["choices"]?.arrayValue?.first?["text"]?.stringValue
        }
        let whole = try JSONValue.parse(try GenerationServer().post("/v1/completions", Self.whole).body)
        #expect(texts.joined() == whole["choices"]?.arrayValue?.first?["text"]?.stringValue)
        #expect(texts.count == 51)
    }

    @Test func aStopStringAbortsTheEngine() throws {
        let server = try GenerationServer()
        let response = try server.post(
            "/v1/completions",
            #"{"prompt": "def foo(", "max_tokens": 100, "allowed_token_ids": [766], "stop": "tim"}"#)
        #expect(response.status == 200)
        #expect(server.engine.aborted.withLock { $0 } == [0])
    }

    @Test func nothingOutOfRangeReachesTheEngine() throws {
        let bad = [
            #""temperature": 1e400"#, #""temperature": NaN"#, #""top_p": -1"#, #""top_k": -2"#, #""min_p": 1.5"#,
            #""max_tokens": 0"#, #""max_tokens": -9223372036854775808"#, #""n": 1000000"#, #""seed": 1e300"#,
            #""logprobs": 1000000000"#, #""prompt_logprobs": -5"#, #""stop_token_ids": [-1]"#,
            #""stop_token_ids": [99999999999]"#, #""logit_bias": {"-1": 1}"#, #""logit_bias": {"1": "x"}"#,
            #""repetition_detection": {"max_pattern_size": 1, "min_pattern_size": 5, "min_count": 2}"#,
            #""structured_outputs": {"regex": "a", "grammar": "b"}"#, #""structured_outputs": {}"#,
            #""structured_outputs": {"choice": []}"#, #""bad_words": [""]"#, #""priority": 1e30"#,
            #""vllm_xargs": {"a": 99999999999999999999999}"#, #""truncate_prompt_tokens": 100000"#,
        ]
        for field in bad {
            let server = try GenerationServer()
            let response = try server.post("/v1/completions", #"{"prompt": "def foo(", \#(field)}"#)
            #expect(response.status == 400, "\(field): \(response.body.prefix(200))")
            #expect(server.engine.requests.isEmpty, "\(field)")
            #expect(try JSONValue.parse(response.body)["error"]?["code"]?.numberValue?.intValue == 400, "\(field)")
        }
    }

    @Test func aPromptThatFillsTheContextIsRefused() throws {
        let ids = Array(repeating: "10", count: 2048).joined(separator: ",")
        let server = try GenerationServer()
        #expect(try server.post("/v1/completions", #"{"prompt": [\#(ids)], "max_tokens": 1}"#).status == 400)
        #expect(server.engine.requests.isEmpty)
    }

    @Test func seedsDifferAmongTheSequencesOfARequest() throws {
        let server = try GenerationServer()
        _ = try server.post(
            "/v1/completions",
            #"{"prompt": ["def foo(", "import"], "n": 2, "seed": 7, "max_tokens": 1, "allowed_token_ids": [766]}"#)
        #expect(server.engine.requests.map(\.samplingParams.seed) == [7, 8, 7, 8])
        #expect(Set(server.engine.requests.map(\.requestID)).count == 4)
    }
}
