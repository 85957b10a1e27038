import EngineProtocol
import JSONBytes
import NIOCore
import NIOHTTP1
import Text

/// What one generate request asked to see.
struct GenerateView {
    var identity: ResponseIdentity
    var prompt: PreparedPrompt
    var logprobs: Int?
    var returnPromptTokenIDs: Bool
    var asksForPromptScores: Bool
    var writer: LogprobsWriter
    var includeUsage: Bool
    var continuousUsage: Bool

    /// The members of a choice behind its token ids.
    ///
    /// - Parameter versions: nil = not yet.
    func appendTail(
        versions: WeightVersionSpans?, tokens: Int, logprobs entries: [UInt8], experts: EngineArray?, mask: [UInt8]?,
        to sink: inout ByteBuffer
    ) {
        sink.appendLiteral(",\"routed_experts\":")
        sink.appendJSONNumpy(experts)
        sink.appendLiteral(",\"sampling_mask\":")
        if let mask {
            sink.appendLiteral("[")
            mask.withUnsafeBytes { sink.appendBytes($0) }
            sink.appendLiteral("]")
        } else {
            sink.appendJSONNull()
        }
        sink.appendLiteral(",\"weight_versions\":")
        if let versions { versions.append(tokens: tokens, to: &sink) } else { sink.appendJSONNull() }
        sink.appendLiteral(",\"logprobs\":")
        if logprobs == nil {
            sink.appendJSONNull()
        } else {
            sink.appendLiteral("{\"content\":[")
            entries.withUnsafeBytes { sink.appendBytes($0) }
            sink.appendLiteral("]}")
        }
        sink.appendLiteral("}")
    }

    func appendLogprobs(_ step: SequenceStep, to entries: inout [UInt8]) {
        guard logprobs != nil, let rows = step.output.newLogprobs else { return }
        for row in 0..<min(rows.rows, step.tokenIDs.count) {
            if !entries.isEmpty { entries.appendLiteral(",") }
            writer.appendTokenEntry(rows, row: row, to: &entries)
        }
    }
}

/// Which tokens of an answer came from which weights, while these may be exchanged (vLLM: `WeightVersionSpan`).
struct WeightVersionSpans {
    private var starts: [(version: String, token: Int)] = []

    /// - Parameter tokens: how many came before the step.
    mutating func note(_ step: SequenceStep, after tokens: Int) {
        guard let version = step.output.weightVersion, !step.tokenIDs.isEmpty, version != starts.last?.version else {
            return
        }
        starts.append((version, tokens))
    }

    func append(tokens: Int, to sink: inout ByteBuffer) {
        guard !starts.isEmpty else { return sink.appendJSONNull() }
        for (index, start) in starts.enumerated() {
            sink.appendLiteral(index == 0 ? "[{\"version\":" : ",{\"version\":")
            sink.appendJSONString(start.version)
            sink.appendLiteral(",\"start\":")
            sink.appendJSONInt(start.token)
            sink.appendLiteral(",\"end\":")
            sink.appendJSONInt(index + 1 < starts.count ? starts[index + 1].token : tokens)
            sink.appendLiteral("}")
        }
        sink.appendLiteral("]")
    }
}

/// `POST /inference/v1/generate` without `stream`.
final class GenerateWholeFormatter: GenerationFormatter {
    private struct Choice {
        var tokenIDs: [Int32] = []
        var logprobs: [UInt8] = []
        var versions = WeightVersionSpans()
        var experts = RoutedExperts()
        /// JSON lists, with commas between them.
        var mask: [UInt8]?
        var finish: SequenceFinish?
    }

    private let view: GenerateView
    private var choices: [Choice]
    private var promptLogprobs: LogprobRows?
    private var promptScores: EngineArray?
    let hasStarted = false

    init(view: GenerateView, sequences: Int) {
        self.view = view
        choices = Array(repeating: Choice(), count: sequences)
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        let index = sequence.choiceIndex
        if let rows = step.output.newPromptLogprobs { promptLogprobs = rows }
        if let scores = step.output.promptTokenIDLogprobs { promptScores = scores }
        choices[index].experts.note(step)
        if !step.output.isPlain, step.output.newSamplingMask != nil {
            var mask = choices[index].mask ?? []
            _ = step.appendSamplingMask(to: &mask, isFirst: mask.isEmpty)
            choices[index].mask = mask
        }
        choices[index].versions.note(step, after: choices[index].tokenIDs.count)
        choices[index].tokenIDs.append(contentsOf: step.tokenIDs)
        view.appendLogprobs(step, to: &choices[index].logprobs)
        if let finish = step.finish { choices[index].finish = finish }
    }

