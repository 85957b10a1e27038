import Chat
import EngineProtocol
import Text

/// What one chat request asked to see.
struct ChatView {
    var identity: ResponseIdentity
    var role: String
    /// Text of the last assistant message, put in front with `echo`.
    var echoText: String?
    /// Alternatives per token; nil = no logprobs.
    var topLogprobs: Int?
    var returnTokenIDs: Bool
    var includeReasoning: Bool
    var parallelToolCalls: Bool
    /// A named function keeps the finish reason `stop`.
    var namedToolChoice: Bool
    /// Whether reasoning tokens are counted in `usage`.
    var countsReasoning: Bool
    var writer: LogprobsWriter
    var prompt: PreparedPrompt
    var returnPromptText: Bool
    var includeUsage: Bool
    var continuousUsage: Bool

    func finishReason(_ finish: SequenceFinish, sawToolCall: Bool) -> String {
        sawToolCall && !namedToolChoice && finish.reason == "stop" ? "tool_calls" : finish.reason
    }
}

/// The parsing state of one chat choice, shared by the whole and the streamed form.
struct ChatChoiceState {
    /// nil = all text is content.
    let parser: (any OutputParser)?
    var reasoningTokens = 0
    var toolCalls = 0
    var events: [OutputEvent] = []

    init(parser: (any OutputParser)?) { self.parser = parser }

    /// Feeds one step; the events of the step are in `events` afterwards.
    mutating func advance(_ step: SequenceStep, text: [UInt8]) {
        events.removeAll(keepingCapacity: true)
        guard let parser else { return }
        let wasReasoning = parser.isReasoning
        text.withUnsafeBufferPointer { parser.append($0, events: &events) }
        if step.finish != nil { parser.finish(events: &events) }
        if wasReasoning, parser.isReasoning { reasoningTokens += step.tokenIDs.count }
    }
}
