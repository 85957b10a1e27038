import EngineClient
import EngineProtocol
import JSONBytes
import Metrics
import NIOCore
import Synchronization
import Text

/// What one engine output means for one sequence, after detokenisation and stop strings.
struct SequenceStep {
    let output: EngineCoreOutput
    /// Tokens of this step that count, a stop token included.
    let tokenIDs: Slice<TokenIDs>
    /// Set on the last step.
    let finish: SequenceFinish?
}

/// Shapes the answer of a job: whole or streamed, completions or chat. Lives on the job's event loop.
protocol GenerationFormatter: AnyObject {
    /// New text of one sequence; `text` is only valid during the call.
    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob)
    /// All sequences have finished.
    func finish(_ job: GenerationJob)
    /// Whether a response head has been written, so that an error can only be told in-band.
    var hasStarted: Bool { get }
    /// Whether the text of several steps may be told as that of one: nothing else is told per step.
    var mergesSteps: Bool { get }
}

extension GenerationFormatter {
    var mergesSteps: Bool { false }
}

/// One generated sequence (choice) of a request.
///
/// Bound to one event loop: events arrive there, in order, and nothing else touches it.
final class GeneratedSequence: RequestReceiver, @unchecked Sendable {
    let promptIndex: Int
    let choiceIndex: Int
    var processor: OutputProcessor
    var handle: RequestHandle?
    var isFinished = false
    var completionTokens = 0
    /// The engine keeps it to a grammar.
    var isConstrained = false
    var timeline = SequenceTimeline()
    /// Prompt tokens that count as queued until the first output; nil afterwards.
    var queuedTokens: Int?
    /// Text that waits until the client reads on.
    var heldText: [UInt8] = []
    /// Text so far; kept only for the log of outputs.
    var loggedText: [UInt8] = []
    /// The last generated tokens, the current step included; kept only when logprobs are shown.
    private var recent: [Int32] = []
    /// Set while the job runs; cleared when it ends, so that late events find nobody and nothing is kept alive.
    var job: GenerationJob?

    init(promptIndex: Int, choiceIndex: Int, processor: OutputProcessor) {
        self.promptIndex = promptIndex
        self.choiceIndex = choiceIndex
        self.processor = processor
    }

    func receive(_ event: RequestEvent) {
        job?.receive(event, from: self)
    }

    /// The tokens before row `row` of a step of `count` tokens, as far as they can matter to the text of that row.
    func context(before row: Int, of count: Int) -> ArraySlice<Int32> {
        recent.dropLast(max(0, count - row)).suffix(4)
    }

    func remember(_ tokens: some Collection<Int32>) {
        recent.append(contentsOf: tokens)
        if recent.count > 64 { recent.removeFirst(recent.count - tokens.count - 4) }
    }
}

/// One HTTP request that generates: all its sequences, and exactly one response.
///
/// Its sequences keep it alive until the response has ended, the client has gone or the engine has failed.
final class GenerationJob {
    let api: APIContext
    let response: any ResponseWriter
    let sequences: [GeneratedSequence]
    let formatter: any GenerationFormatter
    private let identity: ResponseIdentity
    var usage: Usage
    /// What the engine says to another one that takes the request over; msgpack.
    private(set) var kvTransferParams: [UInt8]?
    private(set) var ecTransferParams: [UInt8]?
    private(set) var specDecodeMetrics: RequestSpecDecodeMetrics?
    private let loopState: LoopState
    private var recorder: Recorder { loopState.recorder }
    private var unfinished: Int
    private var ended = false

    /// The `n` sequences of one prompt (vLLM: `ParentRequest`).
    private struct Answers {
        var unfinished = 0
        /// Tokens of the longest that has ended.
        var longest = 0
    }
    private var answers: [Answers] = []

