import JSONBytes

/// Token counts of one request, as the API's `usage` object shows them.
struct Usage {
    var promptTokens = 0
    var completionTokens = 0
    /// Prompt tokens that came from the prefix cache; shown with `--enable-prompt-tokens-details`.
    var cachedTokens: Int?
    var createdCacheTokens: Int?
    /// Tokens before the end of thinking; shown when a reasoning parser is active.
    var reasoningTokens: Int?

    /// - Parameter showCreatedCache: vLLM counts the tokens that went into the cache in chat answers alone.
    func append(to sink: inout some ByteSink, showPromptDetails: Bool, showCreatedCache: Bool = true) {
        sink.appendLiteral("{\"prompt_tokens\":")
        sink.appendJSONInt(promptTokens)
        sink.appendLiteral(",\"total_tokens\":")
        sink.appendJSONInt(promptTokens + completionTokens)
        sink.appendLiteral(",\"completion_tokens\":")
        sink.appendJSONInt(completionTokens)
        sink.appendLiteral(",\"prompt_tokens_details\":")
        if showPromptDetails, let cachedTokens {
            sink.appendLiteral("{\"cached_tokens\":")
            sink.appendJSONInt(cachedTokens)
            sink.appendLiteral(",\"created_cache_tokens\":")
            if showCreatedCache, let createdCacheTokens {
                sink.appendJSONInt(createdCacheTokens)
            } else {
                sink.appendJSONNull()
            }
            sink.appendLiteral(",\"multimodal_tokens\":null}")
        } else {
            sink.appendJSONNull()
        }
        sink.appendLiteral(",\"completion_tokens_details\":")
        if let reasoningTokens {
            sink.appendLiteral("{\"reasoning_tokens\":")
            sink.appendJSONInt(reasoningTokens)
            sink.appendLiteral("}")
        } else {
            sink.appendJSONNull()
        }
        sink.appendLiteral("}")
    }
}
