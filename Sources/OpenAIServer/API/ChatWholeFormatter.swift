import Chat
import EngineProtocol
import JSONBytes
import NIOCore
import Text

/// `POST /v1/chat/completions` without `stream`.
final class ChatWholeFormatter: GenerationFormatter {
    private struct Choice {
        /// Counts reasoning tokens while they come; the text itself is parsed as a whole at the end.
        var state: ChatChoiceState
        var text: [UInt8] = []
        var tokenIDs: [Int32] = []
        var logprobs: [UInt8] = []
        var finish: SequenceFinish?
        var experts = RoutedExperts()
    }

    private let view: ChatView
    private let parseWhole: (_ text: String, _ choice: Int) -> ParsedOutput
    private var choices: [Choice]
    private var promptLogprobs: LogprobRows?
    let hasStarted = false

    /// - Parameter parseWhole: splits the text of a finished choice (vLLM parses whole answers differently from streams:
    ///   arguments are normalised, and one malformed call makes all of the text content).
    init(
        view: ChatView, parsers: [(any OutputParser)?],
        parseWhole: @escaping (_ text: String, _ choice: Int) -> ParsedOutput
    ) {
        self.view = view
        self.parseWhole = parseWhole
        choices = parsers.map { Choice(state: ChatChoiceState(parser: $0)) }
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        if let rows = step.output.newPromptLogprobs { promptLogprobs = rows }
        add(step, text: text, for: sequence, to: &choices[sequence.choiceIndex])
    }

    private func add(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, to choice: inout Choice) {
        choice.experts.note(step)
        if view.countsReasoning { choice.state.advance(step, text: text) }
        choice.text.append(contentsOf: text)
        if view.returnTokenIDs { choice.tokenIDs.append(contentsOf: step.tokenIDs) }
        if let top = view.topLogprobs, let rows = step.output.newLogprobs {
            for row in 0..<min(rows.rows, step.tokenIDs.count) {
                if !choice.logprobs.isEmpty { choice.logprobs.appendLiteral(",") }
                view.writer.appendChatEntry(
                    rows, row: row, after: sequence.context(before: row, of: rows.rows), top: top, to: &choice.logprobs)
            }
        }
        if let finish = step.finish { choice.finish = finish }
    }

    func finish(_ job: GenerationJob) {
        if view.countsReasoning {
            job.usage.reasoningTokens = choices.reduce(0) { $0 + $1.state.reasoningTokens }
        }
        var body = ByteBufferAllocator().buffer(capacity: 1024)
        body.appendLiteral("{\"id\":")
        body.appendJSONString(view.identity.id)
        body.appendLiteral(",\"object\":\"chat.completion\",\"created\":")
        body.appendJSONInt(view.identity.created)
        body.appendLiteral(",\"model\":")
        body.appendJSONString(view.identity.model)
        body.appendLiteral(",\"choices\":[")
        for index in choices.indices {
            if index > 0 { body.appendLiteral(",") }
            append(choices[index], index: index, to: &body)
        }
        body.appendLiteral("],\"service_tier\":null,\"system_fingerprint\":")
        body.appendJSONStringOrNull(job.api.fingerprint)
        body.appendLiteral(",\"usage\":")
        job.usage.append(to: &body, showPromptDetails: job.api.showPromptTokensDetails)
        body.appendLiteral(",\"prompt_logprobs\":")
        if let promptLogprobs {
            view.writer.appendPromptLogprobs(promptLogprobs, prompt: view.prompt.tokenIDs, to: &body)
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"prompt_token_ids\":")
        if view.returnTokenIDs { body.appendTokenIDs(view.prompt.tokenIDs) } else { body.appendJSONNull() }
        body.appendLiteral(",\"prompt_text\":")
        if view.returnPromptText { body.appendJSONString(view.prompt.text) } else { body.appendJSONNull() }
        job.appendExtras(to: &body)
        body.appendLiteral("}")
        job.response.sendJSON(body)
    }

    private func append(_ choice: Choice, index: Int, to body: inout ByteBuffer) {
        let text = String(decoding: choice.text, as: UTF8.self)
        let parsed = choice.state.parser == nil ? ParsedOutput(reasoning: nil, content: text) : parseWhole(text, index)
        let calls = view.parallelToolCalls ? parsed.toolCalls[...] : parsed.toolCalls.prefix(1)
        body.appendLiteral("{\"index\":")
        body.appendJSONInt(index)
        body.appendLiteral(",\"message\":{\"role\":")
        body.appendJSONString(view.role)
        body.appendLiteral(",\"content\":")
        if let echo = view.echoText {
            body.appendJSONString(echo + (parsed.content ?? ""))
        } else {
            body.appendJSONStringOrNull(parsed.content)
        }
        body.appendLiteral(",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null")
        if !calls.isEmpty { append(calls, to: &body) }
        body.appendLiteral(",\"reasoning\":")
        body.appendJSONStringOrNull(view.includeReasoning ? parsed.reasoning : nil)
        body.appendLiteral("},\"logprobs\":")
        if view.topLogprobs != nil {
            body.appendLiteral("{\"content\":[")
            choice.logprobs.withUnsafeBytes { body.appendBytes($0) }
            body.appendLiteral("]}")
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"finish_reason\":")
        if let finish = choice.finish {
            body.appendJSONString(view.finishReason(finish, sawToolCall: !calls.isEmpty))
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"stop_reason\":")
        body.appendStopReason(choice.finish?.stopReason)
        body.appendLiteral(",\"token_ids\":")
        if view.returnTokenIDs { body.appendTokenIDs(choice.tokenIDs) } else { body.appendJSONNull() }
        body.appendLiteral(",\"routed_experts\":")
        body.appendJSONNumpy(choice.experts.array)
        body.appendLiteral("}")
    }

    private func append(_ calls: ArraySlice<ParsedOutput.ToolCall>, to body: inout ByteBuffer) {
        body.appendLiteral(",\"tool_calls\":[")
        for (position, call) in calls.enumerated() {
            if position > 0 { body.appendLiteral(",") }
            body.appendLiteral("{\"id\":")
            body.appendJSONString(call.id)
            body.appendLiteral(",\"type\":\"function\",\"function\":{\"name\":")
            body.appendJSONString(call.name)
            body.appendLiteral(",\"arguments\":")
            body.appendJSONString(call.arguments)
            body.appendLiteral("}}")
        }
        body.appendLiteral("]")
    }
}
