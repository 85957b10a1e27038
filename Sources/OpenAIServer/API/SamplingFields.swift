import EngineProtocol
import JSONBytes
import Text

/// The sampling fields that completions and chat share, as the client sent them (nil = not given).
///
/// Mirrors the sampling part of vLLM's `CompletionRequest` and `ChatCompletionRequest`.
struct SamplingFields {
    var temperature: Double?
    var topP: Double?
    var topK: Int?
    var minP: Double?
    var repetitionPenalty: Double?
    var presencePenalty: Double?
    var frequencyPenalty: Double?
    var seed: Int?
    var n: Int
    var stop: [String]
    var stopTokenIDs: [Int32]
    var includeStopString: Bool
    var ignoreEOS: Bool
    var minTokens: Int
    var skipSpecialTokens: Bool
    var spacesBetweenSpecialTokens: Bool
    var logitBias: JSONObject?
    var allowedTokenIDs: [Int32]?
    var badWords: [String]
    var promptLogprobs: Int?
    var logprobTokenIDs: [Int32]?
    var routedExpertsPromptStart: Int
    var truncatePromptTokens: Int?
    var truncationSide: TruncationSide
    var cacheSalt: String?
    var priority: Int
    var thinkingTokenBudget: Int?
    var repetitionDetection: RepetitionDetection?
    var structuredOutputs: StructuredOutputs?
    var extraArgs: JSONObject?
    var stream: Bool
    var streamOptions: StreamOptions?
    var streamInterval: Int?
    var returnTokenIDs: Bool
    var returnTokensAsTokenIDs: Bool?
    var requestID: String?
    var sessionID: String?
    var model: String?

    enum TruncationSide: String { case left, right }

    struct StreamOptions {
        var includeUsage = false
        var continuousUsageStats = false
        var isEmpty = true

        /// Usage in every chunk counts only together with usage at all.
        var continuousUsage: Bool { includeUsage && continuousUsageStats }
    }

    /// - Parameter isGenerate: of `/inference/v1/generate`, which has fewer rules between fields.
    init(_ reader: inout FieldReader, limits: APILimits, isGenerate: Bool = false) {
        reader.refuseNull(
            "include_stop_str_in_output", "ignore_eos", "min_tokens", "skip_special_tokens",
            "spaces_between_special_tokens", "add_special_tokens", "bad_words", "priority", "request_id",
            "use_beam_search", "length_penalty", "routed_experts_prompt_start")
        model = reader.string("model")
        // Only their types matter: nothing here knows users or watermarks.
        _ = reader.string("user")
        _ = reader.bool("watermarking")
        _ = reader.double("length_penalty")
        temperature = reader.double("temperature")
        topP = reader.double("top_p")
        topK = reader.int("top_k")
        minP = reader.double("min_p")
        repetitionPenalty = reader.double("repetition_penalty")
        presencePenalty = reader.double("presence_penalty")
        frequencyPenalty = reader.double("frequency_penalty")
        seed = reader.int("seed")
        n = reader.int("n") ?? 1
        stop = Self.readStop(&reader, limit: limits.maximumStopStrings)
        stopTokenIDs = reader.tokenIDs("stop_token_ids") ?? []
        includeStopString = reader.bool("include_stop_str_in_output") ?? false
        ignoreEOS = reader.bool("ignore_eos") ?? false
        minTokens = reader.int("min_tokens") ?? 0
        skipSpecialTokens = reader.bool("skip_special_tokens") ?? true
        spacesBetweenSpecialTokens = reader.bool("spaces_between_special_tokens") ?? true
        logitBias = reader.object("logit_bias")
        allowedTokenIDs = reader.tokenIDs("allowed_token_ids")
        badWords = reader.strings("bad_words") ?? []
        promptLogprobs = Self.readCount("prompt_logprobs", &reader)
        logprobTokenIDs = isGenerate ? reader.tokenIDs("logprob_token_ids") : Self.readLogprobTokenIDs(&reader)
        routedExpertsPromptStart = reader.int("routed_experts_prompt_start", minimum: 0) ?? 0
        truncatePromptTokens = reader.int("truncate_prompt_tokens", minimum: -1)
        truncationSide = .left
        if let side = reader.string("truncation_side") {
            if let known = TruncationSide(rawValue: side) {
                truncationSide = known
            } else {
                reader.report("truncation_side", "Input should be 'left' or 'right'")
            }
        }
        cacheSalt = Self.readCacheSalt(&reader)
        priority = reader.int("priority") ?? 0
        thinkingTokenBudget = Self.readBudget(&reader)
        stream = reader.bool("stream") ?? false
        streamInterval = reader.int("stream_interval", minimum: 1)
        returnTokenIDs = reader.bool("return_token_ids") ?? false
        returnTokensAsTokenIDs = reader.bool("return_tokens_as_token_ids")
        requestID = reader.string("request_id")
        sessionID = reader.string("session_id")
        if !stream, !isGenerate, FieldReader.isTrue(reader.value("stream_options")) {
            reader.reportRule(
                .badRequest("Stream options can only be defined when `stream=True`.", param: "stream_options"))
        } else if let options = reader.object("stream_options") {
            var nested = FieldReader(options, path: "body.stream_options")
            streamOptions = StreamOptions(
                includeUsage: nested.bool("include_usage") ?? false,
                continuousUsageStats: nested.bool("continuous_usage_stats") ?? false,
                isEmpty: options.isEmpty)
            reader.absorb(nested)
        }
        if let detection = reader.object("repetition_detection") {
            var nested = FieldReader(detection, path: "body.repetition_detection")
            repetitionDetection = RepetitionDetection(
                maxPatternSize: nested.int("max_pattern_size") ?? 0,
                minPatternSize: nested.int("min_pattern_size") ?? 0, minCount: nested.int("min_count") ?? 0)
            reader.absorb(nested)
        }
        structuredOutputs = StructuredOutputsFields.read(&reader)
        extraArgs = Self.readExtraArgs(&reader)
    }

