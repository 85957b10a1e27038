import Glibc

/// How two arms are compared.
package enum DifferenceKind: String, Sendable, Equatable {
    /// (candidate − baseline) / baseline.
    case relative
    /// candidate − baseline, in the metric's unit: for counts that can be 0, such as stalls.
    case absolute
}

/// How a difference is estimated. The values are fixed before a run and printed with it.
package struct DifferenceOptions: Sendable, Equatable {
    /// Coverage of the interval, strictly between 0 and 1.
    package var level: Double
    package var resamples: Int
    package var seed: UInt64
    /// Probability with which a difference of the size called detectable is found.
    package var power: Double

    package init(level: Double = 0.95, resamples: Int = 2000, seed: UInt64 = 1, power: Double = 0.8) {
        self.level = level
        self.resamples = resamples
        self.seed = seed
        self.power = power
    }
}

/// The difference between a candidate and a baseline that ran in turns, with the block as the statistical unit: requests of
/// one block share the machine's state, so they are not independent draws.
package struct PairedDifference: Sendable, Equatable {
    package let kind: DifferenceKind
    package let candidate: Double
    package let baseline: Double
    /// The difference of the pooled statistic: a fraction when `kind` is relative, otherwise in the metric's unit.
    package let difference: Double
    package let low: Double
    package let high: Double
    package let level: Double
    /// Hodges–Lehmann estimate of the shift: the median of all averages of two (or the same) block differences.
    package let shift: Double
    package let standardError: Double
    /// The smallest true difference this many blocks with this spread would have shown with the requested power.
    package let detectable: Double
    /// The difference within each pair of blocks that has one.
    package let blocks: [Double]

    /// - Parameters:
    ///   - candidate, baseline: block `i` of one ran next to block `i` of the other.
    /// - Returns: nil when an arm has no value, or fewer than two pairs of blocks have one. A relative difference to a
    ///   baseline that is not positive in some draw is reported as absolute.
    package static func estimate(
        candidate: BlockSamples, baseline: BlockSamples, statistic: Statistic, kind: DifferenceKind,
        options: DifferenceOptions = DifferenceOptions()
    ) -> PairedDifference? {
        let count = min(candidate.blockCount, baseline.blockCount)
        guard count >= 2, let left = candidate.value(statistic), let right = baseline.value(statistic) else {
            return nil
        }
        let perBlock = zip(candidate.perBlock(statistic), baseline.perBlock(statistic)).compactMap { left, right in
            left.flatMap { left in right.map { (left, $0) } }
        }
        guard perBlock.count >= 2 else { return nil }
        let draws = draw(candidate, baseline, statistic, count: count, options: options)
        let divisible = right > 0 && perBlock.allSatisfy { $0.1 > 0 } && draws.allSatisfy { $0.1 > 0 }
        let kind: DifferenceKind = kind == .relative && divisible ? .relative : .absolute
        func difference(_ pair: (Double, Double)) -> Double {
            kind == .relative ? (pair.0 - pair.1) / pair.1 : pair.0 - pair.1
        }
        return PairedDifference(
            kind: kind, candidate: left, baseline: right, difference: difference((left, right)),
            blocks: perBlock.map(difference), draws: draws.map(difference), options: options)
    }

    private init(
        kind: DifferenceKind, candidate: Double, baseline: Double, difference: Double, blocks: [Double],
        draws: [Double],
        options: DifferenceOptions
    ) {
        let count = Double(blocks.count)
        let student = Distributions.studentQuantile((1 + options.level) / 2, degreesOfFreedom: count - 1)
        let spread = Spread(blocks: blocks, difference: difference, kind: kind)
        // The percentile bootstrap of few blocks is too narrow twice over: it divides by n instead of n - 1, and uses normal
        // instead of t quantiles. Hesterberg's expanded percentiles repair both; the t interval of the block differences
        // covers what no draw of four to eight blocks can reach. The wider limit counts.
        let widen = (count / (count - 1)).squareRoot()
        let tail = Distributions.normalCDF(-widen * student)
        let sorted = draws.sorted()
        var (low, high) = spread.limits(student)
        var drawError = 0.0
        if !sorted.isEmpty {
            low = min(low, Percentiles.quantile(ofSorted: sorted, tail))
            high = max(high, Percentiles.quantile(ofSorted: sorted, 1 - tail))
            drawError = (Percentiles.standardDeviation(sorted) ?? 0) * widen
        }
        self.kind = kind
        self.candidate = candidate
        self.baseline = baseline
        self.difference = difference
        self.low = low
        self.high = high
        self.level = options.level
        self.shift = HodgesLehmann.shift(blocks) ?? difference
        self.standardError = max(spread.standardError, drawError)
        self.detectable =
            (student + Distributions.studentQuantile(options.power, degreesOfFreedom: count - 1)) * standardError
        self.blocks = blocks
    }

    /// Values of both arms for blocks drawn with replacement, the same blocks for both: the pairing takes out what the machine
    /// did to both neighbours.
    private static func draw(
        _ candidate: BlockSamples, _ baseline: BlockSamples, _ statistic: Statistic, count: Int,
        options: DifferenceOptions
    ) -> [(Double, Double)] {
        var generator = SeededGenerator(seed: options.seed)
        var weights = [Int](repeating: 0, count: count)
        var draws: [(Double, Double)] = []
        draws.reserveCapacity(options.resamples)
        for _ in 0..<options.resamples {
            for block in 0..<count { weights[block] = 0 }
            for _ in 0..<count { weights[generator.draw(below: count)] += 1 }
            if let left = candidate.value(statistic, weights: weights),
                let right = baseline.value(statistic, weights: weights)
            {
                draws.append((left, right))
            }
        }
        return draws
    }
}

/// The standard error that the blocks' own differences suggest. Ratios are averaged as logarithms: twice as fast is as far
/// from equal as half as fast, and no limit falls below -100 %.
private struct Spread {
    let difference: Double
    let isLogarithmic: Bool
    let error: Double

    init(blocks: [Double], difference: Double, kind: DifferenceKind) {
        self.difference = difference
        isLogarithmic = kind == .relative && difference > -1 && blocks.allSatisfy { $0 > -1 }
        let values = isLogarithmic ? blocks.map { log(1 + $0) } : blocks
        error = (Percentiles.standardDeviation(values) ?? 0) / Double(blocks.count).squareRoot()
    }

    var standardError: Double { isLogarithmic ? (1 + difference) * error : error }

    func limits(_ factor: Double) -> (low: Double, high: Double) {
        guard isLogarithmic else { return (difference - factor * error, difference + factor * error) }
        let ratio = 1 + difference
        return (ratio * exp(-factor * error) - 1, ratio * exp(factor * error) - 1)
    }
}

/// The Hodges–Lehmann estimator.
package enum HodgesLehmann {
    /// The median of all (x[i] + x[j]) / 2 with i ≤ j; nil without samples.
    package static func shift(_ differences: [Double]) -> Double? {
        var averages: [Double] = []
        for (index, left) in differences.enumerated() {
            for right in differences[index...] { averages.append((left + right) / 2) }
        }
        return Percentiles.median(averages)
    }
}
