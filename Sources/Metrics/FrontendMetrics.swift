import Glibc
import Synchronization

/// All metrics of one frontend process. Names, labels and buckets are vLLM's.
///
/// Token-rate updates go through a ``Recorder`` of the updating thread and take no lock. Request-rate HTTP metrics and
/// gauges are shared.
package final class FrontendMetrics: Sendable {
    package let modelName: String
    package let engineCount: Int
    let startTime: Double
    let memory: MetricMemory
    let layout: EngineMetricLayout
    /// Whether the operator has set the buckets of token counts.
    let hasCustomTokenBuckets: Bool
    let http: HTTPMetrics
    private let acceptedPositions: AcceptedPositions
    let adapters = AdapterUse()
    private let gauges: MetricCells
    private let server: MetricCells
    private let recorders = Atomic(0)
    let information = Mutex<EngineConfigurationInfo?>(nil)
    /// In a struct: a bare closure would be wrapped once more each time that it is read out of the lock.
    private struct HealthSource {
        var read: (@Sendable () -> EngineHealth?)?
    }
    private let engineHealthSource = Mutex(HealthSource())
    let maxModelLength = Atomic<Int>(131_072)

    /// - Parameters:
    ///   - startTime: Unix time in seconds, shown by the `_created` series.
    ///   - customBuckets: upper bounds in place of the usual ones, finite, above 0 and rising.
    ///   - memory: where the numbers live; shared memory makes every frontend's page show the sums over all.
    package init(
        modelName: String, engineCount: Int = 1, startTime: Double,
        customBuckets: [HistogramFamily: [Double]] = [:], memory: MetricMemory = MetricMemory()
    ) {
        layout = EngineMetricLayout(customBuckets: customBuckets)
        hasCustomTokenBuckets = customBuckets[.requestTokens] != nil
        self.modelName = modelName
        self.engineCount = max(1, engineCount)
        self.memory = memory
        self.startTime = startTime
        memory.noteStart(startTime)
        http = HTTPMetrics(memory: memory)
        acceptedPositions = AcceptedPositions(memory: memory)
        gauges = memory.block(.gauges, labels: [], count: EngineGauge.allCases.count * max(1, engineCount))
        server = memory.block(.server, labels: [], count: ServerCell.allCases.count)
        // What a dead predecessor was answering is answered by nobody.
        server.setInteger(0, at: ServerCell.load.rawValue)
        server.setInteger(0, at: ServerCell.unfinished.rawValue)
    }

    /// A block for one thread (event loop). It lives as long as the metrics.
    package func makeRecorder() -> Recorder {
        let number = recorders.wrappingAdd(1, ordering: .relaxed).oldValue
        let count = engineCount * layout.cellCount
        return Recorder(
            engineCount: engineCount, layout: layout, acceptedPositions: acceptedPositions,
            cells: memory.block(.recorder, labels: ["\(number)"] + layout.labels, count: count))
    }

    /// Generation requests that this frontend is answering.
    package var serverLoad: Int { Int(truncatingIfNeeded: server.integer(at: ServerCell.load.rawValue)) }
    package func changeServerLoad(by delta: Int) { server.addAtomically(delta, at: ServerCell.load.rawValue) }

    /// Generation requests that are being answered by all frontends that are alive (`/load`).
    package func totalServerLoad() -> Int { livingSum(.load) }

    private func livingSum(_ cell: ServerCell) -> Int {
        memory.livingBlocks.lazy.filter { $0.kind == .server && $0.cells.count == ServerCell.allCases.count }
            .reduce(0) { $0 &+ Int(truncatingIfNeeded: $1.cells.integer(at: cell.rawValue)) }
    }

    /// Sequences that this frontend has given to the engines and that have not ended.
    package func changeUnfinishedSequences(by delta: Int) {
        server.addAtomically(delta, at: ServerCell.unfinished.rawValue)
    }

    /// Those of all frontends that are alive.
    package func totalUnfinishedSequences() -> Int { livingSum(.unfinished) }

    package func recordAdmissionRejection(_ limit: AdmissionLimit) {
        server.addAtomically(1, at: limit.cell.rawValue)
    }

    /// Gauges of one engine, from its scheduler statistics. One thread (the engine client's) calls this.
    package func setScheduler(engine: Int, running: Int, waiting: Int, deferred: Int, kvCacheUsage: Double) {
        guard engine >= 0, engine < engineCount else { return }
        let base = engine * EngineGauge.allCases.count
        gauges.set(Double(running), at: base + EngineGauge.running.rawValue)
        gauges.set(Double(waiting), at: base + EngineGauge.waitingForCapacity.rawValue)
        gauges.set(Double(deferred), at: base + EngineGauge.waitingDeferred.rawValue)
        gauges.set(kvCacheUsage, at: base + EngineGauge.kvCacheUsage.rawValue)
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        gauges.set(Double(now.tv_sec) + Double(now.tv_nsec) * 1e-9, at: base + EngineGauge.timestamp.rawValue)
    }

    /// Requests of one engine by the name of their LoRA adapter, from its scheduler statistics.
    package func setAdapters(engine: Int, running: [String: Int], waiting: [String: Int]) {
        guard engine >= 0, engine < engineCount else { return }
        adapters.set(engine: engine, running: running, waiting: waiting) {
            var now = timespec()
            clock_gettime(CLOCK_REALTIME, &now)
            return Double(now.tv_sec) + Double(now.tv_nsec) * 1e-9
        }
    }

    /// What `vllm:cache_config_info` shows, and the context length that bounds the token-count buckets.
    package func setEngineConfiguration(_ info: EngineConfigurationInfo) {
        maxModelLength.store(info.maxModelLength, ordering: .relaxed)
        adapters.setMaximum(info.maxLoRAs)
        information.withLock { $0 = info }
    }

    /// Where `vllm:engine_hung` and `vllm:engine_last_progress_seconds` come from. While it gives nil they are
    /// not shown: the page then has exactly vLLM's families.
    package func setEngineHealth(_ source: @escaping @Sendable () -> EngineHealth?) {
        engineHealthSource.withLock { $0.read = source }
    }
    var engineHealth: EngineHealth? { engineHealthSource.withLock { $0.read }.flatMap { $0() } }

    package func recordHTTP(_ sample: HTTPSample) { http.record(sample) }

    /// The sums over all engines that a status line shows: what this frontend did.
    package func totals() -> MetricTotals {
        let reading = MetricReading(memory.ownBlocks, engineCount: engineCount, layout: layout)
        var totals = MetricTotals()
        for engine in 0..<engineCount {
            totals.promptTokens += reading.counter(.promptTokens, engine: engine)
            totals.generationTokens += reading.counter(.generationTokens, engine: engine)
            totals.prefixQueries += reading.counter(.prefixQueries, engine: engine)
            totals.prefixHits += reading.counter(.prefixHits, engine: engine)
            totals.running += reading.gauge(.running, engine: engine)
            totals.waiting +=
                reading.gauge(.waitingForCapacity, engine: engine) + reading.gauge(.waitingDeferred, engine: engine)
            totals.kvCacheUsage = max(totals.kvCacheUsage, reading.gauge(.kvCacheUsage, engine: engine))
        }
        return totals
    }
}

