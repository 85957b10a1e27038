/// What a run has shown: every metric for every arm and load, the differences between the arms with their verdicts, and
/// whether the arms gave the same answers. Terminal, JSON and HTML are written from this.
package struct Report: Sendable {
    package let run: RunDescription
    package let voidReasons: [String]
    /// One for each load point that has a complete round, in the order of the description.
    package let loads: [LoadReport]
    package let noise: NoiseReport
    /// The first arm's answers against each other arm's.
    package let equivalence: [EquivalenceReport]
    package let options: DifferenceOptions

    /// - Parameter options: fixed before the run; the seed of the drawing is the run's unless given.
    package init(_ run: MeasurementRun, options: DifferenceOptions? = nil) {
        let options = options ?? DifferenceOptions(seed: run.description.seed)
        var requests = [[RequestRecord]](repeating: [], count: run.blocks.count)
        for request in run.requests where requests.indices.contains(request.block) {
            requests[request.block].append(request)
        }
        let measures = zip(run.blocks, requests).map { block, requests in
            BlockMeasures(block: block, requests: requests, rules: run.description.rules)
        }
        self.run = run.description
        self.options = options
        voidReasons = run.voidReasons
        noise = NoiseReport(blocks: run.blocks)
        loads = run.description.loads.indices.compactMap { load in
            LoadReport(run: run, load: load, requests: requests, measures: measures, options: options)
        }
        equivalence = run.equivalence.indices.dropFirst().map { arm in
            EquivalenceReport(
                candidate: 0, baseline: arm, candidates: run.equivalence[0], baselines: run.equivalence[arm],
                features: run.description.features ?? [])
        }
    }

    package var isVoid: Bool { !voidReasons.isEmpty }

    /// Whether the first arm's answers differ from the given one's in anything but chunk boundaries.
    package func answersDiffer(from baseline: Int) -> Bool {
        equivalence.contains { $0.baseline == baseline && !$0.answersEqual }
    }

    package func featuresDiffer(from baseline: Int) -> Bool {
        equivalence.contains { $0.baseline == baseline && $0.unequalFeatures > 0 }
    }
}

/// The client, the machine and the blocks that were left out.
package struct NoiseReport: Sendable {
    /// The worst block's 99th percentile and highest, in milliseconds.
    package let latenessP99: Double
    package let latenessHighest: Double
    /// Means over the blocks, as parts of all CPUs.
    package let steal: Double
    package let otherCPU: Double
    package let loadAverage: Double
    package let megahertz: [Double]
    /// The block's place in the run, and why it was dropped.
    package let dropped: [(block: Int, reason: String)]

    init(blocks: [BlockRecord]) {
        latenessP99 = Double(blocks.map(\.lateness.p99).max() ?? 0) * 1e-6
        latenessHighest = Double(blocks.map(\.lateness.highest).max() ?? 0) * 1e-6
        steal = Percentiles.mean(blocks.map(\.noise.steal)) ?? 0
        otherCPU = Percentiles.mean(blocks.map(\.noise.otherCPU)) ?? 0
        loadAverage = Percentiles.mean(blocks.map(\.noise.loadAverage)) ?? 0
        megahertz = blocks.compactMap(\.noise.megahertz)
        dropped = blocks.enumerated().compactMap { index, block in block.dropped.map { (index, $0) } }
    }
}

/// One load point.
package struct LoadReport: Sendable {
    package let load: LoadPoint
    /// Index into `RunDescription.loads`.
    package let index: Int
    /// Complete rounds that were kept; each has one block per arm.
    package let rounds: Int
    package let noiseFloorRounds: Int
    /// Per arm.
    package let arms: [ArmReport]
    /// Metrics that at least one arm has a value for.
    package let rows: [MetricRow]

    init?(
        run: MeasurementRun, load: Int, requests: [[RequestRecord]], measures: [BlockMeasures],
        options: DifferenceOptions
    ) {
        let sides = run.description.arms.count
        let rounds = BlockRounds(run.blocks, purpose: .comparison, load: load, columns: sides)
        guard !rounds.columns.isEmpty else { return nil }
        let floor = BlockRounds(run.blocks, purpose: .noiseFloor, load: load, columns: 2)
        self.load = run.description.loads[load]
        index = load
        self.rounds = rounds.count
        noiseFloorRounds = floor.count
        arms = rounds.columns.enumerated().map { arm, blocks in
            ArmReport(
                arm: arm, blocks: blocks.map { run.blocks[$0] }, requests: blocks.map { requests[$0] },
                measures: blocks.map { measures[$0] })
        }
        let columns = arms.map(\.samples)
        let floorColumns = floor.columns.map { ColumnSamples($0.map { measures[$0] }) }
        let equalWithin = run.description.equalWithin
        rows = Metric.all.compactMap {
            MetricRow($0, columns: columns, floor: floorColumns, equalWithin: equalWithin, options: options)
        }
    }

    package func row(_ name: String) -> MetricRow? { rows.first { $0.metric.name == name } }
}

/// The blocks of complete rounds, by column.
private struct BlockRounds {
    /// Indices into the run's blocks; the same place in each column is the same round. Empty without a complete round.
    let columns: [[Int]]

    var count: Int { columns.first?.count ?? 0 }

    init(_ blocks: [BlockRecord], purpose: BlockRecord.Purpose, load: Int, columns count: Int) {
        var rounds: [Int: [Int?]] = [:]
        var dropped: Set<Int> = []
        for (index, block) in blocks.enumerated() where block.purpose == purpose && block.load == load {
            guard (0..<count).contains(block.column) else { continue }
            rounds[block.round, default: Array(repeating: nil, count: count)][block.column] = index
            if block.dropped != nil { dropped.insert(block.round) }
        }
        let complete = rounds.keys.sorted().compactMap { round -> [Int]? in
            let indices = rounds[round, default: []].compactMap { $0 }
            return indices.count == count && !dropped.contains(round) ? indices : nil
        }
        columns = complete.isEmpty ? [] : (0..<count).map { column in complete.map { $0[column] } }
    }
}

/// One arm at one load.
package struct ArmReport: Sendable {
    package let arm: Int
    package let blocks: [BlockRecord]
    package let requests: [[RequestRecord]]
    package let measures: [BlockMeasures]
    package let samples: ColumnSamples

    init(arm: Int, blocks: [BlockRecord], requests: [[RequestRecord]], measures: [BlockMeasures]) {
        self.arm = arm
        self.blocks = blocks
        self.requests = requests
        self.measures = measures
        samples = ColumnSamples(measures)
    }

    package var requestCount: Int { measures.reduce(0) { $0 + $1.requestCount } }
    package var outputTokens: Int { measures.reduce(0) { $0 + $1.outputTokens } }
    package var inputTokens: Int { measures.reduce(0) { $0 + $1.inputTokens } }
    package var wallSeconds: Double { blocks.reduce(0) { $0 + $1.wallSeconds } }

    package var failures: [RequestFailure: Int] {
        measures.reduce(into: [:]) { $0.merge($1.failures, uniquingKeysWith: +) }
    }

    package var chunkSizes: [Int: Int] {
        measures.reduce(into: [:]) { $0.merge($1.chunkSizes, uniquingKeysWith: +) }
    }

    package func pooled(_ family: SampleFamily) -> PooledBlocks { samples.pooled(family) }
}
