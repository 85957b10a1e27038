/// What one engine step produced for one frontend (vLLM: `EngineCoreOutputs`, a positional msgpack array).
package struct EngineCoreOutputs: Sendable {
    package var engineIndex: Int = 0
    package var outputs: [EngineCoreOutput] = []
    package var schedulerStats: SchedulerStats?
    /// The engine's CLOCK_MONOTONIC in seconds.
    package var timestamp: Double = 0
    package var utilityOutput: UtilityOutput?
    package var finishedRequests: [String]?
    package var waveComplete: Int?
    package var startWave: Int?
    package var weightVersion: String?
    package init() {}
}

/// New tokens of one request (vLLM: `EngineCoreOutput`).
///
/// Most outputs are one token and nothing else: the rare fields share one heap object that usually does not exist, which
/// keeps this cheap to move between threads.
package struct EngineCoreOutput: Sendable {
    package var requestID: String = ""
    package var tokens = TokenIDs()
    package var finishReason: FinishReason?
    /// Not on the wire: the rank of the engine that sent it, from the surrounding message.
    package var engineIndex = 0
    private var rare: Rare?

    package init() {}

    /// ``tokens`` as an array (allocates: per-token code reads `tokens`).
    package var newTokenIDs: [Int32] {
        get { tokens.array }
        set { tokens = TokenIDs(newValue) }
    }
    package var newLogprobs: LogprobRows? {
        get { rare?.newLogprobs }
        set { if rare != nil || newValue != nil { ownRare().newLogprobs = newValue } }
    }
    package var newPromptLogprobs: LogprobRows? {
        get { rare?.newPromptLogprobs }
        set { if rare != nil || newValue != nil { ownRare().newPromptLogprobs = newValue } }
    }
    package var stopReason: StopReason? {
        get { rare?.stopReason }
        set { if rare != nil || newValue != nil { ownRare().stopReason = newValue } }
    }
    package var events: [EngineCoreEvent] {
        get { rare?.events ?? [] }
        set { if rare != nil || !newValue.isEmpty { ownRare().events = newValue } }
    }
    package var prefillStats: PrefillStats? {
        get { rare?.prefillStats }
        set { if rare != nil || newValue != nil { ownRare().prefillStats = newValue } }
    }
    /// vLLM 0.33: why ``FinishReason/error`` happened.
    package var error: EngineRequestError? {
        get { rare?.error }
        set { if rare != nil || newValue != nil { ownRare().error = newValue } }
    }
    /// Not on the wire here: the engine's weight version from the surrounding message; on the first and last output of a
    /// request and whenever it has changed.
    package var weightVersion: String? {
        get { rare?.weightVersion }
        set { if rare != nil || newValue != nil { ownRare().weightVersion = newValue } }
    }
    /// Opaque `kv_transfer_params`, msgpack bytes.
    package var kvTransferParams: [UInt8]? {
        get { rare?.kvTransferParams }
        set { if rare != nil || newValue != nil { ownRare().kvTransferParams = newValue } }
    }
    /// Opaque `ec_transfer_params`, msgpack bytes; vLLM 0.28 and later.
    package var ecTransferParams: [UInt8]? {
        get { rare?.ecTransferParams }
        set { if rare != nil || newValue != nil { ownRare().ecTransferParams = newValue } }
    }
    /// The request's own, echoed.
    package var traceHeaders: [(String, String)]? {
        get { rare?.traceHeaders }
        set { if rare != nil || newValue != nil { ownRare().traceHeaders = newValue } }
    }
    /// What an embedding model made of the input.
    package var poolingOutput: EngineArray? {
        get { rare?.poolingOutput }
        set { if rare != nil || newValue != nil { ownRare().poolingOutput = newValue } }
    }
    /// [tokens, layers, experts per token]: which experts of a mixture read or made the tokens since the last of these.
    package var routedExperts: EngineArray? {
        get { rare?.routedExperts }
        set { if rare != nil || newValue != nil { ownRare().routedExperts = newValue } }
    }
    /// More than 0: the output is worthless.
    package var numNaNsInLogits: Int {
        get { rare?.numNaNsInLogits ?? 0 }
        set { if rare != nil || newValue != 0 { ownRare().numNaNsInLogits = newValue } }
    }
    /// With ``FinishReason/error``: multimodal inputs that the engine no longer keeps; vLLM 0.28 and later.
    package var mmCacheMissHashes: [String] {
        get { rare?.mmCacheMissHashes ?? [] }
        set { if rare != nil || !newValue.isEmpty { ownRare().mmCacheMissHashes = newValue } }
    }
    /// vLLM 0.28 and later.
    package var newSamplingMask: SamplingMask? {
        get { rare?.newSamplingMask }
        set { if rare != nil || newValue != nil { ownRare().newSamplingMask = newValue } }
    }
    /// On the last output; vLLM 0.30 and later.
    package var specDecodeMetrics: RequestSpecDecodeMetrics? {
        get { rare?.specDecodeMetrics }
        set { if rare != nil || newValue != nil { ownRare().specDecodeMetrics = newValue } }
    }
    /// [scored rows, ids]: log-probabilities of the ids that the request named; vLLM 0.32 and later.
    package var promptTokenIDLogprobs: EngineArray? {
        get { rare?.promptTokenIDLogprobs }
        set { if rare != nil || newValue != nil { ownRare().promptTokenIDLogprobs = newValue } }
    }

    /// Why ``FinishReason/error`` happened, as far as the engine tells: in words, or by what it misses.
    package var failure: EngineRequestError? {
        if let error { return error }
        guard !mmCacheMissHashes.isEmpty else { return nil }
        return EngineRequestError(
            code: "multimodal_cache_miss", message: "Multi-modal processor cache miss.", retryable: true)
    }

    /// Whether the output carries tokens and a finish reason at most.
    package var isPlain: Bool { rare == nil }

    private mutating func ownRare() -> Rare {
        if isKnownUniquelyReferenced(&rare), let current = rare { return current }
        let own = rare.map { Rare(copying: $0) } ?? Rare()
        rare = own
        return own
    }

    /// Copied before a write unless it has one owner, so no two threads see it change.
    private final class Rare: @unchecked Sendable {
        var newLogprobs: LogprobRows?
        var newPromptLogprobs: LogprobRows?
        var stopReason: StopReason?
        var events: [EngineCoreEvent] = []
        var prefillStats: PrefillStats?
        var error: EngineRequestError?
        var weightVersion: String?
        var kvTransferParams: [UInt8]?
        var ecTransferParams: [UInt8]?
        var traceHeaders: [(String, String)]?
        var poolingOutput: EngineArray?
        var routedExperts: EngineArray?
        var numNaNsInLogits = 0
        var mmCacheMissHashes: [String] = []
        var newSamplingMask: SamplingMask?
        var specDecodeMetrics: RequestSpecDecodeMetrics?
        var promptTokenIDLogprobs: EngineArray?

        init() {}

        init(copying other: Rare) {
            newLogprobs = other.newLogprobs
            newPromptLogprobs = other.newPromptLogprobs
            stopReason = other.stopReason
            events = other.events
            prefillStats = other.prefillStats
            error = other.error
            weightVersion = other.weightVersion
            kvTransferParams = other.kvTransferParams
            ecTransferParams = other.ecTransferParams
            traceHeaders = other.traceHeaders
            poolingOutput = other.poolingOutput
            routedExperts = other.routedExperts
            numNaNsInLogits = other.numNaNsInLogits
            mmCacheMissHashes = other.mmCacheMissHashes
            newSamplingMask = other.newSamplingMask
            specDecodeMetrics = other.specDecodeMetrics
            promptTokenIDLogprobs = other.promptTokenIDLogprobs
        }
    }
}

