import Foundation
import JSONBytes
import Measurement
import Testing

/// Expected values from numpy and scipy (`tools/fixtures/make_statistics_fixtures.py`).
@Suite struct StatisticsTests {
    private let expected: JSONValue

    init() throws {
        let url = try #require(Bundle.module.url(forResource: "Fixtures/statistics", withExtension: "json"))
        expected = try JSONValue.parse([UInt8](Data(contentsOf: url)))
    }

    private func doubles(_ value: JSONValue?) -> [Double] {
        (value?.arrayValue ?? []).compactMap { $0.numberValue?.doubleValue }
    }

    private func double(_ value: JSONValue?) -> Double? { value?.numberValue?.doubleValue }

    private func close(_ left: Double?, _ right: Double?, _ tolerance: Double = 1e-12) -> Bool {
        guard let left, let right else { return left == nil && right == nil }
        return abs(left - right) <= tolerance * max(1, abs(right))
    }

    @Test func quantilesAsNumpy() throws {
        let cases = try #require(expected["quantiles"]?.arrayValue)
        #expect(cases.count == 4)
        for item in cases {
            let samples = doubles(item["samples"])
            for (quantile, value) in zip(doubles(item["at"]), doubles(item["expected"])) {
                #expect(
                    close(Percentiles.quantile(of: samples, quantile), value, 1e-14), "\(quantile) of \(samples.count)")
                let split = samples.count / 3
                let blocks = BlockSamples.pooling([Array(samples[..<split]), [], Array(samples[split...])])
                #expect(close(blocks.value(.quantile(quantile)), value, 1e-14))
            }
            #expect(close(Percentiles.mean(samples), double(item["mean"])))
            #expect(close(Percentiles.standardDeviation(samples), double(item["standard_deviation"])))
        }
        #expect(Percentiles.quantile(of: [], 0.5) == nil)
    }

    @Test func distributionsAsScipy() throws {
        for item in try #require(expected["normal_cdf"]?.arrayValue) {
            let numbers = doubles(item)
            #expect(close(Distributions.normalCDF(numbers[0]), numbers[1]))
        }
        for item in try #require(expected["student_cdf"]?.arrayValue) {
            let numbers = doubles(item)
            #expect(close(Distributions.studentCDF(numbers[0], degreesOfFreedom: numbers[1]), numbers[2]), "\(numbers)")
        }
        for item in try #require(expected["student_quantile"]?.arrayValue) {
            let numbers = doubles(item)
            #expect(
                close(Distributions.studentQuantile(numbers[0], degreesOfFreedom: numbers[1]), numbers[2], 1e-9),
                "\(numbers)")
        }
    }

    @Test func drawsFollowTheSeed() throws {
        var words = SeededGenerator(seed: 42)
        let wanted = try #require(expected["splitmix64_seed_42"]?["words"]?.arrayValue).compactMap(\.stringValue)
        #expect(wanted.map { _ in String(words.next()) } == wanted)
        var bounded = SeededGenerator(seed: 42)
        let numbers = doubles(expected["splitmix64_seed_42"]?["below_8"])
        #expect(numbers.map { _ in Double(bounded.draw(below: 8)) } == numbers)
    }

    @Test(arguments: ["p50", "p90", "p99", "p99.9", "mean"])
    func pairedDifferencesAsNumpy(_ name: String) throws {
        let pairs = try #require(expected["pairs"])
        let wanted = try #require(pairs["differences"]?[name])
        let candidate = BlockSamples.pooling((pairs["candidate"]?.arrayValue ?? []).map { doubles($0) })
        let baseline = BlockSamples.pooling((pairs["baseline"]?.arrayValue ?? []).map { doubles($0) })
        let statistic = Double(name.dropFirst()).map { Statistic.quantile($0 / 100) } ?? .ratio
        let options = DifferenceOptions(level: try #require(double(wanted["level"])), resamples: 500, seed: 7)
        let result = try #require(
            PairedDifference.estimate(
                candidate: candidate, baseline: baseline, statistic: statistic, kind: .relative, options: options))
        #expect(result.kind == .relative)
        #expect(close(result.difference, double(wanted["difference"])))
        #expect(close(result.low, double(wanted["low"]), 1e-9))
        #expect(close(result.high, double(wanted["high"]), 1e-9))
        #expect(close(result.standardError, double(wanted["standard_error"]), 1e-9))
        #expect(close(result.detectable, double(wanted["detectable"]), 1e-9))
        #expect(close(result.shift, double(wanted["shift"])))
        #expect(zip(result.blocks, doubles(wanted["blocks"])).allSatisfy { close($0, $1) })
        #expect(result.blocks.count == 8)
    }

    @Test func differencesToNothingAreAbsolute() throws {
        let none = BlockSamples.sums((0..<4).map { _ in BlockSum(numerator: 0, denominator: 100) })
        let some = BlockSamples.sums((0..<4).map { BlockSum(numerator: Double($0), denominator: 100) })
        let result = try #require(
            PairedDifference.estimate(candidate: some, baseline: none, statistic: .ratio, kind: .relative))
        #expect(result.kind == .absolute)
        #expect(close(result.difference, 0.015))
        let missing = BlockSamples.pooling([[], [1], [], []])
        #expect(
            PairedDifference.estimate(candidate: missing, baseline: some, statistic: .ratio, kind: .relative) == nil)
    }

    @Test func gapsPerChunkAndPerToken() {
        let arrivals = [1.0, 1.5, 1.75, 3.0]
        #expect(Gaps.perChunk(arrivals: arrivals) == [0.5, 0.25, 1.25])
        // Three tokens at once, then a chunk that only closes a held-back text, then two.
        #expect(Gaps.perToken(arrivals: arrivals, tokens: [1, 3, 0, 2]) == [0.5, 0, 0, 1.5, 0])
        #expect(Gaps.perToken(arrivals: [], tokens: []) == [])
        #expect(Gaps.timePerOutputToken(first: 1, last: 3, tokens: 5) == 0.5)
        #expect(Gaps.timePerOutputToken(first: 1, last: 1, tokens: 1) == nil)
    }

    private func difference(_ samples: [Double], against base: [Double]) throws -> PairedDifference {
        try #require(
            PairedDifference.estimate(
                candidate: .pooling(samples.map { [$0] }), baseline: .pooling(base.map { [$0] }),
                statistic: .quantile(0.5),
                kind: .relative))
    }

    @Test func verdicts() throws {
        let base = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
        let faster = try difference(base.map { $0 * 0.8 }, against: base)
        #expect(Verdict.of(faster, sense: .latency, noiseFloor: 0.02) == .faster)
        #expect(Verdict.of(faster, sense: .cost, noiseFloor: nil) == .cheaper)
        #expect(Verdict.of(faster, sense: .rate, noiseFloor: nil) == .slower)
        // The same frontend twice differed by as much.
        #expect(Verdict.of(faster, sense: .latency, noiseFloor: 0.26) == .tooNoisy)
        #expect(Verdict.of(faster, sense: .latency, noiseFloor: 0.24) == .faster)
        let slower = try difference(base.map { $0 * 1.3 }, against: base)
        #expect(Verdict.of(slower, sense: .latency, noiseFloor: 0.02) == .slower)
        #expect(Verdict.of(slower, sense: .cost, noiseFloor: 0.02) == .dearer)
        let same = try difference([1.01, 1.0, 1.0, 0.99, 1.0, 1.0], against: base)
        #expect(Verdict.of(same, sense: .latency, noiseFloor: 0.02) == .noDifferenceShown)
        #expect(same.low < 0 && same.high > 0)
        let noisy = try difference([0.5, 2, 0.7, 1.4, 1, 1.1], against: base)
        #expect(Verdict.of(noisy, sense: .latency, noiseFloor: 0.02) == .tooNoisy)
        #expect(Verdict.of(same, sense: .latency, noiseFloor: 0.6) == .tooNoisy)
    }

    @Test func whatDoesNotMatterIsEqual() throws {
        let base = [1.0, 1.5, 0.75, 1.0, 1.25, 0.5]
        let tiny = try difference(base.map { $0 * 1.0002 }, against: base)
        #expect(tiny.low > 0 && tiny.high < 0.001)
        #expect(Verdict.of(tiny, sense: .latency, noiseFloor: 0.0001) == .slower)
        #expect(Verdict.of(tiny, sense: .latency, noiseFloor: 0.0001, equalWithin: 0.001) == .equal)
        #expect(Verdict.of(tiny, sense: .cost, noiseFloor: nil, equalWithin: 0.0001) == .dearer)
        // Noise that is larger than what matters leaves it open.
        #expect(Verdict.of(tiny, sense: .latency, noiseFloor: 0.002, equalWithin: 0.001) == .noDifferenceShown)
        let wide = try difference([1.01, 1.5, 0.75, 1.0, 1.25, 0.5], against: base)
        #expect(Verdict.of(wide, sense: .rate, noiseFloor: nil, equalWithin: 0.001) == .noDifferenceShown)
    }

    /// Experiments with the same frontend on both sides: every round has a state of the machine that both blocks share, and a
    /// part that only one block has; latencies are skewed. At most one in ten may show a difference.
    @Test(arguments: [4, 8])
    func aaExperimentsShowNothing(_ rounds: Int) throws {
        var random = SeededGenerator(seed: 20_260_101)
        let experiments = 200
        var shown: [String: Int] = [:]
        let statistics: [(String, Statistic)] = [("p50", .quantile(0.5)), ("p99", .quantile(0.99)), ("mean", .ratio)]
        for _ in 0..<experiments {
            func arms() -> (left: [[Double]], right: [[Double]]) {
                var arms: ([[Double]], [[Double]]) = ([], [])
                for _ in 0..<rounds {
                    let machine = 0.1 * random.normal()
                    func block() -> [Double] {
                        let level = exp(machine + 0.03 * random.normal())
                        return (0..<60).map { _ in level * exp(0.5 * random.normal()) }
                    }
                    arms.0.append(block())
                    arms.1.append(block())
                }
                return arms
            }
            let comparison = arms()
            for (name, statistic) in statistics {
                func blocks(_ samples: [[Double]]) -> BlockSamples {
                    statistic == .ratio ? .mean(samples) : .pooling(samples)
                }
                let difference = try #require(
                    PairedDifference.estimate(
                        candidate: blocks(comparison.left), baseline: blocks(comparison.right), statistic: statistic,
                        kind: .relative, options: DifferenceOptions(resamples: 300, seed: random.next())))
                // Without the noise floor, which would only make it rarer.
                let verdict = Verdict.of(difference, sense: .latency, noiseFloor: nil)
                if verdict == .faster || verdict == .slower { shown[name, default: 0] += 1 }
            }
        }
        for (name, _) in statistics { #expect(shown[name, default: 0] * 10 <= experiments, "\(name): \(shown)") }
    }

    @Test func distributionAtGivenValues() {
        let curve = EmpiricalDistribution(PooledBlocks([[1, 2, 3], [2, 3, 4], []]), at: [0, 2, 4])
        #expect(curve.points.map(\.share) == [0, 0.5, 1])
        #expect(curve.sampleCount == 6)
        for point in curve.points { #expect(point.low <= point.share && point.share <= point.high) }
        #expect(EmpiricalDistribution(PooledBlocks([[]]), at: [1]).points.isEmpty)
    }

    @Test func kneeIsTheLastStepThatHolds() {
        func step(_ offered: Double, _ achieved: Double, _ tail: Double) -> SaturationKnee.Step {
            SaturationKnee.Step(offered: offered, achieved: achieved, tail: tail)
        }
        let steps = [step(40, 39.5, 0.015), step(10, 10, 0.01), step(20, 20, 0.011), step(80, 60, 0.4)]
        #expect(SaturationKnee.find(steps)?.offered == 40)
        #expect(SaturationKnee.find(Array(steps.prefix(3))) == nil)
        #expect(SaturationKnee.find(Array(steps.prefix(2))) == nil)
        #expect(SaturationKnee.find([step(1, 1, 1), step(2, 1, 1), step(3, 3, 1)])?.offered == 1)
    }
}
