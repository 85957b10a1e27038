import Chat
import EngineProtocol
import JSONBytes
import NIOCore
import NIOHTTP1
import Text

/// `POST /v1/chat/completions` with `stream`.
final class ChatStreamFormatter: GenerationFormatter {
    private let view: ChatView
    private let frame: StreamFrame
    /// What stands in front of the text of a chunk of the first choice that carries nothing else; nil if there are no
    /// such chunks.
    private let plainHead: [UInt8]?
    private var states: [ChatChoiceState]
    private(set) var hasStarted = false
    var mergesSteps: Bool { plainHead != nil }

    init(view: ChatView, parsers: [(any OutputParser)?]) {
        self.view = view
        states = parsers.map(ChatChoiceState.init)
        frame = StreamFrame(
            view.identity, object: "chat.completion.chunk", includeUsage: view.includeUsage)
        if !view.returnTokenIDs, view.topLogprobs == nil, !view.continuousUsage, parsers.allSatisfy({ $0 == nil }) {
            var head = frame.head
            Self.appendDelta(0, to: &head)
            head.appendLiteral("\"content\":\"")
            plainHead = head
        } else {
            plainHead = nil
        }
    }

    private static func appendDelta(_ index: Int, to sink: inout some ByteSink) {
        sink.appendLiteral("{\"index\":")
        sink.appendJSONInt(index)
        sink.appendLiteral(",\"delta\":{")
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        let index = sequence.choiceIndex
        if !hasStarted {
            hasStarted = true
            job.response.startEventStream(headers: HTTPHeaders())
            appendOpening(job)
        }
        if let plainHead, index == 0, step.finish == nil {
            // What nearly every token is: text between constant bytes.
            if text.isEmpty { return }
            return job.response.appendEvents { buffer in
                buffer.appendEvent(
                    plainHead, escaping: text,
                    "\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n")
            }
        }
        states[index].advance(step, text: text)
        job.response.appendEvents { buffer in
            var chunk = Chunk(step: step, sequence: sequence)
            if states[index].parser == nil, !text.isEmpty {
                chunk.isLastOfStep = true
                beginDelta(index, &buffer)
                buffer.appendLiteral("\"content\":\"")
                text.withUnsafeBytes { buffer.appendJSONEscaped(utf8: $0) }
                buffer.appendLiteral("\"")
                endDelta(&chunk, to: &buffer)
            }
            for position in states[index].events.indices {
                let event = states[index].events[position]
                guard isVisible(event, index: index) else { continue }
                chunk.isLastOfStep = position == states[index].events.count - 1
                append(event, chunk: &chunk, to: &buffer)
            }
            let needsOwnChunk =
                !chunk.wroteDetails && (view.returnTokenIDs || view.topLogprobs != nil) && !step.tokenIDs.isEmpty
            if (step.finish != nil && !chunk.wroteFinish) || needsOwnChunk {
                chunk.isLastOfStep = true
                beginDelta(index, &buffer)
                endDelta(&chunk, to: &buffer)
            }
        }
    }

    /// State of writing the events of one step as one or several chunks.
    private struct Chunk {
        let step: SequenceStep
        let sequence: GeneratedSequence
        var isLastOfStep = false
        var wroteFinish = false
        /// Token ids and logprobs go on the first chunk of a step.
        var wroteDetails = false
    }

    private func isVisible(_ event: OutputEvent, index: Int) -> Bool {
        switch event {
        case .content(let bytes): return !bytes.isEmpty
        case .reasoning(let bytes): return view.includeReasoning && !bytes.isEmpty
        case .toolCallStart(let call, _, _):
            guard view.parallelToolCalls || call == 0 else { return false }
            states[index].toolCalls = max(states[index].toolCalls, call + 1)
            return true
        case .toolCallArguments(let call, _): return view.parallelToolCalls || call == 0
        }
    }

    private func beginDelta(_ index: Int, _ buffer: inout ByteBuffer) {
        frame.appendHead(to: &buffer)
        Self.appendDelta(index, to: &buffer)
    }

