import EngineProtocol
import JSONBytes
import NIOCore
import Text

/// `POST /v1/completions/render` and `/v1/chat/completions/render`: what `/inference/v1/generate` would take for a
/// request, without running it.
struct RenderHandler: RouteHandler {
    enum Kind { case completions, chat }

    let api: APIContext
    let kind: Kind
    /// A render server has nothing else, so its routes need no switch.
    let isRenderServer: Bool

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            if !isRenderServer { try ScaleOut.check(api) }
            let body = try RequestBody.object(request)
            switch kind {
            case .completions: try completions(body, request, response)
            case .chat: try chat(body, request, response)
            }
        } catch {
            response.send(error)
        }
    }

    private func completions(_ body: JSONObject, _ request: HTTPRequest, _ response: any ResponseWriter)
        throws(APIError)
    {
        let completion = try CompletionRequest(body, limits: api.limits)
        let preparation = try api.check(
            completion.sampling, logprobs: completion.logprobs, promptLogprobs: completion.promptLogprobsAsked)
        let given = body["max_tokens"]?.isNull == false ? completion.maxTokens : nil
        try Self.checkMaxTokens(given)
        api.offload(size: request.body.readableBytes, response: response) { () throws(APIError) -> [PreparedPrompt] in
            try CompletionsHandler.prepare(completion, preparation)
        } then: { prompts throws(APIError) in
            let identity = api.identity(prefix: "cmpl-", sampling: completion.sampling, request: request)
            var answers: [JSONValue] = []
            for (index, prompt) in prompts.enumerated() {
                var sampling = try parameters(completion.sampling, prompt, maxTokens: given, completion.logprobs)
                if let given { sampling["max_tokens"] = .number(given) }
                let id = prompts.count > 1 ? identity.id + "-\(index)" : identity.id
                answers.append(answer(id, prompt, sampling, completion.sampling))
            }
            send(.array(answers), response)
        }
    }

    private func chat(_ body: JSONObject, _ request: HTTPRequest, _ response: any ResponseWriter) throws(APIError) {
        let chat = try ChatRequest(body, limits: api.limits, settings: api.chat)
        let logprobs = chat.logprobs ? chat.topLogprobs : nil
        let preparation = try api.check(
            chat.sampling, logprobs: logprobs, promptLogprobs: chat.promptLogprobsAsked)
        try Self.checkMaxTokens(chat.maxTokens)
        let model = api.model
        api.offload(size: request.body.readableBytes, response: response) { () throws(APIError) -> PreparedPrompt in
            try preparation.prepare(
                text: try model.render(chat.rendering), addSpecialTokens: chat.addSpecialTokens,
                truncation: chat.sampling.truncation)
        } then: { prompt throws(APIError) in
            let identity = api.identity(prefix: "chatcmpl-", sampling: chat.sampling, request: request)
            let room = preparation.maxModelLength - prompt.tokenIDs.count
            if let maxTokens = chat.maxTokens, maxTokens > preparation.maxModelLength {
                throw .badRequest(
                    "\(chat.maxTokensField)=\(maxTokens) cannot be greater than "
                        + "max_model_len=\(preparation.maxModelLength). Please request fewer output tokens.",
                    param: chat.maxTokensField, value: maxTokens)
            }
            let maxTokens = min(chat.maxTokens ?? room, room)
            var sampling = try parameters(chat.sampling, prompt, maxTokens: maxTokens, logprobs)
            sampling["max_tokens"] = .number(maxTokens)
            send(answer(identity.id, prompt, sampling, chat.sampling), response)
        }
    }

    private static func checkMaxTokens(_ given: Int?) throws(APIError) {
        guard let given, given < 1 else { return }
        throw .badRequest("max_tokens must be at least 1, got \(given).", param: "max_tokens", value: given)
    }

    /// `sampling_params` with the names of vLLM's `SamplingParams`; values that are vLLM's default may be absent.
    private func parameters(
        _ fields: SamplingFields, _ prompt: PreparedPrompt, maxTokens: Int?, _ logprobs: Int?
    ) throws(APIError) -> JSONObject {
        // Lowering checks every range; the names below are those of the API that takes them back.
        let lowered = try api.rules.lower(
            fields, maxTokens: maxTokens ?? Int(Int32.max), logprobs: logprobs)
        var object = JSONObject()
        if fields.n != 1 { object["n"] = .number(fields.n) }
        object["presence_penalty"] = .number(lowered.presencePenalty)
        object["frequency_penalty"] = .number(lowered.frequencyPenalty)
        object["repetition_penalty"] = .number(lowered.repetitionPenalty)
        object["temperature"] = .number(lowered.temperature)
        object["top_p"] = .number(lowered.topP)
        if lowered.topK != 0 { object["top_k"] = .number(lowered.topK) }
        object["min_p"] = .number(lowered.minP)
        if let seed = lowered.seed { object["seed"] = .number(Int(seed)) }
        object["stop"] = .array(fields.stop.map { .string($0) })
        object["stop_token_ids"] = .array(fields.stopTokenIDs.map { .number(Int($0)) })
        if fields.ignoreEOS { object["ignore_eos"] = .bool(true) }
        if fields.minTokens != 0 { object["min_tokens"] = .number(fields.minTokens) }
        if let logprobs { object["logprobs"] = .number(logprobs) }
        if let count = fields.promptLogprobs { object["prompt_logprobs"] = .number(count) }
        // vLLM's `RequestOutputKind`: deltas for streams, else only the final output.
        object["output_kind"] = .number(fields.stream ? 1 : 2)
        object["skip_clone"] = .bool(true)
        if !fields.skipSpecialTokens { object["skip_special_tokens"] = .bool(false) }
        if !fields.spacesBetweenSpecialTokens { object["spaces_between_special_tokens"] = .bool(false) }
        if fields.includeStopString { object["include_stop_str_in_output"] = .bool(true) }
        if let bias = lowered.logitBias {
            object["logit_bias"] = .object(JSONObject(bias.map { ("\($0.0)", .number($0.1)) }))
        }
        if let allowed = lowered.allowedTokenIDs {
            object["allowed_token_ids"] = .array(allowed.map { .number(Int($0)) })
        }
        if let structured = structuredOutputs(fields.structuredOutputs) { object["structured_outputs"] = structured }
        object["bad_words"] = .array(fields.badWords.map { .string($0) })
        if let extra = fields.extraArgs { object["extra_args"] = .object(extra) }
        object["skip_reading_prefix_cache"] = .bool(fields.promptLogprobs != nil)
        return object
    }

    private func structuredOutputs(_ outputs: StructuredOutputs?) -> JSONValue? {
        guard let outputs else { return nil }
        let member: (String, JSONValue) =
            switch outputs.constraint {
            case .json(let text): ("json", .string(text))
            case .regex(let text): ("regex", .string(text))
            case .choice(let choices): ("choice", .array(choices.map { .string($0) }))
            case .grammar(let text): ("grammar", .string(text))
            case .jsonObject: ("json_object", .bool(true))
            case .structuralTag(let text): ("structural_tag", .string(text))
            }
        return .object(JSONObject([member]))
    }

    private func answer(
        _ id: String, _ prompt: PreparedPrompt, _ sampling: JSONObject, _ fields: SamplingFields
    ) -> JSONValue {
        var options: JSONValue = .null
        if fields.stream, let given = fields.streamOptions {
            options = .object(
                JSONObject([
                    ("include_usage", .bool(given.includeUsage)),
                    ("continuous_usage_stats", .bool(given.continuousUsageStats)),
                ]))
        }
        return .object(
            JSONObject([
                ("request_id", .string(id)), ("token_ids", .array(prompt.tokenIDs.map { .number(Int($0)) })),
                ("token_offsets", .null), ("features", .null), ("content_parts", .null),
                ("sampling_params", .object(sampling)), ("model", fields.model.map { .string($0) } ?? .null),
                ("reasoning_ended", .null), ("reasoning_parser_kwargs", .null), ("return_token_ids", .null),
                ("output_mode", .string("tokens")), ("stream", .bool(fields.stream)), ("stream_options", options),
                ("cache_salt", fields.cacheSalt.map { .string($0) } ?? .null), ("priority", .number(fields.priority)),
                ("kv_transfer_params", fields.extraArgs?["kv_transfer_params"] ?? .null),
                ("ec_transfer_params", fields.extraArgs?["ec_transfer_params"] ?? .null),
            ]))
    }

    private func send(_ value: JSONValue, _ response: any ResponseWriter) {
        var body = ByteBuffer()
        body.appendJSON(value)
        response.sendJSON(body)
    }
}