    init(
        api: APIContext, response: any ResponseWriter, identity: ResponseIdentity, sequences: [GeneratedSequence],
        promptTokens: Int, formatter: any GenerationFormatter
    ) {
        self.api = api
        self.response = response
        self.identity = identity
        self.sequences = sequences
        self.formatter = formatter
        loopState = api.server.state(for: response.eventLoop)
        unfinished = sequences.count
        for sequence in sequences {
            if sequence.promptIndex == answers.count { answers.append(Answers()) }
            answers[sequence.promptIndex].unfinished += 1
        }
        usage = Usage()
        usage.promptTokens = promptTokens
    }

    /// Hands the requests to the engine; `requests` has one element per sequence.
    func start(_ requests: [EngineCoreRequest]) {
        response.requestID = identity.id
        // Not weak: that would make every later retain of the job slow. The response lets go of it when it ends.
        response.onDisconnect = { self.clientGone() }
        response.onAbort = { self.abort() }
        response.onWritable = { self.releaseHeldText() }
        let now = MonotonicClock.now()
        for (sequence, request) in zip(sequences, requests) {
            sequence.job = self
            sequence.isConstrained = request.samplingParams.structuredOutputs != nil
            sequence.queuedTokens = request.promptTokenIDs.count
            api.server.admission.admitted(promptTokens: request.promptTokenIDs.count)
            sequence.timeline.start(request, now: now)
            sequence.handle = api.server.engine.add(request, inbox: loopState, receiver: sequence)
        }
    }

    func receive(_ event: RequestEvent, from sequence: GeneratedSequence) {
        guard !ended, !sequence.isFinished else { return }
        switch event {
        case .failed(let failure):
            let error = APIError(failure, engineReturns: api.server.configuration.enginesAreReplaced)
            fail(error, finishReason: "error", cause: "engine_error")
        case .output(let output, let timestamp):
            if output.finishReason == .error {
                let refusesConstraint = sequence.isConstrained && sequence.completionTokens == 0
                fail(
                    APIError(engineError: output.failure, refusesConstraint: refusesConstraint), finishReason: "error",
                    cause: "engine_error")
                return
            }
            handle(output, timestamp: timestamp, now: loopState.deliveryTime, sequence)
        }
    }

    /// The engine has begun with it, or never will.
    private func leaveQueue(_ sequence: GeneratedSequence) {
        guard let tokens = sequence.queuedTokens else { return }
        sequence.queuedTokens = nil
        api.server.admission.leftQueue(promptTokens: tokens)
    }

    private func markFinished(_ sequence: GeneratedSequence) {
        sequence.isFinished = true
        api.server.admission.finished()
        let prompt = sequence.promptIndex
        answers[prompt].unfinished -= 1
        answers[prompt].longest = max(answers[prompt].longest, sequence.completionTokens)
        if answers[prompt].unfinished == 0 {
            recorder.requestFinished(
                engine: sequence.timeline.engine, n: sequences.count / answers.count,
                maxGenerationTokens: answers[prompt].longest)
        }
    }

    private func handle(
        _ output: EngineCoreOutput, timestamp: Double, now: Double, _ sequence: GeneratedSequence
    ) {
        leaveQueue(sequence)
        loopState.text.removeAll(keepingCapacity: true)
        let result = sequence.processor.process(output, into: &loopState.text)
        sequence.completionTokens += result.tokenCount
        usage.completionTokens += result.tokenCount
        sequence.timeline.record(output, timestamp: timestamp, now: now, recorder: recorder)
        if !output.isPlain, sequence.choiceIndex == 0 {
            if let params = output.kvTransferParams { kvTransferParams = params }
            if let params = output.ecTransferParams { ecTransferParams = params }
            if let metrics = output.specDecodeMetrics { specDecodeMetrics = metrics }
        }
        if let stats = output.prefillStats, sequence.choiceIndex == 0 {
            usage.cachedTokens = (usage.cachedTokens ?? 0) + stats.numCachedTokens
            usage.createdCacheTokens = (usage.createdCacheTokens ?? 0) + stats.numCacheCreationTokens
        }
        if let log = api.outputLog {
            sequence.loggedText.append(contentsOf: loopState.text)
            if let finish = result.finish {
                log.write(
                    id: identity.id, text: sequence.loggedText, tokens: sequence.completionTokens,
                    reason: finish.reason)
            }
        }
        if let finish = result.finish {
            markFinished(sequence)
            unfinished -= 1
            if result.mustAbortEngine, let handle = sequence.handle { api.server.engine.abort(handle) }
            sequence.timeline.finish(
                reason: finish.reason, generationTokens: sequence.completionTokens, now: now, recorder: recorder)
        }
        if output.newLogprobs != nil { sequence.remember(output.tokens) }
        if !sequence.heldText.isEmpty || !response.isWritable, holds(result.finish, sequence) { return }
        let step = SequenceStep(
            output: output, tokenIDs: Slice(base: output.tokens, bounds: 0..<result.tokenCount), finish: result.finish)
        formatter.append(step, text: loopState.text, for: sequence, job: self)
        if unfinished == 0 {
            end()
            response.endCause = result.finish?.reason
            formatter.finish(self)
        } else if formatter.hasStarted {
            response.flush()
        }
    }

