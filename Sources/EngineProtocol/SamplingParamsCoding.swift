import MessagePack

extension SamplingParams {
    /// Appends the map. Keys whose value is the default stay out, as every vLLM engine fills them in; floats are 64 bits
    /// wide as Python writes them. A ``maxTokens`` of `Int.max` becomes nil (no limit).
    package func encode(into output: inout [UInt8], family: ProtocolFamily = .newest) {
        let header = output.count
        // A map16 header, filled in at the end: the number of keys is only known then, and is below 65536.
        output.append(contentsOf: [0xde, 0, 0])
        var writer = MapWriter()
        writer.pack(&output, "presence_penalty", presencePenalty, unless: 0)
        writer.pack(&output, "frequency_penalty", frequencyPenalty, unless: 0)
        writer.pack(&output, "repetition_penalty", repetitionPenalty, unless: 1)
        writer.pack(&output, "temperature", temperature, unless: 1)
        writer.pack(&output, "top_p", topP, unless: 1)
        writer.pack(&output, "top_k", topK, unless: 0)
        writer.pack(&output, "min_p", minP, unless: 0)
        writer.pack(&output, "seed", seed.map { Int($0) })
        writer.pack(&output, "stop_token_ids", stopTokenIDs.isEmpty ? nil : stopTokenIDs)
        if ignoreEOS { writer.pack(&output, "ignore_eos") { $0.pack(true) } }
        writer.pack(&output, "max_tokens") { $0.pack(optional: maxTokens == .max ? nil : maxTokens) }
        writer.pack(&output, "min_tokens", minTokens, unless: 0)
        writer.pack(&output, "logprobs", logprobs)
        writer.pack(&output, "prompt_logprobs", promptLogprobs)
        writer.pack(&output, "logprob_token_ids", logprobTokenIDs)
        if let ids = promptLogprobTokenIDs {
            writer.pack(&output, "prompt_logprob_token_ids") { output in
                // Inline at any size: engines take either form, and this needs no frame of its own.
                output.packArrayHeader(3)
                output.pack("<i4")
                output.pack(integers: [ids.rows, ids.columns])
                EngineArray.bytes(ids.values).withUnsafeBytes { output.pack(ext: rawViewExtType, $0) }
            }
        }
        writer.pack(&output, "prompt_logprob_start", promptLogprobStart)
        writer.pack(&output, "_eos_token_id", eosTokenID.map { Int($0) })
        writer.pack(&output, "_all_stop_token_ids", allStopTokenIDs.isEmpty ? nil : allStopTokenIDs)
        if let structuredOutputs {
            writer.pack(&output, "structured_outputs") { structuredOutputs.encode(into: &$0, family: family) }
        }
        if let logitBias {
            writer.pack(&output, "logit_bias") { output in
                output.packMapHeader(logitBias.count)
                for (token, bias) in logitBias {
                    output.pack(Int(token))
                    output.pack(bias)
                }
            }
        }
        writer.pack(&output, "allowed_token_ids", allowedTokenIDs)
        if !badWords.isEmpty {
            writer.pack(&output, "bad_words") { output in
                output.packArrayHeader(badWords.count)
                for word in badWords { output.pack(word) }
            }
        }
        if let badWordsTokenIDs {
            writer.pack(&output, "_bad_words_token_ids") { output in
                output.packArrayHeader(badWordsTokenIDs.count)
                for ids in badWordsTokenIDs { output.pack(ids) }
            }
        }
        if let skipReadingPrefixCache {
            writer.pack(&output, "skip_reading_prefix_cache") { $0.pack(skipReadingPrefixCache) }
        }
        writer.pack(&output, "routed_experts_prompt_start", routedExpertsPromptStart, unless: 0)
        writer.pack(&output, "thinking_token_budget", thinkingTokenBudget)
        if let detection = repetitionDetection {
            writer.pack(&output, "repetition_detection") { output in
                output.packMapHeader(3)
                output.pack(key: "max_pattern_size")
                output.pack(detection.maxPatternSize)
                output.pack(key: "min_pattern_size")
                output.pack(detection.minPatternSize)
                output.pack(key: "min_count")
                output.pack(detection.minCount)
            }
        }
        if let extraArgs { writer.pack(&output, "extra_args") { $0.append(contentsOf: extraArgs) } }
        output[header + 2] = UInt8(truncatingIfNeeded: writer.pairs)
    }

