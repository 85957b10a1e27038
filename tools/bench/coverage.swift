// How often the intervals and verdicts of `vllm-engine ab` are right, on simulated runs whose true difference is known.
// Compiled together with Sources/Measurement/Statistics by tools/statistics-coverage.

import Foundation

/// What differs between the two arms of a simulated run, and how rough the machine is. Latencies are in ms.
struct Scenario {
    let name: String
    /// Relative standard deviation of what the machine does to both blocks of a round, and to one block alone.
    var round = 0.05
    var block = 0.05
    /// Part of the requests that a hiccup makes 20 ms later, in one block of ten.
    var hiccups = 0.0
    /// Shape of the gamma distribution of a latency; its mean is 2 ms.
    var shape = 2.0
    /// The candidate's latency: the baseline's times this, and more.
    var scale = 1.0
    var shift = 0.0
}

let scenarios = [
    Scenario(name: "same"),
    Scenario(name: "same, rough machine", round: 0.2, block: 0.1, hiccups: 0.05),
    Scenario(name: "same, quiet machine", round: 0.01, block: 0.003, shape: 8),
    Scenario(name: "a fifth less", scale: 0.8),
    Scenario(name: "0.5 ms more, rough machine", round: 0.2, block: 0.1, hiccups: 0.05, shift: 0.5),
    // Nearly on a clock, as times per token are; the difference is just not "equal" any more.
    Scenario(name: "0.11 % more, on a clock", round: 0.001, block: 0.0003, shape: 100_000, scale: 1.0011),
]

struct Source {
    var generator: SeededGenerator

    mutating func uniform() -> Double { (Double(generator.next() >> 11) + 0.5) / Double(UInt64(1) << 53) }
    mutating func normal() -> Double { (-2 * log(uniform())).squareRoot() * cos(2 * .pi * uniform()) }

    /// Gamma with mean 1 (Marsaglia and Tsang), for shapes of at least 1.
    mutating func gamma(_ shape: Double) -> Double {
        let d = shape - 1.0 / 3
        let c = 1 / (9 * d).squareRoot()
        while true {
            let x = normal()
            let v = (1 + c * x) * (1 + c * x) * (1 + c * x)
            if v > 0, log(uniform()) < 0.5 * x * x + d - d * v + d * log(v) { return d * v / shape }
        }
    }

    mutating func block(_ scenario: Scenario, machine: Double, requests: Int, isCandidate: Bool) -> [Double] {
        let level = 2 * machine * exp(scenario.block * normal())
        let late = scenario.hiccups > 0 && uniform() < 0.1 ? scenario.hiccups : 0
        return (0..<requests).map { _ in
            var latency = level * gamma(scenario.shape)
            if late > 0, uniform() < late { latency += 20 }
            return isCandidate ? latency * scenario.scale + scenario.shift : latency
        }
    }

    /// Both arms of some rounds.
    mutating func rounds(_ scenario: Scenario, _ count: Int, requests: Int) -> ([[Double]], [[Double]]) {
        var arms: ([[Double]], [[Double]]) = ([], [])
        for _ in 0..<count {
            let machine = exp(scenario.round * normal())
            arms.0.append(block(scenario, machine: machine, requests: requests, isCandidate: true))
            arms.1.append(block(scenario, machine: machine, requests: requests, isCandidate: false))
        }
        return arms
    }
}

let statistics: [(name: String, statistic: Statistic)] = [
    ("p50", .quantile(0.5)), ("p99", .quantile(0.99)), ("mean", .ratio),
]

func samples(_ blocks: [[Double]], _ statistic: Statistic) -> BlockSamples {
    statistic == .ratio ? .mean(blocks) : .pooling(blocks)
}

/// The difference that endless measuring would show.
func truth(_ scenario: Scenario, _ statistic: Statistic) -> Double {
    if scenario.shift == 0 { return scenario.scale - 1 }
    var source = Source(generator: SeededGenerator(seed: 99))
    let arms = source.rounds(scenario, 20_000, requests: 100)
    let values = [arms.0, arms.1].map { samples([$0.flatMap { $0 }], statistic).value(statistic) ?? .nan }
    return values[0] / values[1] - 1
}

let arguments = CommandLine.arguments.dropFirst().compactMap { Int($0) }
let runs = arguments.first ?? 3000
let requests = 100
/// As `ab` does it by itself for two frontends.
let noiseFloorRounds = 4

print(
    "percent of \(runs) simulated runs for each line, \(requests) requests in each block, \(noiseFloorRounds) A/A rounds"
)
print("| true difference | rounds | interval holds it: p50, p99, mean | verdict wrong | verdict finds it |")
print("|---|---:|---:|---:|---:|")
for scenario in scenarios {
    let truths = statistics.map { truth(scenario, $0.statistic) }
    for rounds in [3, 6, 12] {
        var covered = [Int](repeating: 0, count: statistics.count)
        var wrong = covered
        var right = covered
        var source = Source(generator: SeededGenerator(seed: UInt64(rounds)))
        for _ in 0..<runs {
            let arms = source.rounds(scenario, rounds, requests: requests)
            var same = scenario
            same.scale = 1
            same.shift = 0
            let floor = source.rounds(same, noiseFloorRounds, requests: requests)
            let options = DifferenceOptions(seed: source.generator.next())
            for (index, entry) in statistics.enumerated() {
                func estimate(_ arms: ([[Double]], [[Double]])) -> PairedDifference? {
                    PairedDifference.estimate(
                        candidate: samples(arms.0, entry.statistic), baseline: samples(arms.1, entry.statistic),
                        statistic: entry.statistic, kind: .relative, options: options)
                }
                guard let difference = estimate(arms), let noise = estimate(floor) else { continue }
                if difference.low <= truths[index], truths[index] <= difference.high { covered[index] += 1 }
                let verdict = Verdict.of(
                    difference, sense: .latency, noiseFloor: noise.noiseFloor(rounds: rounds), equalWithin: 0.001)
                let truth = truths[index]
                switch verdict {
                case .faster: if truth < 0 { right[index] += 1 } else { wrong[index] += 1 }
                case .slower: if truth > 0 { right[index] += 1 } else { wrong[index] += 1 }
                case .equal where abs(truth) > 0.001: wrong[index] += 1
                default: break
                }
            }
        }
        func percents(_ counts: [Int]) -> String {
            counts.map { String(format: "%.1f", Double($0) / Double(runs) * 100) }.joined(separator: ", ")
        }
        print(
            "| \(scenario.name) | \(rounds) | \(percents(covered)) | \(percents(wrong)) | "
                + "\(truths[0] == 0 ? "" : percents(right)) |")
    }
}