    func finish(_ job: GenerationJob) {
        guard !view.asksForPromptScores || promptScores != nil else {
            // Engines that cannot, pass over the parameter.
            job.response.send(
                .badRequest(
                    "This engine does not score prompt_logprob_token_ids.", param: "prompt_logprob_token_ids"))
            return
        }
        var body = ByteBufferAllocator().buffer(capacity: 1024)
        body.appendLiteral("{\"request_id\":")
        body.appendJSONString(view.identity.id)
        body.appendLiteral(",\"model\":")
        body.appendJSONString(view.identity.model)
        body.appendLiteral(",\"created\":")
        body.appendJSONInt(view.identity.created)
        body.appendLiteral(",\"usage\":")
        job.usage.append(to: &body, showPromptDetails: job.api.showPromptTokensDetails, showCreatedCache: false)
        body.appendLiteral(",\"prompt_logprobs\":")
        if let promptLogprobs {
            view.writer.appendPromptLogprobs(promptLogprobs, prompt: view.prompt.tokenIDs, to: &body)
        } else {
            body.appendJSONNull()
        }
        body.appendLiteral(",\"prompt_token_id_logprobs\":")
        body.appendJSONNumpy(promptScores)
        body.appendLiteral(",\"prompt_token_ids\":")
        if view.returnPromptTokenIDs { body.appendTokenIDs(view.prompt.tokenIDs) } else { body.appendJSONNull() }
        body.appendLiteral(",\"mm_placeholders\":null")
        job.appendExtras(to: &body)
        body.appendLiteral(",\"output_mode\":\"tokens\",\"choices\":[")
        for (index, choice) in choices.enumerated() {
            if index > 0 { body.appendLiteral(",") }
            body.appendLiteral("{\"index\":")
            body.appendJSONInt(index)
            body.appendLiteral(",")
            body.appendFinish(choice.finish)
            body.appendLiteral(",\"token_ids\":")
            body.appendTokenIDs(choice.tokenIDs)
            view.appendTail(
                versions: choice.versions, tokens: choice.tokenIDs.count, logprobs: choice.logprobs,
                experts: choice.experts.array, mask: choice.mask, to: &body)
        }
        body.appendLiteral("]}")
        job.response.sendJSON(body)
    }
}

/// `POST /inference/v1/generate` with `stream`: one frame per engine output.
final class GenerateStreamFormatter: GenerationFormatter {
    private let view: GenerateView
    private var started: [Bool]
    private var versions: [WeightVersionSpans]
    private var experts: [RoutedExperts]
    private var entries: [UInt8] = []
    private(set) var hasStarted = false

    init(view: GenerateView, sequences: Int) {
        self.view = view
        started = Array(repeating: false, count: sequences)
        versions = Array(repeating: WeightVersionSpans(), count: sequences)
        experts = Array(repeating: RoutedExperts(), count: sequences)
    }

    func append(_ step: SequenceStep, text: [UInt8], for sequence: GeneratedSequence, job: GenerationJob) {
        if step.tokenIDs.isEmpty, step.finish == nil { return }
        if !hasStarted {
            hasStarted = true
            job.response.startEventStream(headers: HTTPHeaders())
        }
        let index = sequence.choiceIndex
        versions[index].note(step, after: sequence.completionTokens - step.tokenIDs.count)
        experts[index].note(step)
        var mask: [UInt8] = []
        let hasMask = step.appendSamplingMask(to: &mask)
        let first = !started[index]
        started[index] = true
        entries.removeAll(keepingCapacity: true)
        view.appendLogprobs(step, to: &entries)
        job.response.appendEvents { buffer in
            appendHead(to: &buffer)
            if view.continuousUsage {
                var usage = Usage()
                usage.promptTokens = view.prompt.tokenIDs.count
                usage.completionTokens = sequence.completionTokens
                usage.append(to: &buffer, showPromptDetails: false)
            } else {
                buffer.appendJSONNull()
            }
            if view.returnPromptTokenIDs, first {
                buffer.appendLiteral(",\"prompt_token_ids\":")
                buffer.appendTokenIDs(view.prompt.tokenIDs)
            }
            buffer.appendLiteral(",\"output_mode\":\"tokens\",\"choices\":[{\"index\":")
            buffer.appendJSONInt(index)
            buffer.appendLiteral(",")
            buffer.appendFinish(step.finish)
            buffer.appendLiteral(",\"token_ids\":")
            buffer.appendTokenIDs(step.tokenIDs)
            view.appendTail(
                versions: step.finish == nil ? nil : versions[index], tokens: sequence.completionTokens,
                logprobs: entries, experts: step.finish == nil ? nil : experts[index].array,
                mask: hasMask ? mask : nil, to: &buffer)
            buffer.appendLiteral("]}\n\n")
        }
    }

    private func appendHead(to buffer: inout ByteBuffer) {
        buffer.appendLiteral("data: {\"request_id\":")
        buffer.appendJSONString(view.identity.id)
        buffer.appendLiteral(",\"usage\":")
    }

    func finish(_ job: GenerationJob) {
        job.response.finishEvents { buffer in
            if view.includeUsage {
                appendHead(to: &buffer)
                job.usage.append(
                    to: &buffer, showPromptDetails: job.api.showPromptTokensDetails, showCreatedCache: false)
                buffer.appendLiteral(",\"output_mode\":\"tokens\",\"choices\":[]}\n\n")
            }
        }
    }
}
