import Chat
import EngineProtocol
import JSONBytes
import Text

/// Checks sampling fields against the ranges that engines insist on and lowers them to ``SamplingParams``.
///
/// A real engine validates while it decodes and goes deaf on a violation, so nothing out of range may leave the frontend.
/// The ranges and the `param` of each error are those of vLLM's `SamplingParams` checks.
struct SamplingRules {
    let limits: APILimits
    let model: ServedModel
    /// What requests leave open.
    var defaults: GenerationDefaults

    init(limits: APILimits, model: ServedModel) {
        self.limits = limits
        self.model = model
        defaults = model.generationDefaults
    }

    /// Rules between fields that need neither the model name nor the prompt.
    /// - Parameter promptLogprobs: what the client asked for, without what an echo adds.
    func checkFields(_ fields: SamplingFields, logprobs: Int?, promptLogprobs: Int?) throws(APIError) {
        if let options = fields.streamOptions, !fields.stream, !options.isEmpty {
            throw .badRequest("Stream options can only be defined when `stream=True`.", param: "stream_options")
        }
        if let count = promptLogprobs {
            if fields.stream, count != 0 {
                throw .badRequest(
                    "`prompt_logprobs` are not available when `stream=True`.", param: "prompt_logprobs")
            }
            if count < -1 {
                throw .badRequest(
                    "`prompt_logprobs` must be a positive value or -1.", param: "prompt_logprobs", value: count)
            }
        }
        if let logprobs, logprobs < -1 {
            throw .badRequest("`logprobs` must be a positive value or -1.", param: "logprobs", value: logprobs)
        }
        if fields.logprobTokenIDs?.isEmpty == false, logprobs == nil {
            throw .badRequest(
                "when using `logprob_token_ids`, `logprobs` must be set.", param: "logprob_token_ids")
        }
        if let salt = fields.cacheSalt {
            if salt.isEmpty {
                throw .badRequest("Parameter 'cache_salt' must be a non-empty string if provided.", param: "cache_salt")
            }
            if salt.unicodeScalars.count > 128 || salt.utf8.contains(where: { [0x40, 0x2F, 0x5C, 0].contains($0) }) {
                throw .badRequest(
                    "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', '/', '\\', or NUL.",
                    param: "cache_salt")
            }
        }
    }

    /// Everything of ``SamplingParams`` but the fields that depend on one prompt (`maxTokens`, per-sequence seed).
    func lower(_ fields: SamplingFields, maxTokens: Int, logprobs: Int?) throws(APIError) -> SamplingParams {
        var params = SamplingParams()
        try lowerNumbers(fields, maxTokens: maxTokens, into: &params)
        try lowerTokenLists(fields, into: &params)
        try lowerLogprobs(fields, logprobs: logprobs, into: &params)
        lowerStops(fields, into: &params)
        if let detection = fields.repetitionDetection {
            let off = detection.maxPatternSize == 0
            guard detection.minPatternSize >= 0, detection.maxPatternSize >= detection.minPatternSize,
                off || detection.minCount >= 2
            else {
                throw .badRequest(
                    "repetition_detection needs 0 <= min_pattern_size <= max_pattern_size and min_count >= 2.")
            }
            params.repetitionDetection = off ? nil : detection
        }
        params.structuredOutputs = fields.structuredOutputs
        if let budget = fields.thinkingTokenBudget, budget != -1 {
            guard model.parsers.hasReasoning else {
                throw .badRequest("thinking_token_budget needs a model that reasons: set --reasoning-parser.")
            }
            params.thinkingTokenBudget = budget
        }
        if let extra = fields.extraArgs {
            params.extraArgs = try ExtraArgs.encode(extra)
        }
        return params
    }

