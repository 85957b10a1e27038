import Glibc
import Measurement
import Testing

@Suite struct ScheduleTests {
    @Test(arguments: [
        LoadPoint.poisson(rate: 50), .gamma(rate: 50, burstiness: 0.4), .ramp(from: 20, to: 90),
        .exponentialRamp(from: 25, to: 100), .constant(rate: 50),
    ])
    func schedulesDependOnTheSeedAlone(load: LoadPoint) throws {
        let offsets = try #require(ArrivalSchedule.offsets(load, count: 2000, seed: 7))
        #expect(offsets == ArrivalSchedule.offsets(load, count: 2000, seed: 7))
        #expect(offsets.count == 2000 && offsets.first == 0)
        #expect(zip(offsets, offsets.dropFirst()).allSatisfy { $0 <= $1 })
        if case .constant = load {
            #expect(offsets[1999] == 39_980_000_000)
        } else {
            #expect(offsets != ArrivalSchedule.offsets(load, count: 2000, seed: 8))
        }
        // All of these have a mean of 46 to 50 per second.
        let seconds = Double(try #require(offsets.last)) * 1e-9
        #expect(abs(seconds - 40) < 6, "\(seconds)")
    }

    @Test func aRampEndsAtItsRate() throws {
        // By vLLM's definition the k-th of n requests has the rate 10 + 80·k/n, or 10·9^(k/n); the time up to it is the sum of
        // the mean gaps, an integral of 1 / rate.
        let cases: [(ramp: LoadPoint, seconds: Double, half: Double)] = [
            (.ramp(from: 10, to: 90), 4000 * log(9.0) / 80, log(5.0) / log(9.0)),
            (.exponentialRamp(from: 10, to: 90), 400 * (8.0 / 9) / log(9.0), 0.75),
        ]
        for (ramp, seconds, half) in cases {
            let offsets = try #require(ArrivalSchedule.offsets(ramp, count: 4000, seed: 1)).map { Double($0) * 1e-9 }
            #expect(abs(offsets[3999] / seconds - 1) < 0.05, "\(ramp): \(offsets[3999])")
            #expect(abs(offsets[2000] / offsets[3999] - half) < 0.03, "\(ramp): \(offsets[2000])")
        }
    }

    @Test func burstinessIsTheInverseVariance() throws {
        for burstiness in [0.25, 1, 4] {
            var generator = SeededGenerator(seed: 3)
            let draws = (0..<20000).map { _ in generator.gamma(shape: burstiness) / burstiness }
            let mean = draws.reduce(0, +) / 20000
            let variance = draws.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 20000
            #expect(abs(mean - 1) < 0.05)
            #expect(abs(variance * burstiness - 1) < 0.12, "\(variance * burstiness)")
        }
    }

    @Test func closedLoopsHaveNoSchedule() {
        #expect(ArrivalSchedule.offsets(.concurrency(4), count: 3, seed: 1) == nil)
    }
}
