import Chat
import NIOHTTP1
import NIOPosix
import Text

/// The OpenAI routes that need a model: loads it and registers their handlers.
package struct GenerationAPI: Sendable {
    let model: ServedModel
    private let settings: ChatSettings
    private let tokenizerInfo: TokenizerInfoHandler?
    private let pool: NIOThreadPool

    /// Loads tokenizer, chat template and generation defaults of `configuration`'s model.
    /// - Throws: an error whose description names the file or option that is wrong.
    package init(configuration: ServerConfiguration, pool: NIOThreadPool) throws {
        model = try ServedModel(configuration: configuration)
        settings = ChatSettings(
            autoToolChoice: configuration.toolCallParser != nil,
            trustRequestChatTemplate: configuration.trustRequestChatTemplate,
            excludeToolsWhenToolChoiceNone: configuration.excludeToolsWhenToolChoiceNone,
            toolStrictLevel: configuration.toolStrictLevel,
            responseRole: configuration.responseRole,
            returnTokensAsTokenIDs: configuration.returnTokensAsTokenIDs)
        tokenizerInfo =
            configuration.enableTokenizerInfoEndpoint
            ? try TokenizerInfoHandler(model: model, folder: configuration.tokenizer ?? configuration.modelTag) : nil
        self.pool = pool
    }

    private func context(_ server: ServerContext) -> APIContext {
        let configuration = server.configuration
        return APIContext(
            server: server, model: model,
            limits: APILimits(
                maximumStopStrings: configuration.maxStopStrings, maximumLogprobs: configuration.maxLogprobs,
                maximumPrompts: configuration.maxCompletionPrompts),
            chat: settings, showPromptTokensDetails: configuration.enablePromptTokensDetails,
            forceIncludeUsage: configuration.enableForceIncludeUsage, fingerprint: Self.fingerprint(configuration),
            pool: pool, outputLog: OutputLog(configuration))
    }

    /// The routes of a server without an engine.
    /// - Throws: `UsageError` when nothing says how long a prompt may be.
    package func registerRendering(in router: inout Router, server: ServerContext) throws(UsageError) {
        if let none = server.engine as? NoEngine, !none.adopt(contextLength: model.text.contextLength) {
            throw UsageError("--max-model-len is needed: the model's config.json states no context length")
        }
        let api = context(server)
        func add(_ path: String, _ handler: any RouteHandler) {
            router.add(.POST, path, LargeBodyHandler(api: api, handler: handler))
        }
        add("/v1/completions/render", RenderHandler(api: api, kind: .completions, isRenderServer: true))
        add("/v1/chat/completions/render", RenderHandler(api: api, kind: .chat, isRenderServer: true))
        add("/tokenize", TokenizeHandler(api: api))
        add("/detokenize", DetokenizeHandler(api: api))
        if let tokenizerInfo { router.add(.GET, "/tokenizer_info", tokenizerInfo) }
    }

    package func register(in router: inout Router, server: ServerContext) {
        let api = context(server)
        func add(
            _ path: String, _ handler: any RouteHandler, _ options: RouteOptions = [], integers: String? = nil
        ) {
            router.add(
                .POST, path, options, LargeBodyHandler(api: api, handler: handler, integersMember: integers))
        }
        let (chat, completions) = (ChatHandler(api: api), CompletionsHandler(api: api))
        add("/v1/completions", completions, .work, integers: "prompt")
        add("/v1/chat/completions", chat, .work)
        add("/v1/chat/completions/batch", BatchChatHandler(api: api), .work)
        add("/invocations", InvocationsHandler(chat: chat, completions: completions), .work)
        add("/inference/v1/generate", GenerateHandler(api: api), .work)
        add("/inference/v1/abort_requests", AbortGenerationHandler(api: api))
        add("/v1/completions/render", RenderHandler(api: api, kind: .completions, isRenderServer: false))
        add("/v1/chat/completions/render", RenderHandler(api: api, kind: .chat, isRenderServer: false))
        add("/tokenize", TokenizeHandler(api: api))
        add("/detokenize", DetokenizeHandler(api: api))
        if let tokenizerInfo { router.add(.GET, "/tokenizer_info", tokenizerInfo) }
    }

    /// `--fingerprint-mode`: a name for this server's build and settings, or what the operator chose.
    private static func fingerprint(_ configuration: ServerConfiguration) -> String? {
        switch configuration.fingerprintMode {
        case "none": return nil
        case "custom": return configuration.fingerprintValue
        default: return "vllm-engine-\(ProductVersion.text)"
        }
    }
}