package enum FinishReason: Int, Sendable {
    case stop = 0
    case length = 1
    case abort = 2
    case error = 3
    case repetition = 4
}

package enum StopReason: Sendable, Equatable {
    /// The stop token that ended the sequence.
    case token(Int)
    case text(String)
}

/// `code`, `message` and whether the client may try again.
package struct EngineRequestError: Sendable, Equatable {
    package var code: String
    package var message: String
    package var retryable: Bool
    package init(code: String, message: String, retryable: Bool) {
        self.code = code
        self.message = message
        self.retryable = retryable
    }
}

/// Log-probabilities of P tokens with K alternatives each; column 0 is the sampled (or prompt) token itself.
package struct LogprobRows: Sendable, Equatable {
    /// P.
    package var rows: Int
    /// K + 1.
    package var columns: Int
    /// [P, K+1], row-major.
    package var tokenIDs: [Int32]
    /// [P, K+1], row-major, natural logarithm.
    package var logprobs: [Float]
    /// [P], 1-based rank of column 0.
    package var ranks: [Int32]
    package init(rows: Int, columns: Int, tokenIDs: [Int32], logprobs: [Float], ranks: [Int32]) {
        self.rows = rows
        self.columns = columns
        self.tokenIDs = tokenIDs
        self.logprobs = logprobs
        self.ranks = ranks
    }
}

package struct EngineCoreEvent: Sendable, Equatable {
    package enum Kind: Int, Sendable { case queued = 1, scheduled = 2, preempted = 3 }
    package var kind: Kind
    /// The engine's CLOCK_MONOTONIC in seconds.
    package var timestamp: Double
    package init(kind: Kind, timestamp: Double) {
        self.kind = kind
        self.timestamp = timestamp
    }
}

/// How the prompt was processed, in tokens.
package struct PrefillStats: Sendable, Equatable {
    package var numPromptTokens = 0
    package var numComputedTokens = 0
    package var numCachedTokens = 0
    package var numLocalCachedTokens = 0
    package var numExternalCachedTokens = 0
    package var numCacheCreationTokens = 0
    package init() {}
}

/// Answer of a utility call.
package struct UtilityOutput: Sendable {
    package var callID: UInt64
    package var failureMessage: String?
    /// The result value as msgpack bytes (without vLLM's type-hint wrapper); nil when void.
    package var result: [UInt8]?
    package init(callID: UInt64, failureMessage: String?, result: [UInt8]?) {
        self.callID = callID
        self.failureMessage = failureMessage
        self.result = result
    }
}

/// The one frame that an engine sends on every output socket before it ends after a fatal error.
package let engineCoreDeadSentinel: StaticString = "ENGINE_CORE_DEAD"
