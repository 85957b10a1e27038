import EngineProtocol
import JSONBytes

/// Body of `POST /inference/v1/generate` (vLLM: `GenerateRequest`): tokens in, tokens out.
struct GenerateRequest {
    var tokenIDs: [Int32]
    var sampling: SamplingFields
    /// nil = the rest of the context.
    var maxTokens: Int?
    var logprobs: Int?
    var reasoningEnded: Bool?
    var promptScores: PromptScores?

    init(_ body: JSONObject, limits: APILimits) throws(APIError) {
        var reader = FieldReader(body)
        tokenIDs = reader.tokenIDs("token_ids") ?? []
        if body["token_ids"] == nil || body["token_ids"]?.isNull == true {
            reader.report("token_ids", "Field required")
        } else if reader.issues.isEmpty {
            if tokenIDs.isEmpty {
                reader.report("token_ids", "List should have at least 1 item after validation, not 0")
            } else if tokenIDs.contains(where: { $0 < 0 }) {
                reader.report("token_ids", "token_ids must not contain negative values")
            }
        }
        // The sampling parameters have an object of their own, whose names are the same; what surrounds them is outside.
        let parameters = reader.object("sampling_params")
        if parameters == nil, body["sampling_params"]?.isNull ?? true {
            reader.report("sampling_params", "Field required")
        }
        var inner = FieldReader(parameters ?? JSONObject(), path: "body.sampling_params")
        sampling = SamplingFields(&inner, limits: limits, isGenerate: true)
        maxTokens = inner.int("max_tokens")
        logprobs = SamplingFields.readCount("logprobs", &inner)
        promptScores = PromptScores(&inner)
        reader.absorb(inner)

        let outer = SamplingFields(&reader, limits: limits, isGenerate: true)
        sampling.model = outer.model
        sampling.stream = outer.stream
        sampling.streamOptions = outer.streamOptions
        sampling.cacheSalt = outer.cacheSalt
        sampling.priority = outer.priority
        sampling.requestID = outer.requestID
        sampling.sessionID = outer.sessionID
        sampling.returnTokenIDs = outer.returnTokenIDs
        sampling.extraArgs = outer.extraArgs
        if let extra = parameters?["extra_args"]?.objectValue {
            var merged = extra
            for (key, value) in outer.extraArgs?.pairs ?? [] { merged[key] = value }
            sampling.extraArgs = merged.isEmpty ? nil : merged
        }
        reasoningEnded = reader.bool("reasoning_ended")
        try reader.finish()
        for field in ["features", "content_parts", "reasoning_parser_kwargs"] {
            guard let value = body[field], !value.isNull else { continue }
            throw .badRequest("\(field) is not supported: this server runs text-only models.", param: field)
        }
        if sampling.stream, promptScores != nil {
            throw .badRequest(
                "prompt_logprob_token_ids are not available when stream=true.", param: "prompt_logprob_token_ids")
        }
        if let ids = sampling.logprobTokenIDs, let logprobs, ids.count != logprobs {
            throw .badRequest(
                "When both logprobs and logprob_token_ids are set, logprobs must equal len(logprob_token_ids). "
                    + "Got logprobs=\(logprobs), len(logprob_token_ids)=\(ids.count).", param: "logprob_token_ids")
        }
    }
}
