import EngineProtocol
import Foundation
import JSONBytes
import MessagePack
import Metrics
import OpenAIServer
import Testing

/// What answers and metrics make of the fields that few engines fill in; expected values are vLLM's.
@Suite struct RareOutputTests {
    private static let fixtures: JSONValue = {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let file = tests.appendingPathComponent("EngineProtocolTests/Fixtures/output-fields.json")
        return try! JSONValue.parse(String(decoding: Data(contentsOf: file), as: UTF8.self))
    }()

    private final class Frames: FrameSource {
        private let buffers: [UnsafeMutableRawBufferPointer]
        init(_ frames: [[UInt8]]) {
            buffers = frames.map {
                let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: $0.count, alignment: 8)
                buffer.copyBytes(from: $0)
                return buffer
            }
        }
        deinit { for buffer in buffers { buffer.deallocate() } }
        var count: Int { buffers.count }
        subscript(index: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(buffers[index]) }
    }

    /// An output as vLLM encodes it, and what its frontend makes of it.
    private static func recorded(_ name: String) throws -> (output: EngineCoreOutput, expected: JSONValue) {
        let entry = try #require(fixtures["cases"]?.arrayValue?.first { $0["name"]?.stringValue == name })
        let frames = (entry["frames"]?.arrayValue ?? []).map { frame in
            let digits = Array(frame.stringValue!.utf8)
            return stride(from: 0, to: digits.count, by: 2).map {
                UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)!
            }
        }
        let message = try EngineCoreOutputs(decoding: Frames(frames), family: .v0_32)
        return (message.outputs[0], try #require(entry["expected"]))
    }

    private static let generate = #"{"token_ids": [318, 5647, 10], "sampling_params": {"allowed_token_ids": [766], "#

    private func server(
        configure: @escaping (inout ServerConfiguration) -> Void = { _ in },
        _ change: @escaping @Sendable (_ number: Int, _ output: inout EngineCoreOutput) -> Void
    ) throws -> GenerationServer {
        try GenerationServer(engine: ObedientEngine(change: change)) {
            $0.enableScaleOut = true
            configure(&$0)
        }
    }

    private func choice(_ body: String) throws -> JSONValue {
        try #require(try JSONValue.parse(body)["choices"]?.arrayValue?.first)
    }

    /// Two tokens that are the first byte of a character each are shown as the same text, and JSON has room for one: vLLM's
    /// Python server keeps the last in the place of the first.
    @Test func alternativesWithTheSameTextAreOne() throws {
        let answer = try server { _, output in
            output.newLogprobs = LogprobRows(
                rows: 1, columns: 4, tokenIDs: [766, 130, 67, 161], logprobs: [-0.5, -1, -2, -3], ranks: [1])
        }.post(
            "/v1/completions",
            #"{"prompt": "def", "allowed_token_ids": [766], "max_tokens": 1, "logprobs": 3}"#)
        let shown = try choice(answer.body)["logprobs"]?["top_logprobs"]?.arrayValue?.first?.objectValue
        #expect(shown?.pairs.map { $0.1.numberValue?.doubleValue } == [-0.5, -3, -2], "\(answer.body)")
    }

    /// The rows of a real engine are as long as the longest that any request of the step asked for.
    @Test func alternativesOfOtherRequestsAreNotShown() throws {
        let answers = try server { _, output in
            output.newLogprobs = LogprobRows(
                rows: 1, columns: 5, tokenIDs: [766, 10, 11, 12, 0], logprobs: [-0.5, -1, -2, -3, -.infinity],
                ranks: [1])
        }
        let body = #""prompt": "def", "allowed_token_ids": [766], "max_tokens": 1, "logprobs""#
        for (request, count) in [(": 1", 2), (": 0", 1), (#": 0, "logprob_token_ids": [10, 11]"#, 3)] {
            let answer = try answers.post("/v1/completions", "{\(body)\(request)}")
            let shown = try choice(answer.body)["logprobs"]?["top_logprobs"]?.arrayValue?.first?.objectValue
            #expect(shown?.pairs.map { $0.1.numberValue?.doubleValue } == [-0.5, -1, -2].prefix(count).map { $0 })
        }
        let chat = try answers.post(
            "/v1/chat/completions",
            #"""
            {"messages": [{"role": "user", "content": "a"}], "allowed_token_ids": [766], "max_tokens": 1,
             "logprobs": true, "logprob_token_ids": [10, 11]}
            """#)
        let entry = try choice(chat.body)["logprobs"]?["content"]?.arrayValue?.first
        #expect(entry?["top_logprobs"]?.arrayValue?.count == 3)
        let tokens = try answers.post(
            "/inference/v1/generate", Self.generate + #""max_tokens": 1, "logprobs": 1}}"#)
        let first = try choice(tokens.body)["logprobs"]?["content"]?.arrayValue?.first
        #expect(first?["top_logprobs"]?.arrayValue?.count == 2)
    }

    /// The same among many: they are looked up in another way than few.
    @Test(arguments: [(3, 45), (40, 45)]) func manyAlternativesWithTheSameText(first: Int, last: Int) throws {
        // One character of ASCII each.
        var ids = [766] + Array(Int32(10)..<60)
        ids[first] = 130
        ids[last] = 161
        let (columns, tokenIDs) = (ids.count, ids)
        let answer = try server(configure: { $0.maxLogprobs = 50 }) { _, output in
            output.newLogprobs = LogprobRows(
                rows: 1, columns: columns, tokenIDs: tokenIDs, logprobs: (0..<columns).map { -0.5 - Float($0) },
                ranks: [1])
        }.post(
            "/v1/completions",
            #"{"prompt": "def", "allowed_token_ids": [766], "max_tokens": 1, "logprobs": 50}"#)
        let shown = try choice(answer.body)["logprobs"]?["top_logprobs"]?.arrayValue?.first?.objectValue
        var expected = (0..<columns).map { -0.5 - Double($0) }
        expected[first] = expected.remove(at: last)
        #expect(shown?.pairs.map { $0.1.numberValue?.doubleValue } == expected, "\(answer.body)")
    }

    @Test(arguments: [
        ("/v1/completions", #"{"prompt": "def", "allowed_token_ids": [766], "max_tokens": 2}"#),
        (
            "/v1/chat/completions",
            #"{"messages": [{"role": "user", "content": "a"}], "allowed_token_ids": [766], "max_tokens": 2}"#
        ),
        ("/inference/v1/generate", generate + #""max_tokens": 2}}"#),
    ])
    func routedExpertsAreANumpyFile(_ path: String, _ request: String) throws {
        for name in ["small", "frame of its own", "no row"] {
            let (recorded, expected) = try Self.recorded("routed_experts: \(name)")
            // In two parts, as an engine sends them: the prompt's rows, then one for each token.
            let whole = try #require(recorded.routedExperts)
            let rows = whole.shape[0]
            let cut = max(0, rows - 1) * whole.bytes.count / max(1, rows)
            let answer = try server { number, output in
                var part = whole
                part.shape[0] = number == 1 ? max(0, rows - 1) : min(rows, 1)
                part.bytes = Array(number == 1 ? whole.bytes[..<cut] : whole.bytes[cut...])
                output.routedExperts = part
            }.post(path, request)
            let told = try choice(answer.body)["routed_experts"]
            if rows > 0 { #expect(told?.stringValue == expected["base64"]?.stringValue, "\(name)") }
        }
        let without = try server { _, _ in }.post(path, request)
        #expect(try choice(without.body)["routed_experts"]?.isNull == true)
    }

    @Test func rowsOfTokensBehindAStopStringDoNotCount() throws {
        let whole = try #require(try Self.recorded("routed_experts: small").output.routedExperts)
        let answer = try server { number, output in
            output.newTokenIDs = [766, 766, 766]
            output.routedExperts = whole
        }.post("/v1/completions", #"{"prompt": "def", "max_tokens": 3, "stop": " ", "min_tokens": 0}"#)
        let text = try #require(try choice(answer.body)["routed_experts"]?.stringValue)
        let file = try #require(Data(base64Encoded: text))
        let tokens = try #require(
            try JSONValue.parse(answer.body)["usage"]?["completion_tokens"]?.numberValue?.intValue)
        #expect(file.count == 128 + 4 * tokens)
    }

    @Test(arguments: ["three positions", "one position", "large"]) func samplingMasksAreLists(_ name: String) throws {
        let (recorded, expected) = try Self.recorded("new_sampling_mask: \(name)")
        let mask = try #require(recorded.newSamplingMask)
        let lists = try #require(expected["lists"])
        let count = mask.count
        func server() throws -> GenerationServer {
            try self.server { _, output in
                output.newTokenIDs = Array(repeating: 766, count: count)
                output.newSamplingMask = mask
                output.finishReason = .length
            }
        }
        let request = Self.generate + "\"max_tokens\": \(count)}"
        let whole = try choice(try server().post("/inference/v1/generate", request + "}").body)
        #expect(whole["sampling_mask"]?.serialized() == lists.serialized())
        let stream = try server().post("/inference/v1/generate", request + #", "stream": true}"#)
        let frames = try AnswerShape.events(stream.body)
        let told = frames[0]["data"]?["choices"]?.arrayValue?.first?["sampling_mask"]
        #expect(told?.serialized() == lists.serialized())
    }

    @Test(arguments: ["summary", "detailed", "nothing drafted"]) func speculationIsTold(_ name: String) throws {
        let (recorded, expected) = try Self.recorded("spec_decode_metrics: \(name)")
        let server = try server { number, output in
            if number == 2 { output.specDecodeMetrics = recorded.specDecodeMetrics }
        }
        let request = #"{"prompt": "def", "max_tokens": 2, "allowed_token_ids": [766]"#
        let answer = try JSONValue.parse(try server.post("/v1/completions", request + "}").body)
        let told = try #require(answer["metrics"]?["speculative_decoding"]?.objectValue)
        for (key, value) in try #require(expected["response"]?.objectValue).pairs {
            let number = value.numberValue?.doubleValue
            if let number {
                #expect(told[key]?.numberValue?.doubleValue == number, "\(key)")
            } else {
                #expect(told[key]?.serialized() == value.serialized(), "\(key)")
            }
        }
        #expect(answer["metrics"]?["queue_time_ms"]?.isNull == true)
        let stream = try server.post(
            "/v1/completions", request + #", "stream": true, "stream_options": {"include_usage": true}}"#)
        let last = try AnswerShape.events(stream.body).dropLast().last
        #expect(last?["data"]?["metrics"]?["speculative_decoding"]?["num_spec_steps"] != nil)
    }

    @Test func promptScoresAreANumpyFile() throws {
        let (recorded, expected) = try Self.recorded("prompt_token_id_logprobs: float32")
        let server = try server { _, output in output.promptTokenIDLogprobs = recorded.promptTokenIDLogprobs }
        let request = Self.generate + #""max_tokens": 1, "prompt_logprob_token_ids": [[1, 2], [3]]}}"#
        let answer = try JSONValue.parse(try server.post("/inference/v1/generate", request).body)
        #expect(answer["prompt_token_id_logprobs"]?.stringValue == expected["base64"]?.stringValue)
        let sent = try #require(server.engine.requests.first?.samplingParams)
        #expect(sent.promptLogprobTokenIDs == TokenIDMatrix(rows: 2, columns: 2, values: [1, 2, 3, -1]))
    }

    @Test(arguments: [
        #""prompt_logprob_token_ids": [[1]]}}"#, #""prompt_logprob_token_ids": [[], []]}}"#,
        #""prompt_logprob_token_ids": []}}"#, #""prompt_logprob_token_ids": [1, 2]}}"#,
        #""prompt_logprob_token_ids": [[1], ["a"]]}}"#, #""prompt_logprob_token_ids": [[-2], [1]]}}"#,
        #""prompt_logprob_token_ids": [[1], [99999999]]}}"#, #""prompt_logprob_start": 1}}"#,
        #""prompt_logprob_start": -1, "prompt_logprob_token_ids": [[1], [2]]}}"#,
        #""prompt_logprob_start": 1, "prompt_logprob_token_ids": [[1], [2]]}}"#,
        #""prompt_logprob_token_ids": [[1], [2]]}, "stream": true}"#,
        #""prompt_logprob_token_ids": [[1], [2]]}}"#, #""routed_experts_prompt_start": 4}}"#,
        #""routed_experts_prompt_start": -1}}"#,
    ])
    func unusablePromptScoresAreRefused(_ parameters: String) throws {
        let server = try server { _, _ in }
        let answer = try server.post("/inference/v1/generate", Self.generate + #""max_tokens": 1, "# + parameters)
        #expect(answer.status == 400, "\(answer.body)")
    }

    @Test func missingImagesAreRetryable() throws {
        let answer = try server { _, output in
            output.finishReason = .error
            output.mmCacheMissHashes = ["a1"]
        }.post("/v1/completions", #"{"prompt": "def", "max_tokens": 2}"#)
        #expect(answer.status == 503)
        #expect(answer.body.contains("Multi-modal processor cache miss."))
    }

    @Test func sequencesWithNaNAreCounted() throws {
        let server = try server { number, output in output.numNaNsInLogits = number == 1 ? 2 : 1 }
        _ = try server.post("/v1/completions", #"{"prompt": ["a", "b"], "max_tokens": 2}"#)
        let page = MetricsPage(server.wire.context.metrics, accept: nil)
        let line = String(decoding: page.body, as: UTF8.self).split(separator: "\n")
            .first { $0.hasPrefix("vllm:corrupted_requests_total") }
        #expect(line?.hasSuffix(" 2") == true, "\(line ?? "")")
    }
}