    /// Bytes of text per sequence that wait for a client that does not read; what is more goes to the connection, which
    /// has its own limit.
    private static let heldTextLimit = 64 << 10

    /// A client that does not read gets the tokens that come meanwhile in one event: as text they take a fraction of the
    /// memory.
    /// - Returns: whether there is nothing to tell now; otherwise the text of the loop is complete.
    private func holds(_ finish: SequenceFinish?, _ sequence: GeneratedSequence) -> Bool {
        sequence.heldText.append(contentsOf: loopState.text)
        if finish == nil, formatter.mergesSteps, formatter.hasStarted, !response.isWritable,
            sequence.heldText.count < Self.heldTextLimit
        {
            return true
        }
        swap(&sequence.heldText, &loopState.text)
        sequence.heldText.removeAll()
        return false
    }

    private func releaseHeldText() {
        guard !ended else { return }
        var released = false
        for sequence in sequences where !sequence.heldText.isEmpty {
            let output = EngineCoreOutput()
            let step = SequenceStep(
                output: output, tokenIDs: Slice(base: output.tokens, bounds: 0..<0), finish: nil)
            formatter.append(step, text: sequence.heldText, for: sequence, job: self)
            sequence.heldText.removeAll()
            released = true
        }
        if released { response.flush() }
    }

    /// Ends the request with an error: a status of its own, or in-band when the stream has begun.
    private func fail(_ error: APIError, finishReason: String, cause: String) {
        guard !ended else { return }
        releaseHeldText()
        abortRunning(reason: finishReason)
        end()
        response.endCause = cause
        if formatter.hasStarted {
            response.finishEvents { error.appendEvent(to: &$0) }
        } else {
            response.send(error)
        }
    }

    /// Ends what is not finished yet where it stands, with the finish reason `abort`.
    private func abort() {
        var output = EngineCoreOutput()
        output.finishReason = .abort
        let now = MonotonicClock.now()
        for sequence in sequences where !sequence.isFinished {
            if let handle = sequence.handle { api.server.engine.abort(handle) }
            output.engineIndex = sequence.timeline.engine
            handle(output, timestamp: sequence.timeline.lastToken ?? 0, now: now, sequence)
        }
    }

    private func clientGone() {
        guard !ended else { return }
        abortRunning(reason: "abort")
        end()
    }

    private func abortRunning(reason: String) {
        let now = MonotonicClock.now()
        for sequence in sequences where !sequence.isFinished {
            markFinished(sequence)
            if let handle = sequence.handle { api.server.engine.abort(handle) }
            sequence.timeline.finish(
                reason: reason, generationTokens: sequence.completionTokens, now: now, recorder: recorder)
        }
    }

    private func end() {
        ended = true
        response.onDisconnect = nil
        response.onAbort = nil
        for sequence in sequences {
            leaveQueue(sequence)
            sequence.job = nil
        }
    }
}
