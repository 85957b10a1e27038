import EngineProtocol
import JSONBytes
import Text

/// What all answers of one request share.
struct ResponseIdentity {
    /// `cmpl-…` or `chatcmpl-…`.
    var id: String
    /// Unix seconds.
    var created: Int
    /// The first served name, whatever alias the client used.
    var model: String
}

/// What one completion request asked to see.
struct CompletionView {
    var identity: ResponseIdentity
    var echo: Bool
    /// With `echo` and `max_tokens` 0 the generated token is thrown away.
    var echoOnly: Bool
    var logprobs: Int?
    var returnTokenIDs: Bool
    var writer: LogprobsWriter
    /// Token ids and text of each prompt.
    var prompts: [PreparedPrompt]
    var includeUsage: Bool
    var continuousUsage: Bool

    /// The echoed text; the Python server leaves it out when token ids are returned.
    func echoText(_ sequence: GeneratedSequence) -> String {
        echo && !returnTokenIDs ? prompts[sequence.promptIndex].text : ""
    }

    /// Prompt part of the logprob arrays of an echoed completion.
    func appendPromptLogprobs(
        _ rows: LogprobRows?, _ sequence: GeneratedSequence, to arrays: inout LogprobsWriter.CompletionArrays,
        offset: inout Int
    ) {
        let prompt = prompts[sequence.promptIndex].tokenIDs
        guard echo, logprobs != nil, let first = prompt.first else { return }
        writer.appendFirstPromptToken(first, to: &arrays, offset: &offset)
        guard let rows else { return }
        for row in 0..<rows.rows {
            writer.append(
                rows, row: row, after: prompt.prefix(row + 1).suffix(4), isPrompt: true, to: &arrays, offset: &offset)
        }
    }
}

extension ByteSink {
    mutating func appendJSONStringOrNull(_ text: String?) {
        if let text { appendJSONString(text) } else { appendJSONNull() }
    }

    mutating func appendTokenIDs(_ ids: some Collection<Int32>) {
        appendLiteral("[")
        var first = true
        for id in ids {
            if !first { appendLiteral(",") }
            first = false
            appendJSONInt(id)
        }
        appendLiteral("]")
    }

    mutating func appendFinish(_ finish: SequenceFinish?) {
        appendLiteral("\"finish_reason\":")
        if let finish { appendJSONString(finish.reason) } else { appendJSONNull() }
        appendLiteral(",\"stop_reason\":")
        appendStopReason(finish?.stopReason)
    }

    mutating func appendStopReason(_ reason: StopReason?) {
        switch reason {
        case .token(let id): appendJSONInt(id)
        case .text(let text): appendJSONString(text)
        case nil: appendJSONNull()
        }
    }
}
