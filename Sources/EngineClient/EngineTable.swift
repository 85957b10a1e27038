import EngineProtocol

/// What the client knows about one engine.
struct Engine {
    let rank: Int
    let identity: [UInt8]
    /// Has registered and did not die since.
    var isRegistered = false
    var response = EngineCoreReadyResponse()
    /// This frontend's unfinished requests.
    var inFlight = 0
    /// From the last scheduler stats.
    var running = 0
    var waiting = 0
    var hasStats = false
    /// Requests sent since those stats.
    var admittedSinceStats = 0
    /// Ids to abort with the next message.
    var aborts: [String] = []

    init(rank: Int) {
        self.rank = rank
        identity = EngineIdentity.encode(rank: rank)
    }

    mutating func reset() {
        isRegistered = false
        (running, waiting, admittedSinceStats, hasStats) = (0, 0, 0, false)
        aborts.removeAll(keepingCapacity: true)
    }

    mutating func update(_ stats: SchedulerStats) {
        running = max(0, stats.numRunningReqs)
        waiting = max(0, stats.numWaitingReqs)
        admittedSinceStats = 0
        hasStats = true
    }

    /// The load that the Rust frontend of that family compares.
    func score(_ family: ProtocolFamily) -> Int {
        guard hasStats else { return inFlight }
        // Counts come from the wire: `&+` keeps absurd ones from trapping.
        let load = running &+ waiting
        if family >= .v0_32 { return max(inFlight, load &+ admittedSinceStats) }
        if family >= .v0_28 { return max(inFlight, load) }
        return max(inFlight, load) &+ 3 &* waiting
    }
}

/// The expected engines, by rank.
struct EngineTable {
    let ranks: Range<Int>
    private(set) var engines: [Engine]

    init(ranks: Range<Int>) {
        self.ranks = ranks
        engines = ranks.map(Engine.init)
    }

    var indices: Range<Int> { 0..<engines.count }
    var allRegistered: Bool { engines.allSatisfy(\.isRegistered) }
    var missingRanks: [Int] { engines.filter { !$0.isRegistered }.map(\.rank) }

    subscript(index: Int) -> Engine {
        get { engines[index] }
        _modify { yield &engines[index] }
    }

    func index(ofRank rank: Int) -> Int? { ranks.contains(rank) ? rank - ranks.lowerBound : nil }

    /// The engine for a new request: the one asked for, else the one with the least load; ties go to the lowest rank.
    func choose(rank: Int?, family: ProtocolFamily) -> Int? {
        if let rank {
            guard let index = index(ofRank: rank), engines[index].isRegistered else { return nil }
            return index
        }
        var best: (index: Int, score: Int)?
        for index in engines.indices where engines[index].isRegistered {
            let score = engines[index].score(family)
            if best.map({ score < $0.score }) ?? true { best = (index, score) }
        }
        return best?.index
    }

    /// All engines as one: limits are the smallest, capacities are added, the rest is the first engine's.
    var information: EngineInformation {
        let responses = engines.map(\.response)
        let first = responses[0]
        return EngineInformation(
            maxModelLength: responses.map(\.maxModelLength).min() ?? 0,
            numGPUBlocks: responses.reduce(0) { $0.addingReportingOverflow($1.numGPUBlocks).partialValue },
            blockSize: first.blockSize, dtype: first.dtype, vllmVersion: first.vllmVersion,
            maxNumSeqs: responses.map(\.maxNumSeqs).min() ?? 0,
            maxNumBatchedTokens: responses.map(\.maxNumBatchedTokens).min() ?? 0, worldSize: first.worldSize,
            supportsLoRA: first.supportsLoRA, engineCount: engines.count)
    }
}
