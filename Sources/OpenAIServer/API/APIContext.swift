import EngineClient
import EngineProtocol
import JSONBytes
import Metrics
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Text

/// What the API handlers share: the server around them, the model, and the flags that shape answers.
struct APIContext: Sendable {
    let server: ServerContext
    let model: ServedModel
    let limits: APILimits
    let chat: ChatSettings
    let showPromptTokensDetails: Bool
    let forceIncludeUsage: Bool
    /// `system_fingerprint` of every answer; nil = null.
    let fingerprint: String?
    /// Prompts longer than this many bytes are tokenised outside the event loop.
    static let inlineTokenizationLimit = 16 * 1024
    /// Where long prompts are rendered and tokenised.
    let pool: NIOThreadPool
    /// `--enable-log-outputs`.
    let outputLog: OutputLog?

    var rules: SamplingRules { SamplingRules(limits: limits, model: model) }

    /// The engine's view of the context length; an error while no engine is there.
    func maxModelLength() throws(APIError) -> Int {
        switch server.engine.state {
        case .ready(let information): return information.maxModelLength
        case .waitingForEngines: throw .serviceUnavailable("The engine is still starting.")
        case .dead(let reason):
            throw APIError(
                .engineDead(reason: reason), engineReturns: server.configuration.enginesAreReplaced)
        case .closed: throw APIError(.shuttingDown)
        }
    }

    /// Whether structured outputs can be asked for; taken for granted while no engine is there.
    var engineKnowsGrammars: Bool {
        guard case .ready(let information) = server.engine.state else { return true }
        return information.supportsStructuredOutputs
    }

    func promptPreparation() throws(APIError) -> PromptPreparation {
        PromptPreparation(model: model, maxModelLength: try maxModelLength())
    }

    /// All that can be refused before the prompt is rendered and tokenised, in the order of vLLM's answers.
    ///
    /// - Returns: how prompts are prepared for the engines that serve now.
    func check(_ sampling: SamplingFields, logprobs: Int?, promptLogprobs: Int?) throws(APIError) -> PromptPreparation {
        try rules.checkFields(sampling, logprobs: logprobs, promptLogprobs: promptLogprobs)
        try rules.checkStopStrings(sampling.stop)
        try checkModel(sampling.model)
        return try promptPreparation()
    }

    /// Any served name is accepted; none, null and "" mean the first.
    func checkModel(_ name: String?) throws(APIError) {
        guard let name, !name.isEmpty, !model.names.contains(name) else { return }
        throw .notFound(
            "The model `\(name.prefix(256))` does not exist. Valid aliases: \(model.names.joined(separator: ", ")).",
            param: "model")
    }

    /// The id of an answer: `X-Request-Id` wins over the body's `request_id`, else a random one.
    func identity(prefix: String, sampling: SamplingFields, request: HTTPRequest) -> ResponseIdentity {
        let base: String
        if let header = request.headers.first(name: "x-request-id"), !header.isEmpty {
            base = header
        } else if let given = sampling.requestID, !given.isEmpty {
            base = String(given.prefix(256))
        } else {
            base = RandomID.hex(16)
        }
        return ResponseIdentity(id: prefix + base, created: WallClock.seconds(), model: model.names[0])
    }

    /// Runs `work` here when it is small, else on the pool; then `next` on the event loop. Errors become the response.
    func offload<Value: Sendable>(
        size: Int, response: any ResponseWriter, _ work: @escaping @Sendable () throws(APIError) -> Value,
        then next: @escaping (Value) throws(APIError) -> Void
    ) {
        if size <= Self.inlineTokenizationLimit {
            do throws(APIError) {
                try next(try work())
            } catch {
                response.send(error)
            }
            return
        }
        var gone = false
        response.onDisconnect = { gone = true }
        let loop = response.eventLoop
        pool.runIfActive(eventLoop: loop) { () -> Result<Value, APIError> in
            do throws(APIError) {
                return .success(try work())
            } catch {
                return .failure(error)
            }
        }.assumeIsolated().whenComplete { outcome in
            guard !gone else { return }
            do throws(APIError) {
                switch outcome {
                case .success(let result): try next(try result.get())
                case .failure: throw .serviceUnavailable("The server is shutting down.")
                }
            } catch {
                response.send(error)
            }
        }
    }