/// Counters and gauges at one moment. Tokens, requests; the cache usage is that of the fullest engine, 0...1.
package struct MetricTotals: Sendable, Equatable {
    package var promptTokens: UInt64 = 0
    package var generationTokens: UInt64 = 0
    package var prefixQueries: UInt64 = 0
    package var prefixHits: UInt64 = 0
    package var running = 0.0
    package var waiting = 0.0
    package var kvCacheUsage = 0.0
    package init() {}
}

/// Engine facts that metrics pages show.
package struct EngineConfigurationInfo: Sendable, Equatable {
    package var blockSize: Int
    package var numGPUBlocks: Int
    package var maxModelLength: Int
    package var dtype: String
    /// LoRA adapters that an engine can hold at once; 0 = it supports none.
    package var maxLoRAs: Int
    package init(blockSize: Int, numGPUBlocks: Int, maxModelLength: Int, dtype: String, maxLoRAs: Int = 0) {
        self.blockSize = blockSize
        self.numGPUBlocks = numGPUBlocks
        self.maxModelLength = maxModelLength
        self.dtype = dtype
        self.maxLoRAs = maxLoRAs
    }
}

/// An engine attaches its statistics to the outputs of one frontend only: of several, the latest is shown.
enum EngineGauge: Int, CaseIterable { case running, waitingForCapacity, waitingDeferred, kvCacheUsage, timestamp }

