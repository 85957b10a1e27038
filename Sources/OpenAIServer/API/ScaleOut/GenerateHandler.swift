import EngineProtocol
import JSONBytes
import NIOCore
import NIOHTTP1
import Text

/// `POST /inference/v1/generate`: for callers that tokenise and parse themselves.
struct GenerateHandler: RouteHandler {
    let api: APIContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            try ScaleOut.check(api)
            let generate = try GenerateRequest(try RequestBody.object(request), limits: api.limits)
            var sampling = generate.sampling
            // Here usage options without a stream mean nothing and harm nobody, as in vLLM.
            if !sampling.stream { sampling.streamOptions = nil }
            let preparation = try api.check(
                sampling, logprobs: generate.logprobs, promptLogprobs: sampling.stream ? nil : sampling.promptLogprobs)
            let prompt = try preparation.prepare(tokenIDs: generate.tokenIDs, needsText: false, truncation: nil)
            let identity = api.identity(prefix: "generate-tokens-", sampling: sampling, request: request)
            var rules = api.rules
            rules.defaults = GenerationDefaults()
            var batch = try api.lower(
                sampling, prompts: [prompt], maxTokens: generate.maxTokens.map { min($0, preparation.maxModelLength) },
                logprobs: generate.logprobs, identity: identity, request: request, rules: rules)
            for index in batch.requests.indices {
                batch.requests[index].reasoningEnded = generate.reasoningEnded
                try generate.promptScores?.lower(
                    promptLength: prompt.tokenIDs.count, vocabularySize: api.model.vocabularySize,
                    maximum: api.limits.maximumLogprobs, into: &batch.requests[index].samplingParams)
            }
            let view = GenerateView(
                identity: identity, prompt: prompt, logprobs: generate.logprobs,
                returnPromptTokenIDs: sampling.returnTokenIDs, asksForPromptScores: generate.promptScores != nil,
                writer: LogprobsWriter(
                    model: api.model, asTokenIDs: false, logprobs: generate.logprobs,
                    chosen: sampling.logprobTokenIDs?.count ?? 0),
                includeUsage: sampling.streamOptions?.includeUsage ?? api.forceIncludeUsage,
                continuousUsage: sampling.streamOptions?.continuousUsage ?? false)
            let count = batch.sequences.count
            let formatter: any GenerationFormatter =
                sampling.stream
                ? GenerateStreamFormatter(view: view, sequences: count)
                : GenerateWholeFormatter(view: view, sequences: count)
            let job = GenerationJob(
                api: api, response: response, identity: identity, sequences: batch.sequences,
                promptTokens: prompt.tokenIDs.count, formatter: formatter)
            job.start(batch.requests)
        } catch {
            response.send(error)
        }
    }
}

/// The routes for disaggregated serving, which a server has only with `--enable-scale-out`.
enum ScaleOut {
    static func check(_ api: APIContext) throws(APIError) {
        guard api.server.configuration.enableScaleOut else {
            throw .permissionDenied("Scale-out endpoints are disabled. Start the server with --enable-scale-out.")
        }
    }
}

/// `POST /inference/v1/abort_requests`: ends requests by the id of their answer. Always 200, as in vLLM.
struct AbortGenerationHandler: RouteHandler {
    let api: APIContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            try ScaleOut.check(api)
            var reader = FieldReader(try RequestBody.object(request))
            guard reader.value("request_ids") != nil else {
                throw .invalidBody("Missing 'request_ids' in request body")
            }
            let ids = reader.strings("request_ids") ?? []
            try reader.finish()
            let ended = api.server.loopStates.map { state in
                state.loop.submit { ids.isEmpty ? 0 : state.abortRequests(ids: ids) }
            }
            let bound = NIOLoopBound(response, eventLoop: response.eventLoop)
            EventLoopFuture.andAllComplete(ended, on: response.eventLoop).whenComplete { _ in
                bound.value.send(status: .ok, contentType: "", headers: [:], body: ByteBuffer())
            }
        } catch {
            response.send(error)
        }
    }
}
