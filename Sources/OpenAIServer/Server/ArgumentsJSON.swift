import JSONBytes
import NIOCore

/// Reads vLLM's `--args-json`: one object with the non-default arguments of `vllm serve` under their Python names.
///
/// Each key is honoured, accepted with a warning because it has no effect here, rejected because ignoring it would change
/// what the user asked for, or - if nobody knows it - ignored: engine options travel in the same object.
package struct ArgumentsJSON {
    package private(set) var configuration: ServerConfiguration
    package private(set) var warnings: [String] = []
    /// Whether `http_timeout_keep_alive` is among the arguments.
    package let givesKeepAlive: Bool

    /// Keys that change nothing here and do no harm: engine settings that the frontend need not know, Python's own
    /// machinery, and features that are always on or not there yet.
    static let withoutEffect: Set<String> = [
        "api_server_count", "renderer_num_workers", "enable_flash_late_interaction", "limit_mm_per_prompt",
        "language_model_only", "hf_token", "log_error_stack",
        "aggregate_engine_logging", "revision", "tokenizer_revision",
    ]

    /// Keys whose features this server does not have; ignoring them would change what the user asked for.
    static let rejected: Set<String> = [
        "config", "grpc", "grpc_port", "allowed_local_media_path", "allowed_media_domains", "skip_tokenizer_init",
        "enable_prompt_embeds", "io_processor_plugin", "reasoning_parser_plugin", "data_parallel_rank",
        "data_parallel_hybrid_lb", "data_parallel_external_lb", "enable_fault_tolerance", "enable_elastic_ep",
        "kv_sharing_fast_prefill", "enable_tower_connector_lora", "media_io_kwargs", "mm_processor_kwargs",
        "mm_processor_cache_gb", "mm_processor_cache_type", "mm_hasher_algorithm", "mm_tensor_ipc",
        "mm_processor_device", "mm_ipc_gpu_memory_gb", "default_mm_loras", "otlp_traces_endpoint",
        "collect_detailed_traces", "trust_request_mm_kwargs", "tool_parser_plugin", "tool_server", "log_config_file",
        "tokens_only", "middleware", "enable_offline_docs", "lora_modules",
    ]

    package init(_ text: String) throws(UsageError) {
        let parsed: JSONValue
        do {
            parsed = try JSONValue.parse(text, limits: JSONLimits(maximumDepth: 128))
        } catch {
            throw UsageError("--args-json is not valid JSON: \(error.message) at byte \(error.offset)")
        }
        guard let object = parsed.objectValue else { throw UsageError("--args-json must be a JSON object") }

        let refused = object.pairs.filter { Self.rejected.contains($0.key) && !Self.isOff($0.value) }
        if !refused.isEmpty {
            let list = refused.map { "\n  - \($0.key)" }.sorted().joined()
            throw UsageError("these arguments are not supported by the Swift frontend:\(list)")
        }
        for (key, value) in object.pairs where Self.withoutEffect.contains(key) && !Self.isOff(value) {
            warnings.append("argument '\(key)' currently has no effect in Swift frontend, ignoring")
        }

        // The parser alone decides, as in vLLM's Rust frontend.
        if object["enable_auto_tool_choice"]?.boolValue == true, object["tool_call_parser"]?.stringValue == nil {
            warnings.append("argument 'enable_auto_tool_choice' has no effect without 'tool_call_parser', ignoring")
        }

        givesKeepAlive = object["http_timeout_keep_alive"].map { !$0.isNull } ?? false
        let reader = ArgumentReader(object: object)
        guard let model = try reader.string("model_tag"), !model.isEmpty else {
            throw UsageError("--args-json: missing field `model_tag`")
        }
        configuration = ServerConfiguration(
            modelTag: model, servedModelNames: try reader.strings("served_model_name") ?? [])
        try readModel(reader)
        try readChat(reader)
        try readAnswers(reader)
        try readHTTP(reader)
        try readTLS(reader)
        try readLife(reader)
    }

    /// A null is never rejected; an empty list or object asks for nothing.
    private static func isOff(_ value: JSONValue) -> Bool {
        value.isNull || value.arrayValue?.isEmpty == true || value.objectValue?.isEmpty == true
    }

    private mutating func readModel(_ reader: ArgumentReader) throws(UsageError) {
        configuration.tokenizer = try reader.string("tokenizer")
        configuration.hfConfigPath = try reader.string("hf_config_path")
        configuration.hfOverrides = try reader.object("hf_overrides")
        // Other modes mean other tokenizer libraries, which give other ids.
        _ = try reader.choice("tokenizer_mode", of: ["auto", "hf", "slow"])
        try reader.string("generation_config").map { configuration.generationConfig = $0 }
        configuration.overrideGenerationConfig = try reader.object("override_generation_config")
        if let profiler = try reader.object("profiler_config") {
            configuration.profiler = try ArgumentReader(object: profiler, path: "profiler_config.").string("profiler")
        }
        try reader.int("max_logprobs", in: -1...1_000_000).map { configuration.maxLogprobs = $0 }
    }

    private mutating func readChat(_ reader: ArgumentReader) throws(UsageError) {
        configuration.chatTemplate = try reader.string("chat_template")
        try reader.choice("chat_template_content_format", of: ["auto", "string", "openai"])
            .map { configuration.chatTemplateContentFormat = $0 }
        configuration.defaultChatTemplateKwargs = try reader.object("default_chat_template_kwargs")
        try reader.bool("trust_request_chat_template").map { configuration.trustRequestChatTemplate = $0 }
        configuration.toolCallParser = try reader.string("tool_call_parser")
        try reader.bool("exclude_tools_when_tool_choice_none")
            .map { configuration.excludeToolsWhenToolChoiceNone = $0 }
        try reader.choice("tool_strict_level", of: ToolStrictLevel.allCases.map(\.rawValue))
            .flatMap(ToolStrictLevel.init).map { configuration.toolStrictLevel = $0 }
        configuration.reasoningParser = try reader.string("reasoning_parser")
        try reader.string("response_role").map { configuration.responseRole = $0 }
        if let structured = try reader.object("structured_outputs_config"),
            let backend = try ArgumentReader(object: structured, path: "structured_outputs_config.").string("backend"),
            backend != "auto", backend != "xgrammar"
        {
            warnings.append("structured_outputs_config.backend '\(backend)' has no effect: xgrammar is asked for")
        }
    }

    private mutating func readAnswers(_ reader: ArgumentReader) throws(UsageError) {
        try reader.bool("return_tokens_as_token_ids").map { configuration.returnTokensAsTokenIDs = $0 }
        try reader.bool("enable_prompt_tokens_details").map { configuration.enablePromptTokensDetails = $0 }
        try reader.bool("enable_force_include_usage").map { configuration.enableForceIncludeUsage = $0 }
        try reader.bool("enable_per_request_metrics").map { configuration.enablePerRequestMetrics = $0 }
        try reader.bool("enable_scale_out").map { configuration.enableScaleOut = $0 }
        try reader.bool("enable_tokenizer_info_endpoint").map { configuration.enableTokenizerInfoEndpoint = $0 }
        try reader.int("stream_interval", in: 1...1_000_000).map { configuration.streamInterval = $0 }
        try reader.string("fingerprint_mode").map { configuration.fingerprintMode = $0 }
        configuration.fingerprintValue = try reader.string("fingerprint_value")
    }

    private mutating func readHTTP(_ reader: ArgumentReader) throws(UsageError) {
        try reader.string("root_path").map { configuration.rootPath = $0 }
        try reader.strings("api_key").map { configuration.apiKeys = $0.filter { !$0.isEmpty } }
        try reader.strings("allowed_origins").map { configuration.cors.allowedOrigins = $0 }
        try reader.strings("allowed_methods").map { configuration.cors.allowedMethods = $0 }
        try reader.strings("allowed_headers").map { configuration.cors.allowedHeaders = $0 }
        try reader.bool("allow_credentials").map { configuration.cors.allowCredentials = $0 }
        try reader.bool("enable_request_id_headers").map { configuration.enableRequestIDHeaders = $0 }
        try reader.bool("disable_fastapi_docs").map { configuration.disableDocs = $0 }
        try reader.bool("disable_uvicorn_access_log").map { configuration.disableAccessLog = $0 }
        if let endpoints = try reader.strings("disable_access_log_for_endpoints") {
            configuration.quietEndpoints += endpoints.flatMap { $0.split(separator: ",").map(String.init) }
        }
        if let level = try reader.choice(
            "uvicorn_log_level", of: ["debug", "info", "warning", "error", "critical", "trace"]),
            ["warning", "error", "critical"].contains(level)
        {
            configuration.disableAccessLog = true
        }
        try reader.int("h11_max_incomplete_event_size", in: 1...(1 << 30))
            .map { configuration.limits.maxHeaderBytes = $0 }
        try reader.int("h11_max_header_count", in: 1...100_000).map { configuration.limits.maxHeaderCount = $0 }
        try reader.int("http_timeout_keep_alive", in: 0...86_400)
            .map { configuration.limits.keepAliveTimeout = .seconds(Int64($0)) }
        try reader.seconds("sse_keep_alive_interval").map { configuration.sseKeepAliveInterval = $0 }
        configuration.maxUnfinishedRequests = try reader.int("max_num_queued_reqs", in: 0...1_000_000)
        configuration.maxQueuedTokens = try reader.int("max_num_queued_tokens", in: 0...Int(Int32.max))
    }

    private mutating func readTLS(_ reader: ArgumentReader) throws(UsageError) {
        let key = try reader.string("ssl_keyfile")
        let authorities = try reader.string("ssl_ca_certs")
        let requirement = try reader.int("ssl_cert_reqs", in: 0...2)
        let ciphers = try reader.string("ssl_ciphers")
        let refreshes = try reader.bool("enable_ssl_refresh") ?? false
        guard let certificate = try reader.string("ssl_certfile") else {
            if key != nil || authorities != nil || (requirement ?? 0) > 0 || refreshes {
                throw UsageError(
                    "ssl_certfile is needed with ssl_keyfile, ssl_ca_certs, ssl_cert_reqs and enable_ssl_refresh")
            }
            return
        }
        // Without authorities of their own, clients of everybody's authorities would be let in.
        if let requirement, requirement > 0, authorities == nil {
            throw UsageError("ssl_cert_reqs \(requirement) needs ssl_ca_certs: who may issue certificates of clients")
        }
        var settings = TLSSettings(certificateFile: certificate, keyFile: key ?? certificate)
        settings.authoritiesFile = authorities
        settings.clientCertificates = TLSSettings.ClientCertificates(rawValue: requirement ?? 0) ?? .none
        settings.ciphers = ciphers
        settings.refreshes = refreshes
        configuration.tls = settings
    }

    private mutating func readLife(_ reader: ArgumentReader) throws(UsageError) {
        try reader.seconds("engine_ready_timeout_secs").map { configuration.engineReadyTimeout = $0 }
        try reader.seconds("shutdown_timeout").map { configuration.shutdownTimeout = $0 }
        try reader.bool("enable_log_requests").map { configuration.enableLogRequests = $0 }
        try reader.bool("enable_log_outputs").map { configuration.enableLogOutputs = $0 }
        if configuration.enableLogOutputs, !configuration.enableLogRequests {
            throw UsageError("enable_log_outputs needs enable_log_requests")
        }
        // Answers are logged as a whole, which is what turning it off asks for.
        if try reader.bool("enable_log_deltas") == true, configuration.enableLogOutputs {
            throw UsageError("enable_log_deltas is not supported: enable_log_outputs logs whole answers")
        }
        configuration.maxLogLength = try reader.int("max_log_len", in: 0...1_000_000_000)
        try reader.bool("disable_log_stats").map { configuration.disableLogStats = $0 }
        if let buckets = try reader.object("custom_histogram_buckets") {
            configuration.customHistogramBuckets = try HistogramBucketArguments.read(buckets)
        }
        if configuration.enablePerRequestMetrics, configuration.disableLogStats {
            throw UsageError(
                "enable_per_request_metrics needs the engine's statistics, which disable_log_stats turns off")
        }
    }
}

