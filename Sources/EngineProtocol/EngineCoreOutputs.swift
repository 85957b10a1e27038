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
package struct EngineCoreOutput: Sendable {
    package var requestID: String = ""
    package var newTokenIDs: [Int32] = []
    package var newLogprobs: LogprobRows?
    package var newPromptLogprobs: LogprobRows?
    package var finishReason: FinishReason?
    package var stopReason: StopReason?
    package var events: [EngineCoreEvent] = []
    package var prefillStats: PrefillStats?
    /// vLLM 0.33: why ``FinishReason/error`` happened.
    package var error: EngineRequestError?
    /// Opaque `kv_transfer_params`, msgpack bytes.
    package var kvTransferParams: [UInt8]?
    package init() {}
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

package struct PrefillStats: Sendable, Equatable {
    package var numPromptTokens = 0
    package var numComputedTokens = 0
    package var numCachedTokens = 0
    package var numLocalCachedTokens = 0
    package var numExternalCachedTokens = 0
    package var numCacheCreationTokens = 0
    package init() {}
}

/// Gauges and per-message counter deltas of one engine (vLLM: `SchedulerStats`).
package struct SchedulerStats: Sendable, Equatable {
    package var numRunningReqs = 0
    package var numWaitingReqs = 0
    package var numSkippedWaitingReqs = 0
    package var stepCounter = 0
    package var currentWave = 0
    /// 0...1
    package var kvCacheUsage = 0.0
    package var prefixCacheStats = PrefixCacheStats()
    package init() {}
}

/// Deltas since the previous message; queries and hits count tokens.
package struct PrefixCacheStats: Sendable, Equatable {
    package var reset = false
    package var requests = 0
    package var queries = 0
    package var hits = 0
    package var preemptedRequests = 0
    package var preemptedQueries = 0
    package var preemptedHits = 0
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
