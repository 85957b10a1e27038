import Chat
import EngineProtocol
import JSONBytes
import NIOCore
import Text

/// `POST /v1/chat/completions` without `stream`.
final class ChatWholeFormatter: GenerationFormatter {
    private struct ToolCall {
        var id: String
        var name: String
        var arguments: [UInt8] = []
    }

    private struct Choice {
        var state: ChatChoiceState
        var content: [UInt8] = []
        var reasoning: [UInt8] = []
        var toolCalls: [ToolCall] = []
        var tokenIDs: [Int32] = []
        var logprobs: [UInt8] = []
        var finish: SequenceFinish?
    }

    private let view: ChatView
    private var choices: [Choice]
    private var promptLogprobs: LogprobRows?
    let hasStarted = false

    init(view: ChatView, parsers: [(any OutputParser)?]) {
        self.view = view
        choices = parsers.map { Choice(state: ChatChoiceState(parser: $0)) }
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        let index = sequence.choiceIndex
        if let rows = step.output.newPromptLogprobs { promptLogprobs = rows }
        choices[index].state.advance(step, text: text)
        if choices[index].state.parser == nil { choices[index].content.append(contentsOf: text) }
        for event in choices[index].state.events {
            switch event {
            case .content(let bytes): choices[index].content.append(contentsOf: bytes)
            case .reasoning(let bytes): choices[index].reasoning.append(contentsOf: bytes)
            case .toolCallStart(_, let id, let name): choices[index].toolCalls.append(ToolCall(id: id, name: name))
            case .toolCallArguments(let call, let fragment):
                guard call < choices[index].toolCalls.count else { continue }
                choices[index].toolCalls[call].arguments.append(contentsOf: fragment)
            }
        }
        if view.returnTokenIDs { choices[index].tokenIDs.append(contentsOf: step.tokenIDs) }
        if let top = view.topLogprobs, let rows = step.output.newLogprobs {
            for row in 0..<min(rows.rows, step.tokenIDs.count) {
                if !choices[index].logprobs.isEmpty { choices[index].logprobs.appendLiteral(",") }
                view.writer.appendChatEntry(rows, row: row, top: top, to: &choices[index].logprobs)
            }
        }
        if let finish = step.finish { choices[index].finish = finish }
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
            view.writer.appendPromptLogprobs(promptLogprobs, to: &body)
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"prompt_token_ids\":")
        if view.returnTokenIDs { body.appendTokenIDs(view.prompt.tokenIDs) } else { body.appendJSONNull() }
        body.appendLiteral(",\"prompt_text\":")
        if view.returnPromptText { body.appendJSONString(view.prompt.text) } else { body.appendJSONNull() }
        body.appendLiteral(",\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}")
        job.response.sendJSON(body)
    }

    private func append(_ choice: Choice, index: Int, to body: inout ByteBuffer) {
        let calls = view.parallelToolCalls ? choice.toolCalls[...] : choice.toolCalls.prefix(1)
        body.appendLiteral("{\"index\":")
        body.appendJSONInt(index)
        body.appendLiteral(",\"message\":{\"role\":")
        body.appendJSONString(view.role)
        body.appendLiteral(",\"content\":")
        let hasOther = !calls.isEmpty || !choice.reasoning.isEmpty
        if choice.content.isEmpty, hasOther, view.echoText == nil {
            body.appendJSONNull()
        } else {
            var content: [UInt8] = []
            if let echo = view.echoText { content.appendUTF8(echo) }
            content.append(contentsOf: choice.content)
            content.withUnsafeBytes { body.appendJSONString(utf8: $0) }
        }
        body.appendLiteral(",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null")
        if !calls.isEmpty {
            body.appendLiteral(",\"tool_calls\":[")
            for (position, call) in calls.enumerated() {
                if position > 0 { body.appendLiteral(",") }
                body.appendLiteral("{\"id\":")
                body.appendJSONString(call.id)
                body.appendLiteral(",\"type\":\"function\",\"function\":{\"name\":")
                body.appendJSONString(call.name)
                body.appendLiteral(",\"arguments\":")
                call.arguments.withUnsafeBytes { body.appendJSONString(utf8: $0) }
                body.appendLiteral("}}")
            }
            body.appendLiteral("]")
        }
        body.appendLiteral(",\"reasoning\":")
        if choice.reasoning.isEmpty || !view.includeReasoning {
            body.appendJSONNull()
        } else {
            choice.reasoning.withUnsafeBytes { body.appendJSONString(utf8: $0) }
        }
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
        body.appendLiteral(",\"routed_experts\":null}")
    }
}
