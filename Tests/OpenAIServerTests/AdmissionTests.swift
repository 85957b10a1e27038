import Metrics
import NIOEmbedded
import NIOHTTP1
import OpenAIServer
import Testing

/// What the two queue limits count, after vLLM's `check_admission`.
@Suite struct AdmissionTests {
    private func body(n: Int = 1, prompts: Int = 1) -> String {
        let prompt = Array(repeating: "\"def foo(\"", count: prompts).joined(separator: ",")
        return "{\"prompt\": [\(prompt)], \"n\": \(n), \"max_tokens\": 4, \"allowed_token_ids\": [766]}"
    }

    private func send(_ body: String, to server: GenerationServer) throws {
        try server.wire.send(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                + "Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
    }

    private func takesMore(_ server: GenerationServer) -> Bool {
        (try? server.wire.context.admission.check(adding: 1)) != nil
    }

    @Test func everySequenceOfARequestCounts() throws {
        let server = try GenerationServer { $0.maxUnfinishedRequests = 4 }
        for (n, prompts, status) in [(4, 1, 200), (5, 1, 503), (2, 2, 200), (1, 4, 200), (3, 2, 503), (1, 5, 503)] {
            let response = try server.post("/v1/completions", body(n: n, prompts: prompts))
            #expect(response.status == status as Int, "\(prompts) prompts, n = \(n)")
            guard status == 503 else { continue }
            #expect(response.headers.first(name: "retry-after") == "1")
            #expect(response.body.contains("\"type\":\"ServiceUnavailableError\""))
        }
        #expect(server.wire.context.metrics.totalUnfinishedSequences() == 0)
    }

    @Test func runningSequencesCountUntilTheyEnd() throws {
        let server = try GenerationServer { $0.maxUnfinishedRequests = 2 }
        try send(body(n: 2), to: server)
        #expect(!takesMore(server))
        while server.engine.step() { server.wire.loop.run() }
        #expect(takesMore(server))
        try send(body(n: 2), to: server)
        server.engine.die()
        server.wire.loop.run()
        #expect(takesMore(server), "sequences that failed are over")
        try send(body(n: 2), to: server)
        #expect(!takesMore(server))
        server.wire.close()
        #expect(takesMore(server), "sequences whose client has gone are over")
    }

    @Test func promptTokensCountUntilTheFirstOutput() throws {
        let server = try GenerationServer { $0.maxQueuedTokens = 2 }
        // Longer than the limit, but nothing waits.
        try send(body(), to: server)
        #expect(!takesMore(server))
        _ = server.engine.step()
        server.wire.loop.run()
        #expect(takesMore(server), "it runs now")
        while server.engine.step() { server.wire.loop.run() }
        try send(body(), to: server)
        server.wire.close()
        #expect(takesMore(server), "nobody waits any more")
    }

    @Test func zeroRefusesEverything() throws {
        let server = try GenerationServer { $0.maxQueuedTokens = 0 }
        #expect(try server.post("/v1/completions", body()).status == 503)
    }
}
