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
            return pooled.quantile(quantile, weights: weights)
        case (.samples(let pooled), .ratio):
            return BlockSamples.mean(pooled.blocks).value(.ratio, weights: weights)
        }
    }

    /// The statistic of each block alone.
    package func perBlock(_ statistic: Statistic) -> [Double?] {
        if case .samples(let pooled) = self, case .quantile(let quantile) = statistic {
            return pooled.blocks.map { $0.isEmpty ? nil : Percentiles.quantile(ofSorted: $0, quantile) }
        }
        return (0..<blockCount).map { block in
            value(statistic, weights: (0..<blockCount).map { $0 == block ? 1 : 0 })
        }
    }

    package func value(_ statistic: Statistic) -> Double? {
        value(statistic, weights: Array(repeating: 1, count: blockCount))
    }
}

/// Sorted samples by block and all together, prepared so that quantiles of any drawing of blocks are cheap.
package struct PooledBlocks: Sendable {
    package let blocks: [[Double]]
    package let merged: [Double]
    /// Which block each of `merged` is from.
    private let owners: [UInt32]
    /// For every `stride`-th place in `merged`, how many samples of each block come before it.
    private let counts: [Int]

    private static let stride = 64

    package init(_ blocks: [[Double]]) {
        self.blocks = blocks.map { $0.sorted() }
        var pairs: [(value: Double, owner: UInt32)] = []
        pairs.reserveCapacity(blocks.reduce(0) { $0 + $1.count })
        for (owner, block) in blocks.enumerated() {
            for value in block { pairs.append((value, UInt32(owner))) }
        }
        pairs.sort { $0.value < $1.value }
        merged = pairs.map(\.value)
        owners = pairs.map(\.owner)
        var running = [Int](repeating: 0, count: blocks.count)
        var counts: [Int] = []
        for (place, owner) in owners.enumerated() {
            if place % Self.stride == 0 { counts += running }
            running[Int(owner)] += 1
        }
        self.counts = counts
    }

    /// The quantile of the union in which block `i` occurs `weights[i]` times, without building it: rows of `counts` are
    /// bisected, then at most `stride` samples are walked. Thousands of draws over millions of gaps take a second.
    func quantile(_ quantile: Double, weights: [Int]) -> Double? {
        var total = 0
        for (block, weight) in zip(blocks, weights) { total += block.count * weight }
        guard total > 0 else { return nil }
        let place = Double(total - 1) * quantile
        let rank = Int(place.rounded(.down))
        let fraction = place - Double(rank)
        // The last row with at most `rank` samples before it.
        var low = 0
        var high = counts.count / blocks.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if weighted(row: middle, weights) <= rank { low = middle } else { high = middle }
        }
        var before = weighted(row: low, weights)
        var lower: Double?
        for place in low * Self.stride..<merged.count {
            before += weights[Int(owners[place])]
            if lower == nil, before > rank {
                lower = merged[place]
                if fraction == 0 { return lower }
            }
            if let lower, before > rank + 1 { return Percentiles.interpolate(lower, merged[place], fraction) }
        }
        return lower
    }

    private func weighted(row: Int, _ weights: [Int]) -> Int {
        var sum = 0
        let start = row * weights.count
        for block in weights.indices { sum += counts[start + block] * weights[block] }
        return sum
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