/// Typed access to the members of an arguments object. Null and absent are the same; a wrong type is an error.
struct ArgumentReader {
    let object: JSONObject
    var path = ""

    private func value(_ key: String) -> JSONValue? {
        guard let value = object[key], !value.isNull else { return nil }
        return value
    }

    private func wrongType(_ key: String, _ expected: String) -> UsageError {
        UsageError("--args-json: `\(path)\(key)` must be \(expected)")
    }

    func string(_ key: String) throws(UsageError) -> String? {
        guard let value = value(key) else { return nil }
        guard let text = value.stringValue else { throw wrongType(key, "a string") }
        return text
    }

    func bool(_ key: String) throws(UsageError) -> Bool? {
        guard let value = value(key) else { return nil }
        guard let flag = value.boolValue else { throw wrongType(key, "true or false") }
        return flag
    }

    func int(_ key: String, in range: ClosedRange<Int>) throws(UsageError) -> Int? {
        guard let value = value(key) else { return nil }
        guard let int = value.numberValue?.intValue, range.contains(int) else {
            throw wrongType(key, "an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return int
    }

    func seconds(_ key: String) throws(UsageError) -> Double? {
        guard let value = value(key) else { return nil }
        guard let seconds = value.numberValue?.doubleValue, seconds >= 0, seconds <= 1e9 else {
            throw wrongType(key, "a number of seconds, not negative")
        }
        return seconds
    }

    func choice(_ key: String, of choices: [String]) throws(UsageError) -> String? {
        guard let text = try string(key) else { return nil }
        guard choices.contains(text) else { throw wrongType(key, "one of \(choices.joined(separator: ", "))") }
        return text
    }

    /// A list of strings; one string counts as a list of one.
    func strings(_ key: String) throws(UsageError) -> [String]? {
        guard let value = value(key) else { return nil }
        if let text = value.stringValue { return [text] }
        guard let values = value.arrayValue else { throw wrongType(key, "a list of strings") }
        var result: [String] = []
        for element in values {
            guard let text = element.stringValue else { throw wrongType(key, "a list of strings") }
            result.append(text)
        }
        return result
    }

    func object(_ key: String) throws(UsageError) -> JSONObject? {
        guard let value = value(key) else { return nil }
        guard let object = value.objectValue else { throw wrongType(key, "an object") }
        return object
    }
}
