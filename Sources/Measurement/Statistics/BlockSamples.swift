/// A number computed from all samples of an arm, or of the blocks drawn for it.
package enum Statistic: Sendable, Equatable {
    /// The quantile (0 … 1) of the pooled samples.
    case quantile(Double)
    /// Sum of numerators over sum of denominators: the mean when each sample counts 1, CPU seconds per token and the like.
    case ratio
}

/// What one block adds to a ratio of sums, such as CPU seconds and tokens.
package struct BlockSum: Sendable, Equatable {
    package let numerator: Double
    package let denominator: Double

    package init(numerator: Double, denominator: Double) {
        self.numerator = numerator
        self.denominator = denominator
    }
}

/// The samples of one arm, kept by block so that blocks can be drawn with replacement.
package enum BlockSamples: Sendable {
    case samples(PooledBlocks)
    /// What each block adds to a ratio of sums.
    case sums([BlockSum])

    package static func pooling(_ blocks: [[Double]]) -> BlockSamples { .samples(PooledBlocks(blocks)) }

    package static func mean(_ blocks: [[Double]]) -> BlockSamples {
        .sums(blocks.map { BlockSum(numerator: $0.reduce(0, +), denominator: Double($0.count)) })
    }

    package var blockCount: Int {
        switch self {
        case .samples(let pooled): pooled.blocks.count
        case .sums(let blocks): blocks.count
        }
    }

    /// The statistic when block `i` is taken `weights[i]` times; nil when nothing is left to compute it from.
    package func value(_ statistic: Statistic, weights: [Int]) -> Double? {
        switch (self, statistic) {
        case (.sums(let blocks), _):
            var numerator = 0.0
            var denominator = 0.0
            for (block, weight) in zip(blocks, weights) {
                numerator += block.numerator * Double(weight)
                denominator += block.denominator * Double(weight)
            }
            return denominator > 0 ? numerator / denominator : nil
        case (.samples(let pooled), .quantile(let quantile)):
            return WeightedBlocks(pooled: pooled, weights: weights).quantile(quantile)
        case (.samples(let pooled), .ratio):
            return BlockSamples.mean(pooled.blocks).value(.ratio, weights: weights)
        }
    }

    /// The statistic of each block alone.
    package func perBlock(_ statistic: Statistic) -> [Double?] {
        (0..<blockCount).map { block in
            value(statistic, weights: (0..<blockCount).map { $0 == block ? 1 : 0 })
        }
    }

    package func value(_ statistic: Statistic) -> Double? {
        value(statistic, weights: Array(repeating: 1, count: blockCount))
    }
}

/// The union of sorted blocks, block `i` taken `weights[i]` times, without building it: ranks are found by bisection over the
/// samples, so thousands of draws over millions of gaps take seconds.
private struct WeightedBlocks {
    let pooled: PooledBlocks
    let weights: [Int]

    func quantile(_ quantile: Double) -> Double? {
        var total = 0
        for (block, weight) in zip(pooled.blocks, weights) { total += block.count * weight }
        guard total > 0 else { return nil }
        let place = Double(total - 1) * quantile
        let lower = Int(place.rounded(.down))
        let low = element(at: lower)
        let fraction = place - Double(lower)
        if fraction == 0 { return low }
        return Percentiles.interpolate(low, element(at: lower + 1), fraction)
    }

    /// The smallest sample with more than `rank` elements not above it.
    private func element(at rank: Int) -> Double {
        var low = 0
        var high = pooled.merged.count - 1
        while low < high {
            let middle = (low + high) / 2
            if countNotAbove(pooled.merged[middle]) > rank { high = middle } else { low = middle + 1 }
        }
        return pooled.merged[low]
    }

    private func countNotAbove(_ value: Double) -> Int {
        var count = 0
        for (block, weight) in zip(pooled.blocks, weights) where weight > 0 {
            count += weight * PooledBlocks.countNotAbove(value, in: block)
        }
        return count
    }
}

/// Sorted samples by block and all together.
package struct PooledBlocks: Sendable {
    package let blocks: [[Double]]
    package let merged: [Double]

    package init(_ blocks: [[Double]]) {
        self.blocks = blocks.map { $0.sorted() }
        merged = blocks.flatMap { $0 }.sorted()
    }

    /// How many of the ascending `samples` are at most `value`.
    package static func countNotAbove(_ value: Double, in samples: [Double]) -> Int {
        var low = 0
        var high = samples.count
        while low < high {
            let middle = (low + high) / 2
            if samples[middle] <= value { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
