import JSONBytes

/// Body of `POST /v1/completions` (vLLM: `CompletionRequest`).
struct CompletionRequest {
    enum Prompt: Equatable {
        case text(String)
        case tokens([Int32])
    }

    var prompts: [Prompt]
    var sampling: SamplingFields
    var maxTokens: Int
    var logprobs: Int?
    /// `prompt_logprobs` of the client; an echo with logprobs needs them without asking.
    var promptLogprobsAsked: Int?
    var echo: Bool
    var addSpecialTokens: Bool

    /// - Parameter promptTokens: the prompt, if it was one list of token ids and is not in `body` for that reason.
    init(_ body: JSONObject, promptTokens: [Int32]? = nil, limits: APILimits) throws(APIError) {
        var reader = FieldReader(body)
        sampling = SamplingFields(&reader, limits: limits)
        prompts = promptTokens.map { [.tokens($0)] } ?? Self.readPrompts(&reader, limits: limits)
        reader.refuseNull("n")
        maxTokens = reader.int("max_tokens", saturating: true) ?? 16
        logprobs = SamplingFields.readCount("logprobs", &reader)
        echo = reader.bool("echo") ?? false
        addSpecialTokens = reader.bool("add_special_tokens") ?? true
        let beamSearch = reader.bool("use_beam_search") ?? false
        let suffix = reader.string("suffix")
        switch reader.value("prompt_embeds") {
        case .string, nil: break
        case .array(let elements) where elements.allSatisfy({ $0.stringValue != nil }): break
        default: reader.report("prompt_embeds", "Input should be valid bytes or a list of them")
        }
        try reader.finish()

        try StructuredOutputsFields.validate(body)
        if let embeds = body["prompt_embeds"], !embeds.isNull, embeds.arrayValue?.isEmpty != true {
            throw .badRequest(
                "You must set `--enable-prompt-embeds` to input `prompt_embeds`.", param: "prompt_embeds")
        }
        if case .array? = body["prompt"] {
            guard !prompts.isEmpty else { throw .badRequest("You must pass at least one prompt") }
            guard !prompts.contains(.text("")), !prompts.contains(.tokens([])) else {
                throw .badRequest("The decoder prompt cannot be empty")
            }
        } else if prompts.isEmpty || prompts == [.text("")] {
            throw .badRequest("Either prompt or prompt_embeds must be provided and non-empty.", param: "prompt")
        }
        guard prompts.count <= limits.maximumPrompts else {
            throw .badRequest(
                "At most \(limits.maximumPrompts) prompts are allowed in one request, got \(prompts.count).",
                param: "prompt")
        }
        if suffix != nil {
            throw .badRequest("suffix is only supported for models with FIM completion rendering", param: "suffix")
        }
        if beamSearch { throw .badRequest("Beam search is not supported.", param: "use_beam_search") }
        promptLogprobsAsked = sampling.promptLogprobs
        if echo, sampling.promptLogprobs == nil { sampling.promptLogprobs = logprobs }
    }

    /// A string, a list of token ids, a list of strings or a list of lists of token ids.
    private static func readPrompts(_ reader: inout FieldReader, limits: APILimits) -> [Prompt] {
        guard let value = reader.value("prompt") else { return [] }
        switch value {
        case .string(let text): return [.text(text)]
        case .array(let elements):
            guard let first = elements.first else { return [] }
            switch first {
            case .string:
                var prompts: [Prompt] = []
                for (index, element) in elements.enumerated() {
                    guard let text = element.stringValue else {
                        // The Python server reports a mixed list at its first element.
                        reader.report("prompt.0", "Input should be a list of strings; element \(index) is not a string")
                        return []
                    }
                    prompts.append(.text(text))
                }
                return prompts
            case .array:
                var prompts: [Prompt] = []
                for (index, element) in elements.enumerated() {
                    // The Python server tries a list of integers first, and reports its first element.
                    guard let ids = element.arrayValue else {
                        reader.report("prompt.0", "Input should be a list of lists; element \(index) is not a list")
                        return []
                    }
                    guard ids.allSatisfy({ FieldReader.int($0) != nil }) else {
                        reader.report("prompt.0", "Input should be lists of integers; list \(index) is not")
                        return []
                    }
                    guard let tokens = readTokens(ids, path: "prompt.\(index)", &reader) else { return [] }
                    prompts.append(.tokens(tokens))
                }
                return prompts
            default:
                return readTokens(elements, path: "prompt", &reader).map { [.tokens($0)] } ?? []
            }
        default:
            reader.report("prompt", "Input should be a valid string or a list")
            return []
        }
    }

    private static func readTokens(_ elements: [JSONValue], path: String, _ reader: inout FieldReader) -> [Int32]? {
        var tokens: [Int32] = []
        tokens.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            guard let id = FieldReader.int(element) else {
                reader.report("\(path).\(index)", "Input should be a valid integer")
                return nil
            }
            guard id >= 0 else {
                reader.report("\(path).\(index)", "Input should be greater than or equal to 0")
                return nil
            }
            tokens.append(Int32(clamping: id))
        }
        return tokens
    }
}