    private func lowerNumbers(_ fields: SamplingFields, maxTokens: Int, into params: inout SamplingParams)
        throws(APIError)
    {
        params.temperature = fields.temperature ?? defaults.temperature ?? 1
        params.topP = fields.topP ?? defaults.topP ?? 1
        params.topK = fields.topK ?? defaults.topK ?? 0
        params.minP = fields.minP ?? defaults.minP ?? 0
        params.repetitionPenalty = fields.repetitionPenalty ?? defaults.repetitionPenalty ?? 1
        params.presencePenalty = fields.presencePenalty ?? defaults.presencePenalty ?? 0
        params.frequencyPenalty = fields.frequencyPenalty ?? defaults.frequencyPenalty ?? 0
        params.minTokens = fields.minTokens
        params.maxTokens = maxTokens
        params.ignoreEOS = fields.ignoreEOS

        guard fields.n >= 1 else { throw .badRequest("n must be at least 1, got \(fields.n).") }
        guard fields.n <= limits.maximumSequences else {
            throw .badRequest("n must be at most \(limits.maximumSequences), got \(fields.n).")
        }
        for (name, value) in [
            ("presence_penalty", params.presencePenalty), ("frequency_penalty", params.frequencyPenalty),
        ] {
            guard value >= -2, value <= 2 else {
                throw .badRequest("\(name) must be in [-2, 2], got \(PythonNumber.text(value)).")
            }
        }
        guard params.repetitionPenalty > 0, params.repetitionPenalty.isFinite else {
            throw .badRequest(
                "repetition_penalty must be greater than zero, got \(PythonNumber.text(params.repetitionPenalty)).")
        }
        guard params.temperature >= 0 else {
            throw .badRequest(
                "temperature must be non-negative, got \(PythonNumber.text(params.temperature)).", param: "temperature",
                value: params.temperature)
        }
        guard params.temperature <= 2 else {
            throw .badRequest(
                "temperature must be at most 2, got \(PythonNumber.text(params.temperature)).", param: "temperature",
                value: params.temperature)
        }
        guard params.topP > 0, params.topP <= 1 else {
            throw .badRequest(
                "top_p must be in (0, 1], got \(PythonNumber.text(params.topP)).", param: "top_p", value: params.topP)
        }
        guard params.topK >= -1 else {
            throw .badRequest("top_k must be 0 (disable), or at least 1, got \(params.topK).")
        }
        // More than there are tokens is all of them; engines read 32 bits.
        params.topK = min(params.topK, Int(Int32.max))
        guard params.minP >= 0, params.minP <= 1 else {
            throw .badRequest("min_p must be in [0, 1], got \(PythonNumber.text(params.minP)).")
        }
        guard params.minTokens >= 0 else {
            throw .badRequest("min_tokens must be greater than or equal to 0, got \(params.minTokens).")
        }
        guard params.minTokens <= maxTokens else {
            throw .badRequest(
                "min_tokens must be less than or equal to max_tokens=\(maxTokens), got \(params.minTokens).")
        }
        if params.temperature < 1e-5, fields.n > 1 {
            throw .badRequest("n must be 1 when using greedy sampling, got \(fields.n).")
        }
        if let seed = fields.seed { params.seed = seed == -1 ? nil : Int64(seed) }
        // A greedy request ignores the other filters; sending them would only make engines normalise again.
        if params.temperature < 1e-5 {
            params.temperature = 0
            params.topP = 1
            params.topK = 0
            params.minP = 0
        }
    }