enum ServerCell: Int, CaseIterable { case load, unfinished, fullRejections, backlogRejections }

/// The limit that a request would have passed (vLLM: `ADMISSION_REASONS`).
package enum AdmissionLimit: Sendable {
    /// `max_num_queued_reqs`
    case requests
    /// `max_num_queued_tokens`
    case tokens

    var cell: ServerCell { self == .requests ? .fullRejections : .backlogRejections }
}

/// What is known about a sequence when it ends (vLLM: `FinishedRequestStats`). Times in seconds.
package struct FinishedSequence: Sendable {
    package var reason: FinishedReason
    package var e2eLatency: Double
    package var promptTokens: Int
    package var generationTokens: Int
    package var cachedTokens: Int
    /// From the engine's event timestamps; nil when the engine did not send them.
    package var queueTime: Double?
    package var prefillTime: Double?
    package var decodeTime: Double?
    package var inferenceTime: Double?
    package var preemptions: Int
    /// The request's own limit, after clamping.
    package var maxTokens: Int?
    /// The engine found NaN in its logits.
    package var isCorrupted: Bool
    package init(
        reason: FinishedReason, e2eLatency: Double, promptTokens: Int, generationTokens: Int, cachedTokens: Int = 0,
        queueTime: Double? = nil, prefillTime: Double? = nil, decodeTime: Double? = nil, inferenceTime: Double? = nil,
        preemptions: Int = 0, maxTokens: Int? = nil, isCorrupted: Bool = false
    ) {
        self.reason = reason
        self.e2eLatency = e2eLatency
        self.promptTokens = promptTokens
        self.generationTokens = generationTokens
        self.cachedTokens = cachedTokens
        self.queueTime = queueTime
        self.prefillTime = prefillTime
        self.decodeTime = decodeTime
        self.inferenceTime = inferenceTime
        self.preemptions = preemptions
        self.maxTokens = maxTokens
        self.isCorrupted = isCorrupted
    }
}

