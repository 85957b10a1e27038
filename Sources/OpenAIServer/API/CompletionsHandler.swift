import EngineProtocol
import JSONBytes
import NIOCore
import Text

/// `POST /v1/completions`.
struct CompletionsHandler: RouteHandler {
    let api: APIContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let (body, tokens) = try RequestBody.object(request, takingIntegersOf: "prompt")
            let completion = try CompletionRequest(body, promptTokens: tokens, limits: api.limits)
            let preparation = try api.check(
                completion.sampling, logprobs: completion.logprobs, promptLogprobs: completion.promptLogprobsAsked)
            let size = completion.prompts.reduce(0) { sum, prompt in
                if case .text(let text) = prompt { sum + text.utf8.count } else { sum }
            }
            api.offload(size: size, response: response) { () throws(APIError) -> [PreparedPrompt] in
                try Self.prepare(completion, preparation)
            } then: { prompts throws(APIError) in
                try start(completion, prompts, request, response)
            }
        } catch {
            response.send(error)
        }
    }

    static func prepare(_ request: CompletionRequest, _ preparation: PromptPreparation) throws(APIError)
        -> [PreparedPrompt]
    {
        var prepared: [PreparedPrompt] = []
        prepared.reserveCapacity(request.prompts.count)
        let truncation = request.sampling.truncation
        for prompt in request.prompts {
            switch prompt {
            case .text(let text):
                prepared.append(
                    try preparation.prepare(
                        text: text, addSpecialTokens: request.addSpecialTokens, truncation: truncation))
            case .tokens(let ids):
                prepared.append(
                    try preparation.prepare(tokenIDs: ids, needsText: request.echo, truncation: truncation))
            }
        }
        return prepared
    }

    private func start(
        _ completion: CompletionRequest, _ prompts: [PreparedPrompt], _ request: HTTPRequest,
        _ response: any ResponseWriter
    ) throws(APIError) {
        let sampling = completion.sampling
        let echoOnly = completion.echo && completion.maxTokens == 0
        var maxTokens = completion.maxTokens
        if echoOnly { maxTokens = 1 }
        let identity = api.identity(prefix: "cmpl-", sampling: sampling, request: request)
        let view = CompletionView(
            identity: identity, echo: completion.echo, echoOnly: echoOnly, logprobs: completion.logprobs,
            returnTokenIDs: sampling.returnTokenIDs,
            writer: LogprobsWriter(
                model: api.model, asTokenIDs: sampling.returnTokensAsTokenIDs ?? api.chat.returnTokensAsTokenIDs,
                logprobs: completion.logprobs, chosen: sampling.logprobTokenIDs?.count ?? 0),
            prompts: prompts, includeUsage: sampling.streamOptions?.includeUsage ?? api.forceIncludeUsage,
            continuousUsage: sampling.streamOptions?.continuousUsage ?? false)
        let batch = try api.lower(
            sampling, prompts: prompts, maxTokens: maxTokens, logprobs: completion.logprobs,
            identity: identity, request: request)
        let count = batch.sequences.count
        let formatter: any GenerationFormatter =
            sampling.stream
            ? CompletionStreamFormatter(view: view, sequences: count)
            : CompletionWholeFormatter(view: view, sequences: count)
        let job = GenerationJob(
            api: api, response: response, identity: identity, sequences: batch.sequences,
            promptTokens: prompts.reduce(0) { $0 + $1.tokenIDs.count }, formatter: formatter)
        job.start(batch.requests)
    }
}
