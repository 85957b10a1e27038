import ArgumentParser
import JSONBytes

/// What the frontend does with requests. Every option is an attribute of vLLM's namespace and travels in `--args-json`;
/// a frontend that does not support one refuses it.
package struct FrontendOptions: ParsableArguments {
    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("What clients may call the model; the first name is used in answers.", valueName: "name"))
    package var servedModelName: [String] = []

    @Option(help: ArgumentHelp("Revision of a model from the Hugging Face Hub.", valueName: "name"))
    package var revision: String?

    @Option(
        help: ArgumentHelp(
            "Folder of the tokenizer, if not the model's; for mock, of the model that it plays.", valueName: "path"))
    package var tokenizer: String?

    @Option(help: ArgumentHelp("Revision of the tokenizer.", valueName: "name"))
    package var tokenizerRevision: String?

    @Option(help: ArgumentHelp("Which chat renderer and tokenizer to use.", valueName: "name"))
    package var tokenizerMode: String?

    @Option(help: ArgumentHelp("Folder of config.json, if not the model's.", valueName: "path"))
    package var hfConfigPath: String?

    @Option(help: ArgumentHelp("Values that replace those of config.json.", valueName: "json"))
    package var hfOverrides: JSONOption?

    @Option(
        help: ArgumentHelp("Sampling defaults: auto (the model's), vllm (neutral), or a folder.", valueName: "source"))
    package var generationConfig: String?

    @Option(help: ArgumentHelp("Values that replace those of generation_config.json.", valueName: "json"))
    package var overrideGenerationConfig: JSONOption?

    @Option(help: ArgumentHelp("Chat template: a file, or the text itself.", valueName: "path|text"))
    package var chatTemplate: String?

    @Option(
        help: ArgumentHelp("How message content is shown to the template: auto, string, openai.", valueName: "format"))
    package var chatTemplateContentFormat: String?

    @Option(help: ArgumentHelp("Variables for every rendering of the template.", valueName: "json"))
    package var defaultChatTemplateKwargs: JSONOption?

    @Flag(help: "Accept templates that come with requests.")
    package var trustRequestChatTemplate = false

    @Flag(help: "Let the model decide when to call tools.")
    package var enableAutoToolChoice = false

    @Option(help: ArgumentHelp("How tool calls are written by this model, such as hermes.", valueName: "name"))
    package var toolCallParser: String?

    @Option(
        help: ArgumentHelp("What of tool calls is always kept in form: auto, function, parameter.", valueName: "level"))
    package var toolStrictLevel: String?

    @Option(help: ArgumentHelp("How thinking is written by this model, such as qwen3.", valueName: "name"))
    package var reasoningParser: String?

    @Flag(help: "Leave tools out of the prompt when tool_choice is none.")
    package var excludeToolsWhenToolChoiceNone = false

    @Option(help: ArgumentHelp("Role of the answers.", valueName: "name"))
    package var responseRole: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Most logprobs a request may ask for; -1 = no limit.", valueName: "n"))
    package var maxLogprobs: Int?

    @Option(help: ArgumentHelp("Tokens per chunk of a stream.", valueName: "n"))
    package var streamInterval: Int?

    @Option(help: ArgumentHelp("Seconds of silence after which a stream gets a comment line.", valueName: "s"))
    package var sseKeepAliveInterval: SecondsOption?

    @Flag(help: "Write tokens as token_id:N in logprobs.")
    package var returnTokensAsTokenIds = false

    @Flag(help: "Tell in usage how many prompt tokens came from the cache.")
    package var enablePromptTokensDetails = false

    @Flag(help: "Usage in every stream.")
    package var enableForceIncludeUsage = false

    @Flag(help: "Metrics of a request in its answer.")
    package var enablePerRequestMetrics = false

    @Flag(help: "Count running requests for /load.")
    package var enableServerLoadTracking = false

    @Flag(help: "Offer /inference/v1/generate.")
    package var enableScaleOut = false

    @Flag(help: "Offer /tokenizer_info.")
    package var enableTokenizerInfoEndpoint = false

    @Option(help: ArgumentHelp("Refuse requests above this many that wait or run.", valueName: "n"))
    package var maxNumQueuedReqs: Int?

    @Option(
        help: ArgumentHelp("Refuse requests while so many prompt tokens wait for their first output.", valueName: "n"))
    package var maxNumQueuedTokens: Int?

    @Flag(inversion: .prefixedNo, help: "Log every request.")
    package var enableLogRequests: Bool?

    @Flag(help: "Log answers too.")
    package var enableLogOutputs = false

    @Option(help: ArgumentHelp("Most characters of a prompt or answer in the log.", valueName: "n"))
    package var maxLogLen: Int?

    @Flag(help: "No statistics.")
    package var disableLogStats = false

    package init() {}

    package mutating func validate() throws {
        guard !enableAutoToolChoice || toolCallParser != nil else {
            throw ValidationError("--enable-auto-tool-choice needs --tool-call-parser")
        }
    }

    func add(to arguments: inout FrontendArguments) {
        arguments.set("served_model_name", servedModelName)
        arguments.set("revision", revision)
        arguments.set("tokenizer", tokenizer)
        arguments.set("tokenizer_revision", tokenizerRevision)
        arguments.set("tokenizer_mode", tokenizerMode)
        arguments.set("hf_config_path", hfConfigPath)
        arguments.set("hf_overrides", hfOverrides)
        arguments.set("generation_config", generationConfig)
        arguments.set("override_generation_config", overrideGenerationConfig)
        arguments.set("chat_template", chatTemplate)
        arguments.set("chat_template_content_format", chatTemplateContentFormat)
        arguments.set("default_chat_template_kwargs", defaultChatTemplateKwargs)
        arguments.set("trust_request_chat_template", trustRequestChatTemplate ? true : nil)
        arguments.set("enable_auto_tool_choice", enableAutoToolChoice ? true : nil)
        arguments.set("tool_call_parser", toolCallParser)
        arguments.set("tool_strict_level", toolStrictLevel)
        arguments.set("reasoning_parser", reasoningParser)
        arguments.set("exclude_tools_when_tool_choice_none", excludeToolsWhenToolChoiceNone ? true : nil)
        arguments.set("response_role", responseRole)
        arguments.set("max_logprobs", maxLogprobs)
        arguments.set("stream_interval", streamInterval)
        if let sseKeepAliveInterval { arguments["sse_keep_alive_interval"] = sseKeepAliveInterval.json }
        arguments.set("return_tokens_as_token_ids", returnTokensAsTokenIds ? true : nil)
        arguments.set("enable_prompt_tokens_details", enablePromptTokensDetails ? true : nil)
        arguments.set("enable_force_include_usage", enableForceIncludeUsage ? true : nil)
        arguments.set("enable_per_request_metrics", enablePerRequestMetrics ? true : nil)
        arguments.set("enable_server_load_tracking", enableServerLoadTracking ? true : nil)
        arguments.set("enable_scale_out", enableScaleOut ? true : nil)
        arguments.set("enable_tokenizer_info_endpoint", enableTokenizerInfoEndpoint ? true : nil)
        arguments.set("max_num_queued_reqs", maxNumQueuedReqs)
        arguments.set("max_num_queued_tokens", maxNumQueuedTokens)
        arguments.set("enable_log_requests", enableLogRequests)
        arguments.set("enable_log_outputs", enableLogOutputs ? true : nil)
        arguments.set("max_log_len", maxLogLen)
        arguments.set("disable_log_stats", disableLogStats ? true : nil)
    }
}