/// The token-rate metrics of one thread. **Only that thread may call the recording methods.**
package final class Recorder: Sendable {
    private let cells: MetricCells
    private let engineCount: Int
    private let layout: EngineMetricLayout
    private let acceptedPositions: AcceptedPositions

    init(engineCount: Int, layout: EngineMetricLayout, acceptedPositions: AcceptedPositions, cells: MetricCells) {
        self.layout = layout
        self.acceptedPositions = acceptedPositions
        self.engineCount = engineCount
        self.cells = cells
    }

    /// Engines that were never announced count as the first one.
    @inline(__always)
    private func base(_ engine: Int) -> Int {
        engine > 0 && engine < engineCount ? engine * layout.cellCount : 0
    }

    @inline(__always)
    private func add(_ counter: EngineCounter, _ value: Int, _ base: Int) {
        if value > 0 { cells.add(UInt64(value), at: base + counter.rawValue) }
    }

    @inline(__always)
    private func observe(_ histogram: EngineHistogram, _ value: Double, _ base: Int) {
        layout.histograms[histogram.rawValue].observe(value, in: cells, base: base)
    }

    /// A sequence's first output: prompt and first tokens.
    /// - Parameter timeToFirstToken: seconds since the request arrived.
    package func firstToken(
        engine: Int = 0, timeToFirstToken: Double, promptTokens: Int, localCachedTokens: Int = 0,
        externalCachedTokens: Int = 0, generated: Int
    ) {
        let base = base(engine)
        let cached = localCachedTokens + externalCachedTokens
        observe(.timeToFirstToken, timeToFirstToken, base)
        add(.promptTokens, promptTokens, base)
        add(.promptTokensCached, cached, base)
        add(.promptComputed, promptTokens - cached, base)
        add(.promptLocalHit, localCachedTokens, base)
        add(.cachedDevice, localCachedTokens, base)
        add(.promptExternal, externalCachedTokens, base)
        add(.generationTokens, generated, base)
    }

    /// A later output. `gap` = seconds since the previous output of the sequence.
    @inline(__always)
    package func nextTokens(engine: Int = 0, gap: Double, generated: Int) {
        let base = base(engine)
        observe(.interToken, gap, base)
        add(.generationTokens, generated, base)
    }

    /// One step of an engine: prompt plus generated tokens.
    package func iteration(engine: Int = 0, tokens: Int) {
        observe(.iterationTokens, Double(tokens), base(engine))
    }

    /// Once per prompt: its `n` and the tokens of its longest answer.
    package func requestFinished(engine: Int = 0, n: Int, maxGenerationTokens: Int) {
        let base = base(engine)
        observe(.paramsN, Double(n), base)
        observe(.maxGenerationTokens, Double(maxGenerationTokens), base)
    }

    /// Once per sequence.
    package func sequenceFinished(engine: Int = 0, _ sequence: FinishedSequence) {
        let base = base(engine)
        cells.add(1, at: base + EngineCounter.successStop.rawValue + sequence.reason.rawValue)
        observe(.e2eLatency, sequence.e2eLatency, base)
        if let time = sequence.queueTime { observe(.queueTime, time, base) }
        if let time = sequence.prefillTime { observe(.prefillTime, time, base) }
        if let time = sequence.inferenceTime { observe(.inferenceTime, time, base) }
        if let time = sequence.decodeTime {
            observe(.decodeTime, time, base)
            let steps = sequence.generationTokens - 1
            observe(.timePerOutputToken, steps > 0 ? time / Double(steps) : 0, base)
        }
        observe(.promptTokens, Double(sequence.promptTokens), base)
        observe(.generationTokens, Double(sequence.generationTokens), base)
        observe(.prefillComputedTokens, Double(max(0, sequence.promptTokens - sequence.cachedTokens)), base)
        observe(.preemptions, Double(sequence.preemptions), base)
        if sequence.isCorrupted { cells.add(1, at: base + EngineCounter.corrupted.rawValue) }
        if let limit = sequence.maxTokens { observe(.paramsMaxTokens, Double(limit), base) }
    }

    package func preempted(engine: Int = 0, count: Int) { add(.preemptions, count, base(engine)) }

    /// Deltas of the engine's prefix cache, in tokens.
    package func prefixCache(engine: Int, queries: Int, hits: Int) {
        add(.prefixQueries, queries, base(engine))
        add(.prefixHits, hits, base(engine))
    }

    /// Deltas of the caches that the engine is connected to, in tokens.
    package func externalPrefixCache(engine: Int, queries: Int, hits: Int) {
        add(.externalQueries, queries, base(engine))
        add(.externalHits, hits, base(engine))
    }

    /// A block of the engine's cache that was given up; seconds.
    package func blockEvicted(engine: Int, lifetime: Double, idle: Double, reuseGaps: [Double]) {
        let base = base(engine)
        observe(.blockLifetime, lifetime, base)
        observe(.blockIdle, idle, base)
        for gap in reuseGaps { observe(.blockReuseGap, gap, base) }
    }

    /// Deltas of what the engine estimates that it has done.
    package func worked(engine: Int, flops: Int, readBytes: Int, writeBytes: Int) {
        let base = base(engine)
        add(.flops, flops, base)
        add(.readBytes, readBytes, base)
        add(.writeBytes, writeBytes, base)
    }

    /// Deltas of the engine's speculative decoding.
    /// - Parameter acceptedPerPosition: accepted tokens by their place in the draft.
    package func speculated(
        engine: Int, drafts: Int, draftTokens: Int, acceptedTokens: Int, acceptedPerPosition: [Int]
    ) {
        let base = base(engine)
        add(.specDrafts, drafts, base)
        add(.specDraftTokens, draftTokens, base)
        add(.specAcceptedTokens, acceptedTokens, base)
        acceptedPositions.add(acceptedPerPosition, engine: base / layout.cellCount)
    }
}

/// Whether the engines get on.
package struct EngineHealth: Sendable {
    package let isHung: Bool
    package let secondsSinceProgress: Double

    package init(isHung: Bool, secondsSinceProgress: Double) {
        self.isHung = isHung
        self.secondsSinceProgress = secondsSinceProgress
    }
}
