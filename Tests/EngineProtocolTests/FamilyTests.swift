import EngineProtocol
import Foundation
import Testing

/// Messages of older releases, made by the code of these releases (`tools/fixtures/make_family_fixtures.py`).
@Suite struct FamilyTests {
    struct Release: Decodable, Sendable, CustomTestStringConvertible {
        struct Message: Decodable, Sendable {
            var name: String
            var frames: [String]
        }
        var version: String
        var outputs: [Message]
        var utility: [String]
        var stats: [String]

        var testDescription: String { version }
        var family: ProtocolFamily { ProtocolFamily(vllmVersion: version)! }

        static let folder = Bundle.module.resourceURL!.appendingPathComponent("Fixtures/families")
        static let all: [Release] = ["0.22.0", "0.25.1", "0.28.0", "0.30.0", "0.32.0"].map {
            try! JSONDecoder().decode(Release.self, from: Data(contentsOf: folder.appendingPathComponent($0 + ".json")))
        }
    }

    private func decode(_ frames: [String], _ family: ProtocolFamily) throws -> EngineCoreOutputs {
        try EngineCoreOutputs(decoding: ArrayFrames(frames.map(hex)), family: family)
    }

    @Test(arguments: Release.all) func outputs(_ release: Release) throws {
        for message in release.outputs {
            let decoded = try decode(message.frames, release.family)
            let output = decoded.outputs[0]
            #expect(output.newTokenIDs == [7, 70000])
            if message.name == "everything" {
                #expect(output.newLogprobs?.tokenIDs == [7, 1, 70000, 2])
                #expect(output.newLogprobs?.ranks == [1, 9])
                #expect(output.newPromptLogprobs?.rows == 50)
                #expect(output.poolingOutput?.shape == [2])
                #expect(output.finishReason == .stop)
                #expect(output.stopReason == .token(70000))
                #expect(output.events.map(\.timestamp) == [1.5, 2.5])
                #expect(output.kvTransferParams == [0x81, 0xa1, 0x61, 1])
                #expect(output.ecTransferParams == (release.family >= .v0_28 ? [0x81, 0xa1, 0x62, 2] : nil))
                #expect(output.traceHeaders?.map(\.1) == ["00-1"])
                #expect(output.prefillStats?.numPromptTokens == 9)
                #expect(output.prefillStats?.numCachedTokens == 4)
                #expect(output.routedExperts?.shape == [1, 2, 2])
                #expect(output.numNaNsInLogits == 3)
                #expect(output.mmCacheMissHashes == (release.family >= .v0_28 ? ["h"] : []))
            }
            // What we write for this family is what the release writes itself, to the byte; only the statistics of a
            // prompt have one more count since 0.28, which older ones pass over.
            if message.name != "everything" || release.family >= .v0_28 {
                #expect(decoded.encode(family: release.family).map(hexText) == message.frames, "\(message.name)")
            }
        }
    }

    @Test(arguments: Release.all) func statisticsAndAnswers(_ release: Release) throws {
        let stats = try #require(try decode(release.stats, release.family).schedulerStats)
        #expect(stats.numRunningReqs == 3)
        #expect(stats.kvCacheUsage == 0.25)
        let message = try decode(release.utility, release.family)
        let answer = try #require(message.utilityOutput)
        #expect(answer.callID == 1 << 62)
        #expect(answer.result == [0x92, 0xa1, 0x61, 1])
        #expect(message.encode(family: release.family).map(hexText) == release.utility)
    }

    /// These very bytes have been read by the releases' decoders. When the encoder changes, set `UPDATE_REQUESTS` to a file
    /// for the new ones, and let the script read them again.
    @Test func requestsAreThoseThatTheReleasesHaveRead() throws {
        var request = EngineCoreRequest(
            requestID: "id", promptTokenIDs: [1, 2, 70000], samplingParams: SamplingParams(), arrivalTime: 1.5)
        request.cacheSalt = "salt"
        request.dataParallelRank = 3
        request.clientIndex = 4
        request.currentWave = 9
        request.priority = -5
        request.traceHeaders = [("traceparent", "00-1")]
        request.externalRequestID = "ext"
        request.reasoningEnded = true
        request.sessionID = "s"
        request.samplingParams.temperature = 0.5
        request.samplingParams.topK = 40
        request.samplingParams.maxTokens = 7
        request.samplingParams.logitBias = [(5, -1.5)]
        request.samplingParams.stopTokenIDs = [9]
        request.samplingParams.structuredOutputs = StructuredOutputs(constraint: .regex("a+"))
        request.samplingParams.extraArgs = [0x80]
        var ours: [String: String] = [:]
        for release in ["0.22.0", "0.25.1", "0.28.0", "0.30.0", "0.32.0"] {
            var bytes: [UInt8] = []
            request.encode(into: &bytes, family: try #require(ProtocolFamily(vllmVersion: release)))
            ours[release] = hexText(bytes)
        }
        if let file = ProcessInfo.processInfo.environment["UPDATE_REQUESTS"] {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try encoder.encode(ours).write(to: URL(fileURLWithPath: file))
        }
        let kept = try Data(contentsOf: Release.folder.appendingPathComponent("our-requests.json"))
        #expect(try JSONDecoder().decode([String: String].self, from: kept) == ours)
    }
}
