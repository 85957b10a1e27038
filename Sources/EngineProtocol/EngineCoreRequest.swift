/// One generation request as it travels to an engine (vLLM: `EngineCoreRequest`, a positional msgpack array).
///
/// Field order and meaning are vLLM's; the encoder writes the length that the chosen ``ProtocolFamily`` uses.
package struct EngineCoreRequest: Sendable {
    /// Internal id, unique among running requests.
    package var requestID: String
    package var promptTokenIDs: [Int32]
    package var samplingParams: SamplingParams
    /// Unix time in seconds.
    package var arrivalTime: Double
    package var cacheSalt: String?
    /// Explicit engine rank; it steers routing in the client, engines ignore it.
    package var dataParallelRank: Int?
    /// Index of the output socket that the engine answers on.
    package var clientIndex: Int = 0
    package var currentWave: Int = 0
    /// Lower values are scheduled earlier when the engine uses the priority policy.
    package var priority: Int = 0
    package var traceHeaders: [(String, String)]?
    /// The id that the client sees.
    package var externalRequestID: String?
    package var reasoningEnded: Bool?
    package var sessionID: String?

    package init(requestID: String, promptTokenIDs: [Int32], samplingParams: SamplingParams, arrivalTime: Double) {
        self.requestID = requestID
        self.promptTokenIDs = promptTokenIDs
        self.samplingParams = samplingParams
        self.arrivalTime = arrivalTime
    }
}

/// Sampling parameters of one sequence (vLLM: `SamplingParams`, a msgpack map; absent keys mean the default).
package struct SamplingParams: Sendable, Equatable {
    package var presencePenalty = 0.0
    package var frequencyPenalty = 0.0
    package var repetitionPenalty = 1.0
    /// 0 means greedy.
    package var temperature = 1.0
    package var topP = 1.0
    /// 0 or -1 switches it off.
    package var topK = 0
    package var minP = 0.0
    package var seed: Int64?
    package var stopTokenIDs: [Int32] = []
    package var ignoreEOS = false
    /// Already clamped to the context length by the frontend.
    package var maxTokens: Int = 16
    package var minTokens = 0
    /// Number of alternatives per token; -1 = whole vocabulary, 0 = only the sampled token, nil = none.
    package var logprobs: Int?
    package var promptLogprobs: Int?
    package var logprobTokenIDs: [Int32]?
    /// Ids to score at each prompt position from ``promptLogprobStart`` on, -1 = none; vLLM 0.32 and later.
    package var promptLogprobTokenIDs: TokenIDMatrix?
    package var promptLogprobStart: Int?
    package var eosTokenID: Int32?
    package var allStopTokenIDs: [Int32] = []
    package var structuredOutputs: StructuredOutputs?
    package var logitBias: [(Int32, Double)]?
    package var allowedTokenIDs: [Int32]?
    package var badWords: [String] = []
    package var badWordsTokenIDs: [[Int32]]?
    package var skipReadingPrefixCache: Bool?
    /// Prompt tokens whose experts are not told.
    package var routedExpertsPromptStart = 0
    package var thinkingTokenBudget: Int?
    package var repetitionDetection: RepetitionDetection?
    /// Passed through to the engine (`vllm_xargs`, `kv_transfer_params` …), already encoded as one msgpack map.
    package var extraArgs: [UInt8]?

    package init() {}

    package static func == (a: SamplingParams, b: SamplingParams) -> Bool {
        var encoderA = [UInt8](), encoderB = [UInt8]()
        a.encode(into: &encoderA)
        b.encode(into: &encoderB)
        return encoderA == encoderB
    }
}

/// [rows, columns] of token ids.
package struct TokenIDMatrix: Sendable, Equatable {
    package var rows: Int
    package var columns: Int
    /// Row by row.
    package var values: [Int32]
    package init(rows: Int, columns: Int, values: [Int32]) {
        self.rows = rows
        self.columns = columns
        self.values = values
    }
}

/// `{max_pattern_size, min_pattern_size, min_count}`: the engine finishes with ``FinishReason/repetition``.
package struct RepetitionDetection: Sendable, Equatable {
    package var maxPatternSize: Int
    package var minPatternSize: Int
    package var minCount: Int
    package init(maxPatternSize: Int, minPatternSize: Int, minCount: Int) {
        self.maxPatternSize = maxPatternSize
        self.minPatternSize = minPatternSize
        self.minCount = minCount
    }
}

/// A grammar constraint (vLLM: `StructuredOutputsParams`).
package struct StructuredOutputs: Sendable, Equatable {
    package enum Constraint: Sendable, Equatable {
        /// A JSON schema as JSON text.
        case json(String)
        case regex(String)
        case choice([String])
        /// EBNF text.
        case grammar(String)
        case jsonObject
        /// A structural tag as JSON text.
        case structuralTag(String)
    }
    package var constraint: Constraint
    package var disableAnyWhitespace = false
    package var disableAdditionalProperties = false
    package var whitespacePattern: String?
    /// `_backend` on the wire; engines keep the first one they see for their lifetime.
    package var backend = "xgrammar"
    package init(constraint: Constraint) { self.constraint = constraint }
}
