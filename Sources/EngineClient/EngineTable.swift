import EngineProtocol

/// What the client knows about one engine.
struct Engine {
    let rank: Int
    let identity: [UInt8]
    /// Has registered and did not die since.
    var isRegistered = false
    /// Is alive and does not get on.
    var isHung = false
    /// Does not read what is sent to it.
    var isBehind = false
    var response = EngineCoreReadyResponse()
    /// This frontend's unfinished requests.
    var inFlight = 0
    /// From the last scheduler stats.
    var running = 0
    var waiting = 0
    var hasStats = false
    /// Requests sent since those stats.
    var admittedSinceStats = 0
    /// From the coordinator, plus what was sent since.
    var published = CoordinatorState.Load(waiting: 0, running: 0, kvCacheUsage: nil)
    /// Of the last outputs (vLLM 0.32 and later).
    var weightVersion: String?
    /// Counts its changes.
    var weightEpoch: UInt32 = 0
    /// Ids to abort with the next message.
    var aborts: [String] = []

    /// Requests that may go anywhere go to others.
    var getsNothing: Bool { isHung || isBehind }

    init(rank: Int) {
        self.rank = rank
        identity = EngineIdentity.encode(rank: rank)
    }

    mutating func reset() {
        (isRegistered, isHung, isBehind) = (false, false, false)
        (running, waiting, admittedSinceStats, hasStats) = (0, 0, 0, false)
        published = CoordinatorState.Load(waiting: 0, running: 0, kvCacheUsage: nil)
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

    /// The load that the Python frontend of that family compares, which knows it from the coordinator.
    func publishedScore(_ family: ProtocolFamily, clientCount: Int) -> Double {
        // From the wire, so possibly absurd: as floating point they cannot trap.
        let (waiting, running) = (Double(published.waiting), Double(published.running))
        if family < .v0_28 { return 4 * waiting + running }
        let load = max(Double(clientCount * inFlight), waiting + running)
        // A queue drains slowly where the cache is full, and soon where it is not.
        return waiting > 0 ? load + waiting * 6 * max(0, (published.kvCacheUsage ?? 0) - 0.5) : load
    }
}

/// The expected engines, by rank.
struct EngineTable {
    let ranks: Range<Int>
    private(set) var engines: [Engine]
    /// Set once a coordinator tells the loads of all frontends' requests.
    var hasCoordinator = false
    private let clientCount: Int
    /// Where looking for the least loaded engine begins, so that frontends do not all choose the same one.
    private var scanStart: Int

    init(ranks: Range<Int>, clientIndex: Int = 0, clientCount: Int = 1) {
        self.ranks = ranks
        self.clientCount = clientCount
        scanStart = ranks.count * clientIndex / clientCount % ranks.count
        engines = ranks.map(Engine.init)
    }

    var indices: Range<Int> { 0..<engines.count }
    var allRegistered: Bool { engines.allSatisfy(\.isRegistered) }
    var missingRanks: [Int] { engines.filter { !$0.isRegistered }.map(\.rank) }

    subscript(index: Int) -> Engine {
        get { engines[index] }
        _modify { yield &engines[index] }
    }

    /// - Parameter version: of the weights that the outputs at hand come from, if the engine says so.
    /// - Returns: a number that changes with the version; 0 = the engine does not say.
    mutating func weightEpoch(noting version: String?, rank: Int) -> UInt32 {
        guard let version, let index = index(ofRank: rank) else { return 0 }
        if engines[index].weightVersion != version {
            engines[index].weightVersion = version
            engines[index].weightEpoch &+= 1
        }
        return engines[index].weightEpoch
    }

    func index(ofRank rank: Int) -> Int? { ranks.contains(rank) ? rank - ranks.lowerBound : nil }

    mutating func markHung(_ ranks: Set<Int>) {
        for index in indices { engines[index].isHung = ranks.contains(engines[index].rank) }
    }

    /// Whether requests that may go anywhere go here: hung engines get them only when all hang.
    private func isEligible(_ index: Int, _ anyWorks: Bool) -> Bool {
        engines[index].isRegistered && !(anyWorks && engines[index].getsNothing)
    }

    private var anyWorks: Bool { engines.contains { $0.isRegistered && !$0.getsNothing } }

    /// What the coordinator published: one entry per rank of the deployment.
    mutating func update(_ loads: [CoordinatorState.Load]) {
        for index in indices where loads.indices.contains(engines[index].rank) {
            let load = loads[engines[index].rank]
            engines[index].published = CoordinatorState.Load(
                waiting: max(0, load.waiting), running: max(0, load.running), kvCacheUsage: load.kvCacheUsage)
        }
    }

    /// The engine for a new request: the one asked for, else the one with the least load. Without a coordinator ties go
    /// to the lowest rank, as in vLLM's Rust frontend; with one they rotate, as in its Python frontend.
    mutating func choose(rank: Int?, family: ProtocolFamily) -> Int? {
        if let rank {
            guard let index = index(ofRank: rank), engines[index].isRegistered else { return nil }
            return index
        }
        if hasCoordinator { return chooseByPublishedLoad(family) }
        let anyWorks = anyWorks
        var best: (index: Int, score: Int)?
        for index in engines.indices where isEligible(index, anyWorks) {
            let score = engines[index].score(family)
            if best.map({ score < $0.score }) ?? true { best = (index, score) }
        }
        return best?.index
    }

    private mutating func chooseByPublishedLoad(_ family: ProtocolFamily) -> Int? {
        let anyWorks = anyWorks
        var best: (index: Int, score: Double)?
        for step in engines.indices {
            let index = (scanStart + step) % engines.count
            guard isEligible(index, anyWorks) else { continue }
            let score = engines[index].publishedScore(family, clientCount: clientCount)
            if best.map({ score < $0.score }) ?? true { best = (index, score) }
        }
        guard let best else { return nil }
        // The other frontends are taken to do likewise until the coordinator says more.
        engines[best.index].published.waiting &+= clientCount
        if family >= .v0_25 { scanStart = (scanStart + 1) % engines.count }
        return best.index
    }

    /// All engines as one: limits are the smallest, capacities are added, the rest is the first engine's.
    var information: EngineInformation {
        let responses = engines.map(\.response)
        let first = responses[0]
        var information = EngineInformation(
            maxModelLength: responses.map(\.maxModelLength).min() ?? 0,
            numGPUBlocks: responses.reduce(0) { $0.addingReportingOverflow($1.numGPUBlocks).partialValue },
            blockSize: first.blockSize, dtype: first.dtype, vllmVersion: first.vllmVersion,
            maxNumSeqs: responses.map(\.maxNumSeqs).min() ?? 0,
            maxNumBatchedTokens: responses.map(\.maxNumBatchedTokens).min() ?? 0, worldSize: first.worldSize,
            maxLoRAs: responses.map(\.maxLoRAs).min() ?? 0, engineCount: engines.count,
            ranks: engines[0].rank..<(engines[0].rank + engines.count))
        information.answersHeartbeat = responses.allSatisfy(\.answersHeartbeat)
        information.supportsStructuredOutputs = responses.allSatisfy(\.supportsStructuredOutputs)
        information.loadSeconds = responses.compactMap(\.loadSeconds).max()
        return information
    }
}
