/// One metric at one load: a value per arm, and the first arm against each other arm.
package struct MetricRow: Sendable {
    package struct Comparison: Sendable {
        /// Index of the arm the first one is compared with.
        package let baseline: Int
        package let difference: PairedDifference
        /// What the same frontend twice would differ by; nil without A/A rounds, or when they only give the other kind.
        package let noiseFloor: Double?
        /// Nil for metrics that are neither good nor bad.
        package let verdict: Verdict?

        /// The smallest difference that would have been shown.
        package var detectable: Double { max(difference.detectable, noiseFloor ?? 0) }
    }

    package let metric: Metric
    /// Per arm; nil where it was not measured.
    package let values: [Double?]
    package let comparisons: [Comparison]
    /// What the same frontend twice differs by; also there without a comparison.
    package let noiseFloor: Double?
    package let noiseFloorKind: DifferenceKind?
    private let columns: [BlockSamples]

    /// - Parameters:
    ///   - columns: per arm, the blocks of the comparison.
    ///   - floor: both sides of the A/A rounds, those of all arms together: alone they are too few to tell; empty without any.
    ///   - equalWithin: the part by which arms may differ and still be called equal.
    /// - Returns: nil if no arm has a value.
    init?(
        _ metric: Metric, columns: [ColumnSamples], floor sides: [ColumnSamples], equalWithin: Double,
        options: DifferenceOptions
    ) {
        let columns = columns.map { $0.samples(of: metric) }
        values = columns.map { $0.value(metric.statistic) }
        guard values.contains(where: { $0 != nil }) else { return nil }
        self.metric = metric
        self.columns = columns
        let rounds = columns.first?.blockCount ?? 0
        let floor =
            sides.count < 2
            ? nil
            : PairedDifference.estimate(
                candidate: sides[0].samples(of: metric), baseline: sides[1].samples(of: metric),
                statistic: metric.statistic, kind: metric.kind, options: options)
        noiseFloor = floor?.noiseFloor(rounds: rounds)
        noiseFloorKind = floor?.kind
        comparisons = columns.indices.dropFirst().compactMap { baseline in
            guard
                let difference = PairedDifference.estimate(
                    candidate: columns[0], baseline: columns[baseline], statistic: metric.statistic, kind: metric.kind,
                    options: options)
            else { return nil }
            let floor = floor?.kind == difference.kind ? floor?.noiseFloor(rounds: rounds) : nil
            return Comparison(
                baseline: baseline, difference: difference, noiseFloor: floor,
                verdict: metric.sense.map {
                    Verdict.of(difference, sense: $0, noiseFloor: floor, equalWithin: equalWithin)
                })
        }
    }

    /// The values of an arm's blocks, where there are any.
    package func blockValues(_ arm: Int) -> [Double] { columns[arm].perBlock(metric.statistic).compactMap { $0 } }

    /// The difference to an arm, of another kind or with an interval of another level.
    package func difference(to baseline: Int, kind: DifferenceKind, options: DifferenceOptions) -> PairedDifference? {
        guard columns.indices.contains(baseline) else { return nil }
        return PairedDifference.estimate(
            candidate: columns[0], baseline: columns[baseline], statistic: metric.statistic, kind: kind,
            options: options)
    }
}

/// The blocks of one side of a comparison, with the samples of each family sorted once.
package struct ColumnSamples: Sendable {
    private let measures: [BlockMeasures]
    private let pooled: [SampleFamily: PooledBlocks]

    init(_ measures: [BlockMeasures]) {
        self.measures = measures
        var pooled: [SampleFamily: PooledBlocks] = [:]
        for family in SampleFamily.allCases where measures.contains(where: { $0.samples[family] != nil }) {
            pooled[family] = PooledBlocks(measures.map { $0.samples[family] ?? [] })
        }
        self.pooled = pooled
    }

    package func pooled(_ family: SampleFamily) -> PooledBlocks {
        pooled[family] ?? PooledBlocks(measures.map { _ in [] })
    }

    func samples(of metric: Metric) -> BlockSamples {
        switch metric.source {
        case .samples(let family, .ratio): .mean(measures.map { $0.samples[family] ?? [] })
        case .samples(let family, _): .samples(pooled(family))
        case .ratio(let ratio): .sums(measures.map { $0.sums[ratio] ?? BlockSum(numerator: 0, denominator: 0) })
        }
    }
}
