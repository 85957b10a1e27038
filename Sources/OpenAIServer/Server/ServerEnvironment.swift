import NIOCore

/// The environment variables of vLLM's frontends that have a meaning here.
package struct ServerEnvironment: Sendable {
    package var logLevel: String?
    /// `VLLM_ENGINE_PROCESS_NAME`: what this process is called in log lines; the supervisor tells several apart.
    package var processName = "SwiftFrontend"
    package var deathDescriptor: Int32?
    package var eventLoopCount: Int?
    /// `VLLM_ENGINE_LISTEN_PATIENCE_S`: accept no connection before every engine has registered, or so many seconds are
    /// over.
    package var listenPatience = 0.0
    /// `VLLM_KEEP_ALIVE_ON_ENGINE_DEATH`: go on answering with errors when the engine has died.
    package var keepsAliveOnEngineDeath = false
    /// `VLLM_LOG_STATS_INTERVAL` in seconds.
    package var statusInterval = 10.0
    /// `VLLM_ENGINE_RESTARTS`: the supervisor replaces an engine that died.
    package var enginesAreReplaced = false
    /// `VLLM_ENGINE_HANG_TIMEOUT_S`: seconds without a sign of life after which an engine counts as hung; 0 = never.
    package var engineHangTimeout = 10.0
    /// `VLLM_ENGINE_HANG_REQUEST_DEADLINE_S`: after so many seconds the requests that wait for it fail; 0 = never.
    package var engineHangRequestDeadline = 0.0
    /// `VLLM_ENGINE_STARTUP`: what the supervisor did before.
    package var startupReport: String?
    /// `VLLM_ENGINE_PROGRESS_FD`: where engines note how far they are with loading.
    package var progressDescriptor: Int32?
    private var apiKey: String?
    private var maxBodyBytes: Int?
    private var keepAliveSeconds: Int?
    private var maxStopStrings: Int?
    private var maxCompletionPrompts: Int?
    private var developmentMode = false
    private var allowRuntimeLoRAUpdating = false

    package init(_ variables: [String: String]) throws(UsageError) {
        logLevel = variables["VLLM_LOGGING_LEVEL"]
        if let name = variables["VLLM_ENGINE_PROCESS_NAME"], !name.isEmpty { processName = name }
        deathDescriptor = try Self.int(variables, "VLLM_ENGINE_DEATH_FD", in: 0...1_000_000).map { Int32($0) }
        progressDescriptor = try Self.int(variables, "VLLM_ENGINE_PROGRESS_FD", in: 0...1_000_000).map { Int32($0) }
        eventLoopCount = try Self.int(variables, "VLLM_SWIFT_EVENT_LOOPS", in: 1...1024)
        startupReport = variables["VLLM_ENGINE_STARTUP"]
        engineHangTimeout = try Self.seconds(variables, "VLLM_ENGINE_HANG_TIMEOUT_S") ?? engineHangTimeout
        engineHangRequestDeadline = try Self.seconds(variables, "VLLM_ENGINE_HANG_REQUEST_DEADLINE_S") ?? 0
        enginesAreReplaced = Self.flag(variables, "VLLM_ENGINE_RESTARTS")
        keepsAliveOnEngineDeath = Self.flag(variables, "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH")
        listenPatience = try Self.seconds(variables, "VLLM_ENGINE_LISTEN_PATIENCE_S") ?? 0
        if let text = variables["VLLM_LOG_STATS_INTERVAL"], !text.isEmpty {
            guard let seconds = Double(text), seconds >= 0.1, seconds <= 86_400 else {
                throw UsageError("environment variable VLLM_LOG_STATS_INTERVAL must be 0.1 to 86400 seconds")
            }
            statusInterval = seconds
        }
        apiKey = variables["VLLM_API_KEY"].flatMap { $0.isEmpty ? nil : $0 }
        maxBodyBytes = try Self.int(variables, "VLLM_HTTP_MAX_REQUEST_BODY_SIZE", in: 0...(1 << 40))
        keepAliveSeconds = try Self.int(variables, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", in: 0...86_400)
        maxStopStrings = try Self.int(variables, "VLLM_MAX_STOP_STRINGS", in: 0...1_000_000)
        maxCompletionPrompts = try Self.int(variables, "VLLM_MAX_COMPLETION_PROMPTS", in: 1...1_000_000)
        developmentMode = Self.flag(variables, "VLLM_SERVER_DEV_MODE")
        allowRuntimeLoRAUpdating = Self.flag(variables, "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    }

    /// Fills in what the arguments leave open.
    /// - Parameter keepAliveIsGiven: whether the arguments name the keep-alive timeout.
    package func apply(to configuration: inout ServerConfiguration, keepAliveIsGiven: Bool) {
        if configuration.apiKeys.isEmpty, let apiKey { configuration.apiKeys = [apiKey] }
        if let maxBodyBytes { configuration.limits.maxBodyBytes = maxBodyBytes }
        if !keepAliveIsGiven, let keepAliveSeconds {
            configuration.limits.keepAliveTimeout = .seconds(Int64(keepAliveSeconds))
        }
        if let maxStopStrings { configuration.maxStopStrings = maxStopStrings }
        if let maxCompletionPrompts { configuration.maxCompletionPrompts = maxCompletionPrompts }
        configuration.enginesAreReplaced = enginesAreReplaced
        configuration.developmentMode = developmentMode
        configuration.allowRuntimeLoRAUpdating = allowRuntimeLoRAUpdating
    }

    private static func int(
        _ variables: [String: String], _ name: String, in range: ClosedRange<Int>
    ) throws(UsageError) -> Int? {
        guard let text = variables[name], !text.isEmpty else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw UsageError(
                "environment variable \(name) must be an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    private static func seconds(_ variables: [String: String], _ name: String) throws(UsageError) -> Double? {
        guard let text = variables[name], !text.isEmpty else { return nil }
        guard let value = Double(text), value == 0 || (0.1...86_400).contains(value) else {
            throw UsageError("environment variable \(name) must be 0 (off) or 0.1 to 86400 seconds")
        }
        return value
    }

    private static func flag(_ variables: [String: String], _ name: String) -> Bool {
        guard let text = variables[name]?.lowercased() else { return false }
        return text == "1" || text == "true"
    }
}
