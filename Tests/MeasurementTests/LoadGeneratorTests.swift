import Measurement
import NIOCore
import Testing

@Suite struct LoadGeneratorTests {
    private func load(
        _ server: ScriptedServer, requests: Int, concurrency: Int? = 1, offsets: [Nanoseconds]? = nil,
        body: String = #"{"seed":1000000000000000}"#
    ) throws -> BlockOfAnswers {
        let generator = LoadGenerator()
        defer { generator.shutdown() }
        let target = LoadTarget(address: .tcp(host: "127.0.0.1", port: server.port))
        let plan = LoadPlan(
            templates: [RequestTemplate(path: "/v1/chat/completions", body: body, target: target)],
            requests: (0..<requests).map {
                PlannedRequest(item: 0, seed: RequestTemplate.firstSeed + UInt64($0), expectedTokens: 4)
            }, offsets: offsets, concurrency: concurrency, openedBefore: offsets == nil ? concurrency ?? 0 : 0)
        return try generator.run(plan, for: target, arm: 3, block: 5)
    }

    @Test func streamsAreTimedAndPutTogether() throws {
        let server = try ScriptedServer { _, _ in
            [
                Answers.streamHead, Answers.content("Hel"), Answers.content(#"lo \u00e9\n"#),
                Answers.content("", finish: "length"), Answers.end(prompt: 7, completion: 2),
            ]
        }
        defer { server.stop() }
        let block = try load(server, requests: 3)
        #expect(block.requests.count == 3)
        for (index, record) in block.requests.enumerated() {
            #expect(record.succeeded, "\(record.error as Any) \(record.errorDetail ?? "")")
            #expect(record.arm == 3 && record.block == 5 && record.index == index)
            #expect(record.seed == RequestTemplate.firstSeed + UInt64(index))
            #expect(record.usage == TokenUsage(promptTokens: 7, completionTokens: 2))
            #expect(record.choices == [ChoiceRecord(text: "Hello é\n", finishReason: "length", pieces: [3, 6])])
            #expect(record.chunkTokens == [1, 1])
            #expect(record.chunkOffsets.count == 2)
            let first = try #require(record.firstToken)
            #expect(record.intendedSend <= record.actualSend)
            #expect(record.chunkOffsets[0] == first - record.actualSend)
            #expect(record.chunkOffsets[0] <= record.chunkOffsets[1])
            #expect(record.chunkOffsets[1] <= record.end - record.actualSend)
        }
        #expect(block.retries == 0)
    }

    @Test func seedsAreWrittenIntoTheRequests() throws {
        // The server answers with the seed it has read.
        let server = try ScriptedServer { _, body in
            let seed = body.filter(\.isNumber)
            return [
                Answers.streamHead, Answers.content(seed, finish: "stop"), Answers.end(prompt: 1, completion: 1),
            ]
        }
        defer { server.stop() }
        let block = try load(server, requests: 12, concurrency: 4)
        #expect(block.requests.map { $0.choices[0].text } == block.requests.map { String($0.seed) })
    }

    @Test func tokensOfChunksComeFromTokenIds() throws {
        @Sendable func chunk(_ text: String, _ ids: String, _ finish: String = "null") -> String {
            Answers.chunk(
                #"data: {"choices":[{"index":0,"text":"\#(text)","token_ids":[\#(ids)],"finish_reason":\#(finish)}]}"#
                    + "\r\n\r\n")
        }
        let server = try ScriptedServer { _, _ in
            [
                Answers.streamHead, chunk("a", "1,2"), chunk("", "3"), chunk("b", "4"), chunk("", "5", #""length""#),
                Answers.end(prompt: 1, completion: 5),
            ]
        }
        defer { server.stop() }
        let record = try #require(try load(server, requests: 1).requests.first)
        #expect(record.succeeded)
        #expect(record.chunkTokens == [2, 3])
        #expect(record.choices.first?.tokenIDs == [1, 2, 3, 4, 5])
    }

    @Test func severalChoicesAndToolCallsAreKeptApart() throws {
        @Sendable func event(_ json: String) -> String { Answers.chunk("data: " + json + "\n\n") }
        let server = try ScriptedServer { _, _ in
            [
                Answers.streamHead,
                event(#"{"choices":[{"index":1,"delta":{"content":"one"},"finish_reason":null}]}"#),
                event(#"{"choices":[{"index":0,"delta":{"reasoning":"hm"},"finish_reason":null}]}"#),
                event(
                    #"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{\"a\""}}]}}]}"#
                ),
                event(
                    #"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#),
                event(#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#),
                event(#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#),
                Answers.end(prompt: 1, completion: 9),
            ]
        }
        defer { server.stop() }
        let record = try #require(try load(server, requests: 1).requests.first)
        #expect(record.succeeded)
        #expect(
            record.choices == [
                ChoiceRecord(
                    reasoning: "hm", toolCalls: [ToolCallRecord(name: "f", arguments: #"{"a":1}"#)],
                    finishReason: "tool_calls"),
                ChoiceRecord(text: "one", finishReason: "stop", pieces: [3]),
            ])
        #expect(record.chunkOffsets.count == 4)
    }

    @Test func wholeAnswersHaveNoChunks() throws {
        let json =
            #"{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#
        let answer = Answers.whole(json)
        let server = try ScriptedServer { _, _ in [String(answer.prefix(40)), String(answer.dropFirst(40))] }
        defer { server.stop() }
        let record = try #require(try load(server, requests: 1).requests.first)
        #expect(record.succeeded)
        #expect(record.choices == [ChoiceRecord(text: "hi", finishReason: "stop")])
        #expect(record.usage?.completionTokens == 4)
        #expect(record.firstToken == record.end)
        #expect(record.chunkOffsets.isEmpty)
    }

    @Test func failuresHaveTheirKind() throws {
        let server = try ScriptedServer { number, _ in
            switch number {
            case 1: [Answers.whole(#"{"error":{"message":"no"}}"#, status: "503 Unavailable")]
            case 2:
                [
                    Answers.streamHead, Answers.chunk(#"data: {"error":{"message":"engine died"}}"# + "\n\n"),
                    "0\r\n\r\n",
                ]
            case 3: [Answers.streamHead, Answers.content("a"), "0\r\n\r\n"]
            case 4: [Answers.streamHead, "zz\r\n"]
            case 5: [Answers.streamHead, Answers.chunk("data: {\"choices\":[{\n\n"), "0\r\n\r\n"]
            default: []
            }
        }
        defer { server.stop() }
        let block = try load(server, requests: 6)
        #expect(
            block.requests.map(\.error) == [.status, .errorEvent, .incomplete, .malformed, .malformed, .disconnected])
        #expect(block.requests[0].status == 503)
        #expect(block.requests[1].errorDetail?.contains("engine died") == true)
    }

    @Test func aClosedIdleConnectionIsTriedAgain() throws {
        let server = try ScriptedServer(closesAfterEach: true) { _, _ in
            [Answers.streamHead, Answers.content("a", finish: "stop"), Answers.end(prompt: 1, completion: 1)]
        }
        defer { server.stop() }
        let block = try load(server, requests: 5)
        #expect(block.requests.filter(\.succeeded).count == 5)
    }

    @Test func nobodyListeningIsAnError() throws {
        let server = try ScriptedServer { _, _ in [] }
        server.stop()
        #expect(throws: (any Error).self) { try load(server, requests: 1) }
        let block = try load(server, requests: 2, concurrency: nil, offsets: [0, 1_000_000])
        #expect(block.requests.map(\.error) == [.connect, .connect])
    }

    @Test func openLoopKeepsIntendedTimesAndLateness() throws {
        let server = try ScriptedServer { _, _ in
            [Answers.streamHead, Answers.content("a", finish: "stop"), Answers.end(prompt: 1, completion: 1)]
        }
        defer { server.stop() }
        let offsets: [Nanoseconds] = [0, 1_000_000, 1_500_000, 7_000_000]
        // One at a time: those that wait keep their intended times.
        let block = try load(server, requests: 4, concurrency: 1, offsets: offsets)
        let start = try #require(block.requests.first).intendedSend
        #expect(block.requests.map { $0.intendedSend - start } == offsets)
        #expect(block.requests.allSatisfy { $0.actualSend >= $0.intendedSend })
        #expect(block.lateness.highest >= block.lateness.p50)
        #expect(block.start == start)
        #expect(block.end == block.requests.map(\.end).max())
    }
}
