import EngineProtocol
import JSONBytes
import NIOCore
import Text

/// `POST /v1/completions` without `stream`.
final class CompletionWholeFormatter: GenerationFormatter {
    private struct Choice {
        var text: [UInt8] = []
        var tokenIDs: [Int32] = []
        var logprobs = LogprobsWriter.CompletionArrays()
        var offset = 0
        var promptLogprobs: LogprobRows?
        var finish: SequenceFinish?
        var started = false
        var experts = RoutedExperts()
    }

    private let view: CompletionView
    private var choices: [Choice]
    let hasStarted = false

    init(view: CompletionView, sequences: Int) {
        self.view = view
        choices = Array(repeating: Choice(), count: sequences)
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        add(step, text: text, for: sequence, to: &choices[sequence.choiceIndex])
    }

    private func add(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, to choice: inout Choice) {
        if let rows = step.output.newPromptLogprobs { choice.promptLogprobs = rows }
        choice.experts.note(step)
        if !choice.started {
            choice.started = true
            choice.text.appendUTF8(view.echoText(sequence))
            view.appendPromptLogprobs(
                step.output.newPromptLogprobs, sequence, to: &choice.logprobs, offset: &choice.offset)
        }
        if let finish = step.finish { choice.finish = finish }
        guard !view.echoOnly else { return }
        choice.text.append(contentsOf: text)
        if view.returnTokenIDs { choice.tokenIDs.append(contentsOf: step.tokenIDs) }
        if view.logprobs != nil, let rows = step.output.newLogprobs {
            for row in 0..<min(rows.rows, step.tokenIDs.count) {
                view.writer.append(
                    rows, row: row, after: sequence.context(before: row, of: rows.rows), to: &choice.logprobs,
                    offset: &choice.offset)
            }
        }
    }

    func finish(_ job: GenerationJob) {
        var body = ByteBufferAllocator().buffer(capacity: 512 + choices.reduce(0) { $0 + $1.text.count + 256 })
        body.appendLiteral("{\"id\":")
        body.appendJSONString(view.identity.id)
        body.appendLiteral(",\"object\":\"text_completion\",\"created\":")
        body.appendJSONInt(view.identity.created)
        body.appendLiteral(",\"model\":")
        body.appendJSONString(view.identity.model)
        body.appendLiteral(",\"choices\":[")
        for (index, choice) in choices.enumerated() {
            if index > 0 { body.appendLiteral(",") }
            append(choice, sequence: job.sequences[index], to: &body)
        }
        body.appendLiteral("],\"service_tier\":null,\"system_fingerprint\":")
        body.appendJSONStringOrNull(job.api.fingerprint)
        body.appendLiteral(",\"usage\":")
        job.usage.append(
            to: &body, showPromptDetails: job.api.showPromptTokensDetails, showCreatedCache: false)
        job.appendExtras(to: &body)
        body.appendLiteral("}")
        job.response.sendJSON(body)
    }

    private func append(_ choice: Choice, sequence: GeneratedSequence, to body: inout ByteBuffer) {
        body.appendLiteral("{\"index\":")
        body.appendJSONInt(sequence.choiceIndex)
        body.appendLiteral(",\"text\":")
        choice.text.withUnsafeBytes { body.appendJSONString(utf8: $0) }
        body.appendLiteral(",\"logprobs\":")
        if view.logprobs != nil { choice.logprobs.append(to: &body) } else { body.appendJSONNull() }
        body.appendLiteral(",")
        body.appendFinish(choice.finish)
        body.appendLiteral(",\"token_ids\":")
        if view.returnTokenIDs { body.appendTokenIDs(choice.tokenIDs) } else { body.appendJSONNull() }
        body.appendLiteral(",\"prompt_logprobs\":")
        if let rows = choice.promptLogprobs {
            view.writer.appendPromptLogprobs(
                rows, prompt: view.prompts[sequence.promptIndex].tokenIDs, to: &body)
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"prompt_token_ids\":")
        if view.returnTokenIDs {
            body.appendTokenIDs(view.prompts[sequence.promptIndex].tokenIDs)
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"routed_experts\":")
        body.appendJSONNumpy(choice.experts.array)
        body.appendLiteral("}")
    }
}
