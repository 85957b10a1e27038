/// The empirical distribution function of an arm with a band for every value, thinned for drawing.
package struct EmpiricalDistribution: Sendable, Equatable {
    package struct Point: Sendable, Equatable {
        package let value: Double
        /// Share of samples at most `value`.
        package let share: Double
        /// Pointwise limits from drawing blocks with replacement.
        package let low: Double
        package let high: Double
    }

    package let points: [Point]
    package let sampleCount: Int

    /// - Parameter values: where the function is evaluated, ascending.
    package init(
        _ pooled: PooledBlocks, at values: [Double], options: DifferenceOptions = DifferenceOptions(resamples: 400)
    ) {
        let blocks = pooled.blocks.filter { !$0.isEmpty }
        sampleCount = pooled.merged.count
        guard !blocks.isEmpty else {
            points = []
            return
        }
        let counts = values.map { value in blocks.map { PooledBlocks.countNotAbove(value, in: $0) } }
        let sizes = blocks.map(\.count)
        var generator = SeededGenerator(seed: options.seed)
        var shares = [[Double]](repeating: [], count: values.count)
        for _ in 0..<options.resamples {
            let drawn = blocks.map { _ in generator.draw(below: blocks.count) }
            let total = Double(drawn.reduce(0) { $0 + sizes[$1] })
            for index in values.indices {
                shares[index].append(Double(drawn.reduce(0) { $0 + counts[index][$1] }) / total)
            }
        }
        let tail = (1 - options.level) / 2
        points = values.indices.map { index in
            let sorted = shares[index].sorted()
            return Point(
                value: values[index], share: Double(counts[index].reduce(0, +)) / Double(pooled.merged.count),
                low: sorted.isEmpty ? 0 : Percentiles.quantile(ofSorted: sorted, tail),
                high: sorted.isEmpty ? 1 : Percentiles.quantile(ofSorted: sorted, 1 - tail))
        }
    }
}