    private func lowerTokenLists(_ fields: SamplingFields, into params: inout SamplingParams) throws(APIError) {
        let vocabulary = model.vocabularySize
        if let bias = fields.logitBias, !bias.isEmpty {
            var pairs: [(Int32, Double)] = []
            var badKeys: [String] = []
            for (key, value) in bias.pairs {
                guard let id = Int(key.trimmingSpaces()) else {
                    badKeys.append(key)
                    continue
                }
                guard id >= 0, id < vocabulary else {
                    throw .badRequest(
                        "token_id(s) [\(id)] in logit_bias contain out-of-vocab token ids. Vocabulary size: \(vocabulary)",
                        param: "logit_bias")
                }
                guard let weight = FieldReader.double(value), !weight.isNaN else {
                    throw .invalidBody(
                        "1 validation error:\n  body.logit_bias.\(key): Input should be a valid number",
                        param: "body.logit_bias.\(key)")
                }
                pairs.append((Int32(id), min(100, max(-100, weight))))
            }
            guard badKeys.isEmpty else {
                throw .badRequest(
                    "logit_bias contains key(s) that cannot be converted to integer token IDs: "
                        + badKeys.prefix(5).map { $0.prefix(50) }.joined(separator: ", "), param: "logit_bias")
            }
            params.logitBias = pairs
        }
        if let allowed = fields.allowedTokenIDs {
            guard !allowed.isEmpty else {
                throw .badRequest("allowed_token_ids is not None and empty!", param: "allowed_token_ids")
            }
            guard allowed.allSatisfy({ $0 >= 0 && $0 < vocabulary }) else {
                throw .badRequest("allowed_token_ids contains out-of-vocab token id!", param: "allowed_token_ids")
            }
            params.allowedTokenIDs = allowed
        }
        guard fields.stopTokenIDs.allSatisfy({ $0 >= 0 && $0 < vocabulary }) else {
            throw .badRequest("stop_token_ids contains out-of-vocab token id!", param: "stop_token_ids")
        }
        if !fields.badWords.isEmpty {
            guard fields.badWords.allSatisfy({ !$0.isEmpty }) else {
                throw .badRequest("bad_words cannot contain an empty string.")
            }
            params.badWords = fields.badWords
            params.badWordsTokenIDs = try model.badWordsTokenIDs(fields.badWords)
        }
    }

    private func lowerLogprobs(_ fields: SamplingFields, logprobs: Int?, into params: inout SamplingParams)
        throws(APIError)
    {
        let maximum = limits.maximumLogprobs
        func check(_ count: Int, _ kind: String, _ param: String) throws(APIError) {
            let effective = count == -1 ? model.vocabularySize : count
            if maximum != -1, effective > maximum {
                throw .badRequest(
                    "Requested \(kind) logprobs of \(effective), which is greater than max allowed: \(maximum)",
                    param: param, value: count)
            }
        }
        if let logprobs { try check(logprobs, "sample", "logprobs") }
        if let promptLogprobs = fields.promptLogprobs { try check(promptLogprobs, "prompt", "prompt_logprobs") }
        if let ids = fields.logprobTokenIDs, !ids.isEmpty {
            guard ids.count <= max(maximum, 0) || maximum == -1 else {
                throw .badRequest(
                    "logprob_token_ids has \(ids.count) ids, which is greater than max allowed: \(maximum)",
                    param: "logprob_token_ids")
            }
            guard ids.allSatisfy({ $0 >= 0 && $0 < model.vocabularySize }) else {
                throw .badRequest("logprob_token_ids contains out-of-vocab token id!", param: "logprob_token_ids")
            }
            params.logprobTokenIDs = ids
        }
        params.logprobs = logprobs
        params.promptLogprobs = fields.promptLogprobs
        params.routedExpertsPromptStart = fields.routedExpertsPromptStart
    }

    private func lowerStops(_ fields: SamplingFields, into params: inout SamplingParams) {
        var stopIDs = fields.stopTokenIDs
        if !fields.ignoreEOS {
            for id in model.extraEOSTokenIDs where !stopIDs.contains(id) { stopIDs.append(id) }
            params.eosTokenID = model.eosTokenID
        }
        params.stopTokenIDs = stopIDs
        var all = Set(stopIDs)
        if let eos = model.eosTokenID { all.insert(eos) }
        params.allStopTokenIDs = all.sorted()
    }

    /// Stop strings: checked here because the engine never sees them.
    func checkStopStrings(_ stop: [String]) throws(APIError) {
        if stop.contains("") { throw .badRequest("stop cannot contain an empty string.") }
    }
}

/// Numbers in messages, spelled as Python prints floats.
enum PythonNumber {
    static func text(_ value: Double) -> String {
        value.isNaN ? "nan" : value.isInfinite ? (value < 0 ? "-inf" : "inf") : "\(value)"
    }
}
