import EngineProtocol
import MessagePack
import Testing

/// Prints what decoding costs; asserts the result only. Meaningful in release builds.
@Suite struct DecodeBenchmark {
    @Test func messageOf256Outputs() throws {
        let count = 256
        var message = EngineCoreOutputs()
        message.outputs = (0..<count).map { index in
            var output = EngineCoreOutput()
            output.requestID = "cmpl-0123abcd-\(index)-0123abcd"
            output.tokens = TokenIDs(Int32(100_000 + index))
            return output
        }
        message.schedulerStats = SchedulerStats()
        let frames = ArrayFrames(message.encode(family: .v0_33))
        let decoder = EngineCoreOutputReader(family: .v0_33)
        let rounds = 200
        var sum = 0
        var best = Duration.seconds(1)
        let clock = ContinuousClock()
        for _ in 0..<rounds {
            let start = clock.now
            let view = try EngineCoreOutputsView(decoding: frames[0])
            var reader = view.outputs
            for _ in 0..<view.outputCount {
                var output = EngineCoreOutput()
                let id = try decoder.decode(&reader, frames: frames, into: &output)
                sum += id.count + Int(output.tokens.first ?? 0)
            }
            best = min(best, clock.now - start)
        }
        #expect(sum > rounds * count * 100_000)
        print("decode of \(count) outputs (\(frames[0].count) bytes): best of \(rounds) \(best)")
    }
}
