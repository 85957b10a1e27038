import NIOCore
import Text
import Tokenization

/// A prompt as the engine gets it.
struct PreparedPrompt: Sendable {
    /// The text it came from, or what its token ids decode to when an echo needs it.
    var text: String
    var tokenIDs: [Int32]
}

/// Turns prompts into token ids and keeps them inside the context (vLLM: the renderer's tokenisation step).
struct PromptPreparation: Sendable {
    let model: ServedModel
    /// Tokens of prompt and output together.
    let maxModelLength: Int

    /// Tokenises text. Text that cannot fit is refused by its length before it is tokenised.
    func prepare(text: String, addSpecialTokens: Bool, truncation: Truncation?) throws(APIError) -> PreparedPrompt {
        if truncation == nil { try checkLength(ofText: text) }
        let limit = truncation == nil ? maxModelLength : .max
        let ids = try model.encode(text, addSpecialTokens: addSpecialTokens, stoppingAfter: limit)
        return PreparedPrompt(text: text, tokenIDs: try fit(ids, truncation))
    }

    /// Checks token ids given by the client.
    /// - Parameter needsText: decode them too, for `echo`.
    func prepare(tokenIDs: [Int32], needsText: Bool, truncation: Truncation?) throws(APIError) -> PreparedPrompt {
        let vocabulary = model.vocabularySize
        for id in tokenIDs where id < 0 || id >= vocabulary {
            throw .badRequest("Token id \(id) is out of vocabulary")
        }
        let ids = try fit(tokenIDs, truncation)
        let text = needsText ? model.tokenizer.decode(ids, skipSpecialTokens: false) : ""
        return PreparedPrompt(text: text, tokenIDs: ids)
    }

    /// What cannot fit however it is split is refused before the work of splitting it.
    private func checkLength(ofText text: String) throws(APIError) {
        let count = text.utf8.count
        let atLeast = model.tokenizer.minimumTokenCount(utf8Count: count)
        guard atLeast >= maxModelLength else { return }
        throw .badRequest(
            "This model's maximum context length is \(maxModelLength) tokens. However, your prompt contains "
                + "\(count) bytes, which is at least \(atLeast) input tokens. "
                + "Please reduce the length of the input prompt.", param: "input_text", value: count)
    }

    private func fit(_ ids: [Int32], _ truncation: Truncation?) throws(APIError) -> [Int32] {
        var ids = ids
        if let truncation {
            let limit = truncation.tokens == -1 ? maxModelLength - 1 : truncation.tokens
            guard limit <= maxModelLength else {
                throw .badRequest(
                    "truncate_prompt_tokens value (\(limit)) is greater than max_model_len (\(maxModelLength)). "
                        + "Please, select a smaller truncation size.", param: "truncate_prompt_tokens")
            }
            if ids.count > limit {
                ids = truncation.side == .left ? Array(ids.suffix(limit)) : Array(ids.prefix(limit))
            }
        }
        guard !ids.isEmpty else { throw .badRequest("The decoder prompt cannot be empty") }
        // One token must be left for the output: engines do not survive a prompt that fills the context.
        guard ids.count != maxModelLength else {
            throw .badRequest(
                "The prompt fills the model's context of \(maxModelLength) tokens; max_tokens must be at least 1, got 0.",
                param: "max_tokens", value: 0)
        }
        guard ids.count < maxModelLength else {
            throw .badRequest(
                "This model's maximum context length is \(maxModelLength) tokens. However, your prompt contains at least "
                    + "\(ids.count) input tokens, which exceeds this limit even without any output tokens. "
                    + "Please reduce the length of the input prompt.", param: "input_tokens", value: ids.count)
        }
        return ids
    }

    struct Truncation: Sendable {
        /// -1 = whatever fits.
        var tokens: Int
        var side: SamplingFields.TruncationSide
    }
}

extension SamplingFields {
    var truncation: PromptPreparation.Truncation? {
        truncatePromptTokens.map { PromptPreparation.Truncation(tokens: $0, side: truncationSide) }
    }
}
