import EngineProtocol
import Foundation
import Testing

/// Fields that few engines fill in, as vLLM's own encoder writes them.
@Suite struct OutputFieldTests {
    struct Case: Decodable, Sendable, CustomTestStringConvertible {
        var name: String
        var frames: [String]
        var expected: JSON

        var testDescription: String { name }
        var field: Substring { name.prefix { $0 != ":" } }

        func decode() throws -> EngineCoreOutputs {
            try EngineCoreOutputs(decoding: ArrayFrames(frames.map(hex)), family: .v0_32)
        }

        static let all: [Case] = {
            struct File: Decodable { var cases: [Case] }
            let url = Bundle.module.resourceURL!.appendingPathComponent("Fixtures/output-fields.json")
            return try! JSONDecoder().decode(File.self, from: Data(contentsOf: url)).cases
        }()
    }

    @Test func everyFieldIsThere() {
        #expect(
            Set(Case.all.map(\.field)) == [
                "routed_experts", "new_sampling_mask", "spec_decode_metrics", "prompt_token_id_logprobs",
                "pooling_output", "num_nans_in_logits", "mm_cache_miss_hashes", "trace_headers", "scheduler_stats",
            ])
    }

    @Test(arguments: Case.all) func isDecoded(_ one: Case) throws {
        let message = try one.decode()
        let output = message.outputs[0]
        let expected = one.expected
        func check(_ array: EngineArray?) throws {
            let array = try #require(array)
            #expect(array.type == expected["type"].string)
            #expect(array.shape == expected["shape"].array?.compactMap(\.int))
        }
        switch one.field {
        case "routed_experts": try check(output.routedExperts)
        case "prompt_token_id_logprobs": try check(output.promptTokenIDLogprobs)
        case "pooling_output": try check(output.poolingOutput)
        case "new_sampling_mask":
            let mask = try #require(output.newSamplingMask)
            let lists = expected["lists"].array?.map { $0.array?.compactMap(\.int) ?? [] }
            #expect((0..<mask.count).map { mask[$0].map { Int($0) } } == lists)
        case "spec_decode_metrics":
            let metrics = try #require(output.specDecodeMetrics)
            let response = expected["response"]
            #expect(metrics.numSpecTokens == response["num_spec_tokens"].int)
            #expect(metrics.numDraftTokens == response["num_draft_tokens"].int)
            #expect(metrics.histogram == response["acceptance_histogram"].array?.compactMap(\.int))
            #expect(metrics.perStepAccepted == (response["per_step_accepted"].array ?? []).compactMap(\.int))
            #expect(metrics.perStepDrafted == (response["per_step_drafted"].array ?? []).compactMap(\.int))
        case "num_nans_in_logits": #expect(output.numNaNsInLogits == expected["count"].int)
        case "mm_cache_miss_hashes":
            #expect(output.mmCacheMissHashes == expected["hashes"].array?.compactMap(\.string))
            #expect(output.failure?.retryable == true)
        case "trace_headers": #expect(output.traceHeaders?.map(\.1) == ["00-1"])
        default:
            let stats = try #require(message.schedulerStats)
            #expect(stats.kvCacheEvictionEvents.map(\.lifetime) == [3.5, 0.015])
            #expect(stats.kvCacheEvictionEvents.map(\.reuseGaps) == [[0.5, 1.5], []])
            #expect(stats.specDecodingStats?.numAcceptedTokensPerPosition == [4, 3])
            #expect(stats.waitingLoRAAdapters == ["b": 1])
            #expect(stats.runningLoRAAdapters == ["a": 2, "c": 1])
            #expect(stats.perfStats?.writeBytesPerGPU == 30)
        }
    }

    /// What we write is what vLLM writes, to the byte; its statistics have keys that we leave out.
    @Test(arguments: Case.all) func isEncodedAsVLLMDoes(_ one: Case) throws {
        let message = try one.decode()
        let again = message.encode(family: .v0_32)
        if message.schedulerStats == nil {
            #expect(again.map(hexText) == one.frames)
        } else {
            let reread = try EngineCoreOutputs(decoding: ArrayFrames(again), family: .v0_32)
            #expect(reread.schedulerStats == message.schedulerStats)
        }
    }

    /// Older frontends take no longer arrays, and the oldest have everything behind the eighth field one place earlier.
    @Test(arguments: Case.all, ProtocolFamily.allCases) func travelsInEveryFamilyThatHasIt(
        _ one: Case, _ family: ProtocolFamily
    ) throws {
        let output = try one.decode().outputs[0]
        var message = EngineCoreOutputs()
        message.outputs = [output]
        let again = try EngineCoreOutputs(decoding: ArrayFrames(message.encode(family: family)), family: family)
            .outputs[0]
        #expect(again.routedExperts == output.routedExperts)
        #expect(again.numNaNsInLogits == output.numNaNsInLogits)
        #expect(again.poolingOutput == output.poolingOutput)
        #expect(again.traceHeaders?.map(\.0) == output.traceHeaders?.map(\.0))
        #expect(again.newSamplingMask == (family >= .v0_28 ? output.newSamplingMask : nil))
        #expect(again.mmCacheMissHashes == (family >= .v0_28 ? output.mmCacheMissHashes : []))
        #expect(again.specDecodeMetrics == (family >= .v0_30 ? output.specDecodeMetrics : nil))
        #expect(again.promptTokenIDLogprobs == (family >= .v0_32 ? output.promptTokenIDLogprobs : nil))
    }

    /// Offsets that lead out of the token ids, run backwards or begin before them.
    @Test(arguments: [[0, 3], [2, 1], [-1, 2], []]) func offsetsOfMasksAreChecked(_ offsets: [Int32]) throws {
        var output = EngineCoreOutput()
        output.newSamplingMask = SamplingMask(tokenIDs: [1, 2], offsets: offsets)
        var message = EngineCoreOutputs()
        message.outputs = [output]
        let frames = message.encode(family: .newest)
        #expect(throws: (any Error).self) {
            try EngineCoreOutputs(decoding: ArrayFrames(frames), family: .newest)
        }
    }
}