    /// Numbers that the Python server checks before its type conversion, so that text is no number here.
    static func readCount(_ key: String, _ reader: inout FieldReader) -> Int? {
        switch reader.value(key) {
        case .number, .bool, nil: return reader.int(key)
        case .string(let text):
            reader.reportRule(.badRequest("`\(key)` must be an integer.", param: key, value: text))
        default: reader.reportRule(.badRequest("`\(key)` must be an integer.", param: key))
        }
        return nil
    }

    /// Here not even a whole number with a fraction counts, nor a truth value.
    private static func readBudget(_ reader: inout FieldReader) -> Int? {
        guard let value = reader.value("thinking_token_budget") else { return nil }
        if case .number(let number) = value, number.isInteger, let budget = number.intValue, budget >= -1 {
            return budget
        }
        reader.reportRule(
            .badRequest(
                "`thinking_token_budget` must be a non-negative integer or -1 for unlimited.",
                param: "thinking_token_budget"))
        return nil
    }

    private static func readLogprobTokenIDs(_ reader: inout FieldReader) -> [Int32]? {
        if FieldReader.isTrue(reader.value("logprob_token_ids")),
            [nil, .bool(false)].contains(reader.value("logprobs"))
        {
            reader.reportRule(
                .badRequest("when using `logprob_token_ids`, `logprobs` must be set.", param: "logprob_token_ids"))
            return nil
        }
        return reader.tokenIDs("logprob_token_ids")
    }

    private static func readCacheSalt(_ reader: inout FieldReader) -> String? {
        guard let value = reader.value("cache_salt") else { return nil }
        if let salt = value.stringValue { return salt }
        reader.reportRule(
            .badRequest("Parameter 'cache_salt' must be a non-empty string if provided.", param: "cache_salt"))
        return nil
    }

    private static func isExtraArgument(_ value: JSONValue) -> Bool {
        switch value {
        case .string, .number, .bool: true
        case .array(let elements):
            elements.allSatisfy { element in
                switch element {
                case .string, .number, .bool: true
                default: false
                }
            }
        default: false
        }
    }

    private static func readStop(_ reader: inout FieldReader, limit: Int) -> [String] {
        guard let value = reader.value("stop") else { return [] }
        switch value {
        case .string(let string): return [string]
        case .array(let elements):
            guard elements.count <= limit else {
                reader.report("stop", "List should have at most \(limit) items after validation, not \(elements.count)")
                return []
            }
            let strings = elements.compactMap(\.stringValue)
            // The Python server reports the field, whichever element is wrong.
            if strings.count < elements.count { reader.report("stop", "Input should be a list of strings") }
            return strings
        default:
            reader.report("stop", "Input should be a valid string or a list of strings")
            return []
        }
    }

    /// `vllm_xargs` plus the transfer parameters: one object that engines see as `extra_args`.
    private static func readExtraArgs(_ reader: inout FieldReader) -> JSONObject? {
        var merged = reader.object("vllm_xargs") ?? JSONObject()
        for (key, value) in merged.pairs where !isExtraArgument(value) {
            reader.report("vllm_xargs.\(key.prefix(64))", "Input should be a string, a number or a list of these")
        }
        for key in ["kv_transfer_params", "ec_transfer_params"] {
            if let parameters = reader.object(key) { merged[key] = .object(parameters) }
        }
        return merged.isEmpty ? nil : merged
    }
}

/// Bounds that the server's environment and flags set on request fields.
struct APILimits: Sendable {
    /// VLLM_MAX_STOP_STRINGS.
    var maximumStopStrings = 4
    /// `--max-logprobs`; -1 = no limit.
    var maximumLogprobs = 20
    /// VLLM_MAX_COMPLETION_PROMPTS.
    var maximumPrompts = 2048
    /// VLLM_MAX_N_SEQUENCES: sequences per request.
    var maximumSequences = 16384
}
