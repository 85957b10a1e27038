import Measurement
import Testing

@Suite struct ScheduleTests {
    @Test(arguments: [
        LoadPoint.poisson(rate: 50), .gamma(rate: 50, burstiness: 0.4), .ramp(from: 10, to: 90), .constant(rate: 50),
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
        // All of these have a mean of 50 per second.
        let seconds = Double(try #require(offsets.last)) * 1e-9
        #expect(abs(seconds - 40) < 6, "\(seconds)")
    }

    @Test func aRampEndsAtItsRate() throws {
        let offsets = try #require(ArrivalSchedule.offsets(.ramp(from: 10, to: 90), count: 4000, seed: 1))
        let half = try #require(offsets.last) / 2
        // Half of the time passes at rates up to 50: 30 of 50 on average.
        let early = Double(offsets.filter { $0 < half }.count) / 4000
        #expect(abs(early - 0.3) < 0.03, "\(early)")
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
