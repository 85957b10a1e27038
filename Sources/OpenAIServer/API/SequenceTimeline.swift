import EngineProtocol
import Glibc
import Metrics

/// When the things that metrics count happened to one sequence (vLLM: `RequestStateStats`).
///
/// Frontend times are this machine's monotonic clock; the engine's own stamps are only ever compared with each other.
struct SequenceTimeline {
    private var arrival = 0.0
    private var lastOutput: Double?
    private var promptTokens = 0
    private var maxTokens = 0
    private var cachedTokens = 0
    private(set) var engine = 0
    private var preemptions = 0
    private var isCorrupted = false
    // Engine clock.
    private(set) var queued: Double?
    private(set) var scheduled: Double?
    private(set) var firstToken: Double?
    private(set) var lastToken: Double?

    mutating func start(_ request: EngineCoreRequest, now: Double) {
        arrival = now
        promptTokens = request.promptTokenIDs.count
        maxTokens = request.samplingParams.maxTokens
    }

    mutating func record(_ output: EngineCoreOutput, timestamp: Double, now: Double, recorder: Recorder) {
        engine = output.engineIndex
        for event in output.events {
            switch event.kind {
            case .queued: queued = event.timestamp
            case .scheduled: if scheduled == nil { scheduled = event.timestamp }
            case .preempted:
                preemptions += 1
                recorder.preempted(engine: engine, count: 1)
            }
        }
        if output.numNaNsInLogits > 0 { isCorrupted = true }
        let generated = output.tokens.count
        guard generated > 0 else { return }
        if let lastOutput {
            recorder.nextTokens(engine: engine, gap: now - lastOutput, generated: generated)
        } else {
            let stats = output.prefillStats
            cachedTokens = stats?.numCachedTokens ?? 0
            recorder.firstToken(
                engine: engine, timeToFirstToken: now - arrival, promptTokens: promptTokens,
                localCachedTokens: stats?.numLocalCachedTokens ?? 0,
                externalCachedTokens: stats?.numExternalCachedTokens ?? 0, generated: generated)
            firstToken = timestamp
        }
        lastOutput = now
        lastToken = timestamp
    }

    func finish(reason: String, generationTokens: Int, now: Double, recorder: Recorder) {
        func elapsed(_ from: Double?, _ to: Double?) -> Double? {
            guard let from, let to, to >= from else { return nil }
            return to - from
        }
        recorder.sequenceFinished(
            engine: engine,
            FinishedSequence(
                reason: FinishedReason.allCases.first { $0.label == reason } ?? .error, e2eLatency: now - arrival,
                promptTokens: promptTokens,
                generationTokens: generationTokens, cachedTokens: cachedTokens, queueTime: elapsed(queued, scheduled),
                prefillTime: elapsed(scheduled, firstToken), decodeTime: elapsed(firstToken, lastToken),
                inferenceTime: elapsed(scheduled, lastToken), preemptions: preemptions, maxTokens: maxTokens,
                isCorrupted: isCorrupted))
    }
}