    /// Decodes as an engine would: every key may be missing, unknown ones are passed over.
    package init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() {
                if "max_tokens" ~= key { maxTokens = .max }
                continue
            }
            switch key {
            case "presence_penalty": presencePenalty = try reader.readDouble()
            case "frequency_penalty": frequencyPenalty = try reader.readDouble()
            case "repetition_penalty": repetitionPenalty = try reader.readDouble()
            case "temperature": temperature = try reader.readDouble()
            case "top_p": topP = try reader.readDouble()
            case "top_k": topK = try reader.readInt()
            case "min_p": minP = try reader.readDouble()
            case "seed": seed = Int64(try reader.readInt())
            case "stop_token_ids": stopTokenIDs = try reader.readTokenIDs()
            case "ignore_eos": ignoreEOS = try reader.readBool()
            case "max_tokens": maxTokens = try reader.readInt()
            case "min_tokens": minTokens = try reader.readInt()
            case "logprobs": logprobs = try reader.readInt()
            case "prompt_logprobs": promptLogprobs = try reader.readInt()
            case "logprob_token_ids": logprobTokenIDs = try reader.readTokenIDs()
            case "_eos_token_id": eosTokenID = try reader.readInt32()
            case "_all_stop_token_ids": allStopTokenIDs = try reader.readTokenIDs()
            case "structured_outputs": structuredOutputs = try StructuredOutputs(decoding: &reader)
            case "logit_bias":
                var biases: [(Int32, Double)] = []
                for _ in 0..<(try reader.readMapHeader()) {
                    biases.append((try reader.readInt32(), try reader.readDouble()))
                }
                logitBias = biases
            case "allowed_token_ids": allowedTokenIDs = try reader.readTokenIDs()
            case "bad_words": badWords = try reader.readArray { r throws(MessagePackError) in try r.readString() }
            case "_bad_words_token_ids":
                badWordsTokenIDs = try reader.readArray { r throws(MessagePackError) in try r.readTokenIDs() }
            case "skip_reading_prefix_cache": skipReadingPrefixCache = try reader.readBool()
            case "routed_experts_prompt_start": routedExpertsPromptStart = try reader.readInt()
            case "prompt_logprob_start": promptLogprobStart = try reader.readInt()
            case "prompt_logprob_token_ids": promptLogprobTokenIDs = try TokenIDMatrix(decoding: &reader)
            case "thinking_token_budget": thinkingTokenBudget = try reader.readInt()
            case "repetition_detection": repetitionDetection = try RepetitionDetection(decoding: &reader)
            case "extra_args": extraArgs = [UInt8](try reader.readRaw())
            default: try reader.skip()
            }
        }
    }

    /// What a vLLM engine would refuse, or nil. A real engine checks while decoding and goes deaf for good when a check
    /// fails, so nothing that this names may be sent.
    package func violation() -> String? {
        if !(-2...2).contains(presencePenalty) { return "presence_penalty must be in [-2, 2], got \(presencePenalty)." }
        if !(-2...2).contains(frequencyPenalty) {
            return "frequency_penalty must be in [-2, 2], got \(frequencyPenalty)."
        }
        if !(repetitionPenalty.isFinite && repetitionPenalty > 0) {
            return "repetition_penalty must be greater than zero and finite, got \(repetitionPenalty)."
        }
        if !(0...2).contains(temperature) { return "temperature must be in [0, 2], got \(temperature)." }
        if !(topP > 0 && topP <= 1) { return "top_p must be in (0, 1], got \(topP)." }
        if topK < -1 { return "top_k must be 0 or -1 (disable), or at least 1, got \(topK)." }
        if !(0...1).contains(minP) { return "min_p must be in [0, 1], got \(minP)." }
        if maxTokens < 1 { return "max_tokens must be at least 1, got \(maxTokens)." }
        if minTokens < 0 || minTokens > maxTokens {
            return "min_tokens must be between 0 and max_tokens=\(maxTokens), got \(minTokens)."
        }
        if let logprobs, logprobs < -1 { return "logprobs must be non-negative or -1, got \(logprobs)." }
        if let promptLogprobs, promptLogprobs < -1 {
            return "prompt_logprobs must be non-negative or -1, got \(promptLogprobs)."
        }
        if badWords.contains("") { return "bad_words cannot contain an empty string." }
        if let detection = repetitionDetection, detection.isInvalid { return "repetition_detection is out of range." }
        if let extraArgs, !extraArgs.isSingleMessagePackValue(.map) { return "extra_args is not a map." }
        return nil
    }
}

extension TokenIDMatrix {
    /// Only arrays whose bytes are in the message itself, as our encoder writes them.
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        let start = reader.offset
        let array = try EncodedArray(decoding: &reader, frames: NoFrames())
        guard array.shape.count == 2, let values = array.int32Values() else {
            throw MessagePackError(.invalid("prompt_logprob_token_ids of shape \(array.shape)"), offset: start)
        }
        self.init(rows: array.shape[0], columns: array.shape[1], values: values)
    }
}

extension RepetitionDetection {
    var isInvalid: Bool {
        minPatternSize < 0 || maxPatternSize < minPatternSize || (maxPatternSize > 0 && minCount < 2)
    }

    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init(maxPatternSize: 0, minPatternSize: 0, minCount: 0)
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "max_pattern_size": maxPatternSize = try reader.readInt()
            case "min_pattern_size": minPatternSize = try reader.readInt()
            case "min_count": minCount = try reader.readInt()
            default: try reader.skip()
            }
        }
    }
}

/// Writes the pairs of a map and counts them.
struct MapWriter {
    private(set) var pairs = 0

    mutating func pack(_ output: inout [UInt8], _ key: StaticString, _ value: (inout [UInt8]) -> Void) {
        pairs += 1
        output.pack(key: key)
        value(&output)
    }

    mutating func pack(_ output: inout [UInt8], _ key: StaticString, _ value: Double, unless standard: Double) {
        if value != standard { pack(&output, key) { $0.pack(value) } }
    }

    mutating func pack(_ output: inout [UInt8], _ key: StaticString, _ value: Int, unless standard: Int) {
        if value != standard { pack(&output, key) { $0.pack(value) } }
    }

    mutating func pack(_ output: inout [UInt8], _ key: StaticString, _ value: Int?) {
        if let value { pack(&output, key) { $0.pack(value) } }
    }

    mutating func pack(_ output: inout [UInt8], _ key: StaticString, _ value: [Int32]?) {
        if let value { pack(&output, key) { $0.pack(value) } }
    }
}

extension MessagePackReader {
    mutating func readTokenIDs() throws(MessagePackError) -> [Int32] {
        try readArray { r throws(MessagePackError) in try r.readInt32() }
    }
}