    // MARK: - Lowering

    struct Batch {
        var sequences: [GeneratedSequence]
        var requests: [EngineCoreRequest]
    }

    /// One engine request per sequence: `n` for every prompt, choice index = prompt × n + k.
    /// - Parameters:
    ///   - maxTokens: nil = the rest of the context.
    ///   - maxTokensField: the field it came from, for errors.
    func lower(
        _ sampling: SamplingFields, prompts: [PreparedPrompt], maxTokens: Int?, maxTokensField: String = "max_tokens",
        logprobs: Int?, identity: ResponseIdentity, request: HTTPRequest, rules: SamplingRules? = nil
    ) throws(APIError) -> Batch {
        let rules = rules ?? self.rules
        let context = try maxModelLength()
        if let maxTokens, maxTokens < 1 {
            throw .badRequest("max_tokens must be at least 1, got \(maxTokens).", param: "max_tokens", value: maxTokens)
        }
        if let maxTokens, maxTokens > context {
            throw .badRequest(
                "\(maxTokensField)=\(maxTokens) cannot be greater than max_model_len=\(context). "
                    + "Please request fewer output tokens.", param: maxTokensField, value: maxTokens)
        }
        guard sampling.structuredOutputs == nil || engineKnowsGrammars else {
            throw .badRequest(
                "Structured outputs (also by response_format, and by tool_choice other than auto and none) are not "
                    + "supported by this engine.")
        }
        guard prompts.count.multipliedReportingOverflow(by: max(1, sampling.n)).partialValue <= limits.maximumSequences
        else { throw .badRequest("n times the number of prompts must be at most \(limits.maximumSequences).") }
        try server.admission.check(adding: prompts.count * sampling.n)
        let rank = try dataParallelRank(request)
        let session = sampling.sessionID ?? request.headers.first(name: "x-session-id")
        var batch = Batch(sequences: [], requests: [])
        let arrival = WallClock.now()
        let stop = StopStrings(sampling.stop)
        for (promptIndex, prompt) in prompts.enumerated() {
            let room = context - prompt.tokenIDs.count
            var limit = min(maxTokens ?? room, room)
            if let cap = rules.defaults.maxTokens, maxTokens == nil { limit = min(limit, cap) }
            guard sampling.routedExpertsPromptStart <= prompt.tokenIDs.count else {
                throw .badRequest(
                    "routed_experts_prompt_start must be between 0 and the prompt length (\(prompt.tokenIDs.count)), "
                        + "inclusive.", param: "routed_experts_prompt_start", value: sampling.routedExpertsPromptStart)
            }
            let params = try rules.lower(sampling, maxTokens: limit, logprobs: logprobs)
            for k in 0..<sampling.n {
                let choice = promptIndex * sampling.n + k
                var sequenceParams = params
                if sampling.n > 1, let seed = params.seed { sequenceParams.seed = seed &+ Int64(k) }
                var id = identity.id
                if prompts.count > 1 || id.hasPrefix("cmpl-") { id += "-\(promptIndex)" }
                if sampling.n > 1 { id = "\(k)_" + id }
                var engineRequest = EngineCoreRequest(
                    requestID: id, promptTokenIDs: prompt.tokenIDs, samplingParams: sequenceParams,
                    arrivalTime: arrival)
                engineRequest.cacheSalt = sampling.cacheSalt
                engineRequest.priority = sampling.priority
                engineRequest.sessionID = session
                engineRequest.dataParallelRank = rank
                batch.requests.append(engineRequest)
                batch.sequences.append(
                    GeneratedSequence(
                        promptIndex: promptIndex, choiceIndex: choice,
                        processor: model.outputProcessor(sampling, stop: stop, prompt: prompt)))
            }
        }
        return batch
    }

    private func dataParallelRank(_ request: HTTPRequest) throws(APIError) -> Int? {
        // What is no number counts as absent, as in vLLM.
        guard let header = request.headers.first(name: "x-data-parallel-rank"), let rank = Int(header) else {
            return nil
        }
        guard case .ready(let information) = server.engine.state, information.ranks.contains(rank) else {
            throw .badRequest("data_parallel_rank \(rank) is out of range.")
        }
        if let reason = server.watch?.refusal(rank: rank) { throw .engineHangs(reason) }
        return rank
    }
}