    private func append(_ event: OutputEvent, chunk: inout Chunk, to buffer: inout ByteBuffer) {
        beginDelta(chunk.sequence.choiceIndex, &buffer)
        switch event {
        case .content(let bytes):
            buffer.appendLiteral("\"content\":\"")
            bytes.withUnsafeBytes { buffer.appendJSONEscaped(utf8: $0) }
            buffer.appendLiteral("\"")
        case .reasoning(let bytes):
            buffer.appendLiteral("\"reasoning\":\"")
            bytes.withUnsafeBytes { buffer.appendJSONEscaped(utf8: $0) }
            buffer.appendLiteral("\"")
        case .toolCallStart(let call, let id, let name):
            buffer.appendLiteral("\"tool_calls\":[{\"index\":")
            buffer.appendJSONInt(call)
            buffer.appendLiteral(",\"id\":")
            buffer.appendJSONString(id)
            buffer.appendLiteral(",\"type\":\"function\",\"function\":{\"name\":")
            buffer.appendJSONString(name)
            buffer.appendLiteral("}}]")
        case .toolCallArguments(let call, let fragment):
            buffer.appendLiteral("\"tool_calls\":[{\"index\":")
            buffer.appendJSONInt(call)
            buffer.appendLiteral(",\"function\":{\"arguments\":")
            fragment.withUnsafeBytes { buffer.appendJSONString(utf8: $0) }
            buffer.appendLiteral("}}]")
        }
        endDelta(&chunk, to: &buffer)
    }

    /// Everything of a chunk after its delta.
    private func endDelta(_ chunk: inout Chunk, to buffer: inout ByteBuffer) {
        buffer.appendLiteral("},\"logprobs\":")
        if let top = view.topLogprobs, let rows = chunk.step.output.newLogprobs, !chunk.wroteDetails {
            buffer.appendLiteral("{\"content\":[")
            for row in 0..<min(rows.rows, chunk.step.tokenIDs.count) {
                if row > 0 { buffer.appendLiteral(",") }
                view.writer.appendChatEntry(
                    rows, row: row, after: chunk.sequence.context(before: row, of: rows.rows), top: top, to: &buffer)
            }
            buffer.appendLiteral("]}")
        } else {
            buffer.appendJSONNull()
        }
        buffer.appendLiteral(",\"finish_reason\":")
        if let finish = chunk.step.finish, chunk.isLastOfStep {
            chunk.wroteFinish = true
            let sawToolCall = states[chunk.sequence.choiceIndex].toolCalls > 0
            buffer.appendJSONString(view.finishReason(finish, sawToolCall: sawToolCall))
            buffer.appendLiteral(",\"stop_reason\":")
            buffer.appendStopReason(finish.stopReason)
        } else {
            buffer.appendJSONNull()
        }
        if view.returnTokenIDs, !chunk.wroteDetails {
            buffer.appendLiteral(",\"token_ids\":")
            buffer.appendTokenIDs(chunk.step.tokenIDs)
            buffer.appendLiteral("}]")
        } else {
            buffer.appendLiteral(",\"token_ids\":null}]")
        }
        chunk.wroteDetails = true
        if chunk.wroteFinish, !view.includeUsage {
            buffer.appendLiteral(",\"system_fingerprint\":")
            buffer.appendJSONStringOrNull(chunk.sequence.job?.api.fingerprint)
        }
        appendContinuousUsage(chunk.sequence.completionTokens, to: &buffer)
        buffer.appendLiteral("}\n\n")
    }

    private func appendContinuousUsage(_ completionTokens: Int, to buffer: inout ByteBuffer) {
        guard view.continuousUsage else { return }
        var usage = Usage()
        usage.promptTokens = view.prompt.tokenIDs.count
        usage.completionTokens = completionTokens
        buffer.appendLiteral(",\"usage\":")
        usage.append(to: &buffer, showPromptDetails: false)
    }

    /// The role chunks, one per choice, and the echoed text.
    private func appendOpening(_ job: GenerationJob) {
        job.response.appendEvents { buffer in
            for index in states.indices {
                beginDelta(index, &buffer)
                buffer.appendLiteral("\"role\":")
                buffer.appendJSONString(view.role)
                buffer.appendLiteral(
                    ",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"prompt_token_ids\":")
                if view.returnTokenIDs { buffer.appendTokenIDs(view.prompt.tokenIDs) } else { buffer.appendJSONNull() }
                buffer.appendLiteral(",\"prompt_text\":")
                if view.returnPromptText { buffer.appendJSONString(view.prompt.text) } else { buffer.appendJSONNull() }
                appendContinuousUsage(0, to: &buffer)
                buffer.appendLiteral("}\n\n")
            }
            guard let echo = view.echoText, !echo.isEmpty else { return }
            for index in states.indices {
                beginDelta(index, &buffer)
                buffer.appendLiteral("\"content\":")
                buffer.appendJSONString(echo)
                buffer.appendLiteral("},\"logprobs\":null,\"finish_reason\":null}]}\n\n")
            }
        }
    }

    func finish(_ job: GenerationJob) {
        if view.countsReasoning { job.usage.reasoningTokens = states.reduce(0) { $0 + $1.reasoningTokens } }
        frame.finish(job)
    }
}
