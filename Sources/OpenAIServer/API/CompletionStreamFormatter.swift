import EngineProtocol
import JSONBytes
import NIOCore
import NIOHTTP1
import Text

/// `POST /v1/completions` with `stream`: one preformatted chunk per engine output.
final class CompletionStreamFormatter: GenerationFormatter {
    private let view: CompletionView
    private let frame: StreamFrame
    private var offsets: [Int]
    private var started: [Bool]
    private var arrays = LogprobsWriter.CompletionArrays()
    private(set) var hasStarted = false
    let mergesSteps: Bool

    init(view: CompletionView, sequences: Int) {
        self.view = view
        mergesSteps = view.logprobs == nil && !view.returnTokenIDs
        offsets = Array(repeating: 0, count: sequences)
        started = Array(repeating: false, count: sequences)
        frame = StreamFrame(
            view.identity, object: "text_completion", includeUsage: view.includeUsage,
            showCreatedCache: false)
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        let index = sequence.choiceIndex
        let first = !started[index]
        // Nothing to say yet: the text is held back, and neither ids nor an end are due.
        if text.isEmpty, step.finish == nil, !view.returnTokenIDs, view.logprobs == nil, !(first && view.echo) {
            return
        }
        if !hasStarted {
            hasStarted = true
            job.response.startEventStream(headers: HTTPHeaders())
        }
        started[index] = true
        job.response.appendEvents { buffer in
            frame.appendHead(to: &buffer)
            buffer.appendLiteral("{\"index\":")
            buffer.appendJSONInt(index)
            buffer.appendLiteral(",\"text\":\"")
            if first, view.echo {
                var echoed = view.echoText(sequence)
                echoed.withUTF8 { buffer.appendJSONEscaped(utf8: UnsafeRawBufferPointer($0)) }
            }
            if !view.echoOnly { text.withUnsafeBytes { buffer.appendJSONEscaped(utf8: $0) } }
            buffer.appendLiteral("\",\"logprobs\":")
            appendLogprobs(step, sequence, first: first, to: &buffer)
            buffer.appendLiteral(",")
            buffer.appendFinish(step.finish)
            if view.returnTokenIDs || (first && view.echo) {
                buffer.appendLiteral(",\"prompt_token_ids\":")
                if first {
                    buffer.appendTokenIDs(view.prompts[sequence.promptIndex].tokenIDs)
                } else {
                    buffer.appendJSONNull()
                }
                buffer.appendLiteral(",\"token_ids\":")
                if view.returnTokenIDs { buffer.appendTokenIDs(step.tokenIDs) } else { buffer.appendJSONNull() }
                buffer.appendLiteral("}]")
            } else {
                buffer.appendLiteral(",\"prompt_token_ids\":null,\"token_ids\":null}]")
            }
            if step.finish != nil, !view.includeUsage {
                buffer.appendLiteral(",\"system_fingerprint\":")
                buffer.appendJSONStringOrNull(job.api.fingerprint)
            }
            if view.continuousUsage {
                var usage = Usage()
                usage.promptTokens = view.prompts[sequence.promptIndex].tokenIDs.count
                usage.completionTokens = sequence.completionTokens
                buffer.appendLiteral(",\"usage\":")
                usage.append(to: &buffer, showPromptDetails: false)
            }
            buffer.appendLiteral("}\n\n")
        }
    }

    private func appendLogprobs(
        _ step: SequenceStep, _ sequence: GeneratedSequence, first: Bool, to buffer: inout ByteBuffer
    ) {
        guard view.logprobs != nil else {
            buffer.appendJSONNull()
            return
        }
        arrays.removeAll()
        let index = sequence.choiceIndex
        if first {
            view.appendPromptLogprobs(step.output.newPromptLogprobs, sequence, to: &arrays, offset: &offsets[index])
        }
        if !view.echoOnly, let rows = step.output.newLogprobs {
            for row in 0..<min(rows.rows, step.tokenIDs.count) {
                view.writer.append(
                    rows, row: row, after: sequence.context(before: row, of: rows.rows), to: &arrays,
                    offset: &offsets[index])
            }
        }
        arrays.append(to: &buffer)
    }

    func finish(_ job: GenerationJob) {
        frame.finish(job)
    }
}
