import JSONBytes
import Metrics

/// What the server was asked to be: the honoured keys of vLLM's `--args-json`, plus the environment that goes with them.
///
/// Field names follow the Python attributes of `vllm serve`; defaults are those of vLLM 0.32/0.33.
package struct ServerConfiguration: Sendable {
    // Model
    /// `model_tag`: the path or name that `vllm serve` was given.
    package var modelTag: String
    /// `served_model_name`; never empty after parsing (falls back to ``modelTag``).
    package var servedModelNames: [String]
    package var tokenizer: String?
    /// `hf_config_path`: the folder of `config.json` and `generation_config.json`, if it is not the model's.
    package var hfConfigPath: String?
    /// `hf_overrides`: a merge patch for `config.json`.
    package var hfOverrides: JSONObject?
    package var generationConfig = "auto"
    /// `override_generation_config`: wins over the model's `generation_config.json`.
    package var overrideGenerationConfig: JSONObject?
    package var maxLogprobs = 20

    // Chat
    package var chatTemplate: String?
    package var chatTemplateContentFormat = "auto"
    package var defaultChatTemplateKwargs: JSONObject?
    package var trustRequestChatTemplate = false
    package var toolCallParser: String?
    package var excludeToolsWhenToolChoiceNone = false
    package var toolStrictLevel = ToolStrictLevel.auto
    package var reasoningParser: String?
    package var responseRole = "assistant"

    // Answers
    package var returnTokensAsTokenIDs = false
    package var enablePromptTokensDetails = false
    package var enableForceIncludeUsage = false
    /// `profiler_config.profiler`: the engine's profiler, if it has one.
    package var profiler: String?
    /// `enable_per_request_metrics`: the times of a request in its answer.
    package var enablePerRequestMetrics = false
    package var enableScaleOut = false
    /// `enable_tokenizer_info_endpoint`: adds `/tokenizer_info`.
    package var enableTokenizerInfoEndpoint = false
    package var streamInterval = 1
    /// `fingerprint_mode` / `fingerprint_value`: `auto`, `none` or `custom`.
    package var fingerprintMode = "auto"
    package var fingerprintValue: String?

    // HTTP
    package var rootPath = ""
    package var apiKeys: [String] = []
    package var cors = CORSPolicy.Settings()
    package var tls: TLSSettings?
    package var enableRequestIDHeaders = false
    /// `disable_fastapi_docs`: no `/openapi.json`.
    package var disableDocs = false
    package var disableAccessLog = false
    package var quietEndpoints: [String] = [
        "/health", "/health/live", "/health/ready", "/health/startup", "/startup", "/metrics", "/ping", "/load",
        "/version",
    ]
    package var limits = HTTPLimits()
    /// Seconds between comment lines on silent streams; 0 = off.
    package var sseKeepAliveInterval = 0.0
    /// `max_num_queued_reqs`: see ``AdmissionControl``; nil = no limit.
    package var maxUnfinishedRequests: Int?
    /// `max_num_queued_tokens`: likewise.
    package var maxQueuedTokens: Int?

    // Life
    package var engineReadyTimeout = 600.0
    /// Seconds that open requests may take after the first signal.
    package var shutdownTimeout = 0.0
    /// One log line when a request that makes an engine work arrives; every end has its line anyway.
    package var enableLogRequests = false
    /// One log line with the text of every finished answer.
    package var enableLogOutputs = false
    /// `max_log_len`: characters of it that are shown; nil = all.
    package var maxLogLength: Int?
    package var disableLogStats = false
    /// `custom_histogram_buckets`
    package var customHistogramBuckets: [HistogramFamily: [Double]] = [:]

    // Environment
    /// `VLLM_ENGINE_RESTARTS`: the supervisor replaces an engine that died, so failing requests may be tried again.
    package var enginesAreReplaced = false
    /// `VLLM_SERVER_DEV_MODE=1`: registers the routes that change the engine's state.
    package var developmentMode = false
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`.
    package var allowRuntimeLoRAUpdating = false
    /// `VLLM_MAX_STOP_STRINGS`.
    package var maxStopStrings = 4
    /// `VLLM_MAX_COMPLETION_PROMPTS`.
    package var maxCompletionPrompts = 1024

    package init(modelTag: String, servedModelNames: [String] = []) {
        self.modelTag = modelTag
        self.servedModelNames = servedModelNames.isEmpty ? [modelTag] : servedModelNames
    }
}
