import Chat
import EngineProtocol
import JSONBytes
import NIOCore
import Text

/// `POST /v1/chat/completions`.
struct ChatHandler: RouteHandler {
    let api: APIContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try RequestBody.object(request)
            let chat = try ChatRequest(body, limits: api.limits, settings: api.chat)
            let logprobs = chat.logprobs ? chat.topLogprobs : nil
            let preparation = try api.check(
                chat.sampling, logprobs: logprobs, promptLogprobs: chat.promptLogprobsAsked)
            let model = api.model
            let rendering = chat.rendering
            let addSpecialTokens = chat.addSpecialTokens
            let truncation = chat.sampling.truncation
            api.offload(size: request.body.readableBytes, response: response) { () throws(APIError) -> PreparedPrompt in
                let text = try model.render(rendering)
                return try preparation.prepare(text: text, addSpecialTokens: addSpecialTokens, truncation: truncation)
            } then: { prompt throws(APIError) in
                try start([chat], [prompt], logprobs: logprobs, request, response)
            }
        } catch {
            response.send(error)
        }
    }

    /// - Parameters:
    ///   - chats: the conversations of a batch, which share their parameters; only a single one may stream.
    ///   - prompts: one per conversation.
    func start(
        _ chats: [ChatRequest], _ prompts: [PreparedPrompt], logprobs: Int?, _ request: HTTPRequest,
        _ response: any ResponseWriter
    ) throws(APIError) {
        let chat = chats[0]
        let prompt = prompts[0]
        var sampling = chat.sampling
        if let constraint = chat.optionalConstraint, api.engineKnowsGrammars { sampling.structuredOutputs = constraint }
        // Markers of tool calls may be special tokens: the parser has to see them.
        if chat.toolChoice != .none, api.model.parsers.hasTools { sampling.skipSpecialTokens = false }
        let identity = api.identity(prefix: "chatcmpl-", sampling: sampling, request: request)
        let batch = try api.lower(
            sampling, prompts: prompts, maxTokens: chat.maxTokens, maxTokensField: chat.maxTokensField,
            logprobs: logprobs,
            identity: identity, request: request)
        var namedToolChoice = false
        if case .function = chat.toolChoice { namedToolChoice = true }
        let view = ChatView(
            identity: identity, role: api.chat.responseRole,
            echoText: chat.echo ? chat.rendering.lastAssistantText : nil,
            // Tokens that were asked for by their ids are all shown.
            topLogprobs: logprobs.map { sampling.logprobTokenIDs?.isEmpty == false ? -1 : $0 },
            returnTokenIDs: sampling.returnTokenIDs, includeReasoning: chat.includeReasoning,
            parallelToolCalls: chat.parallelToolCalls, namedToolChoice: namedToolChoice,
            countsReasoning: api.model.parsers.hasReasoning,
            writer: LogprobsWriter(
                model: api.model, asTokenIDs: sampling.returnTokensAsTokenIDs ?? api.chat.returnTokensAsTokenIDs,
                logprobs: logprobs, chosen: sampling.logprobTokenIDs?.count ?? 0),
            prompt: prompt, returnPromptText: chat.returnPromptText,
            includeUsage: sampling.streamOptions?.includeUsage ?? api.forceIncludeUsage,
            continuousUsage: sampling.streamOptions?.continuousUsage ?? false)
        let selection = api.model.parsers
        let parseTools = chat.toolChoice != .none
        struct ParserSetting {
            var prompt: String
            var thinking: Bool
            var continued: String?
        }
        let settings = zip(chats, prompts).map { chat, prompt in
            ParserSetting(
                prompt: prompt.text, thinking: api.model.isThinking(chat.rendering),
                continued: chat.rendering.continueFinalMessage ? chat.rendering.lastAssistantText : nil)
        }
        let parsers = batch.sequences.map { sequence in
            let setting = settings[sequence.promptIndex]
            return selection.makeParser(
                parseTools: parseTools, prompt: setting.prompt, thinking: setting.thinking,
                continuedText: setting.continued)
        }
        let promptOfChoice = batch.sequences.map(\.promptIndex)
        let formatter: any GenerationFormatter =
            sampling.stream
            ? ChatStreamFormatter(view: view, parsers: parsers)
            : ChatWholeFormatter(view: view, parsers: parsers) { text, choice in
                let setting = settings[promptOfChoice[choice]]
                return selection.parseWhole(
                    text, parseTools: parseTools, prompt: setting.prompt, thinking: setting.thinking,
                    continuedText: setting.continued)
            }
        let job = GenerationJob(
            api: api, response: response, identity: identity, sequences: batch.sequences,
            promptTokens: prompts.reduce(0) { $0 + $1.tokenIDs.count }, formatter: formatter)
        job.start(batch.requests)
    }
}
