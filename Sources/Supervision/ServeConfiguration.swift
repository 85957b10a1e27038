import EngineProtocol

/// What `vllm-engine serve` runs, with every choice made.
package struct ServeConfiguration {
    /// Model folder, or `mock`.
    package var model: String
    /// What clients may call the model; empty = its path.
    package var servedModelNames: [String] = []

    package var frontend: FrontendKind = .swift
    /// Frontend processes on the one HTTP socket.
    package var apiServerCount = 1
    /// Frontends that serve at the same time; empty = one kind.
    package var split: [FrontendShare] = []
    package var frontendExecutable: String
    package var frontendContract: FrontendContract = .current
    /// Non-default arguments under vLLM's names.
    package var frontendArguments = FrontendArguments()

    package var engineExecutable: String
    package var engineArguments: [String] = []
    package var dataParallel = DataParallelTopology()
    /// Its engines run in lockstep if there are several.
    package var modelIsMixtureOfExperts = false

    package static let defaultHost = "127.0.0.1"
    package static let defaultPort: UInt16 = 8000
    package var host = defaultHost
    package var port = defaultPort
    /// Unix socket instead of host and port.
    package var unixSocketPath: String?
    package var usesTLS = false
    /// `--report-usage-stats`
    package var reportsUsageStats = false
    package var needsAPIKey = false

    /// Whether and how often a crashed frontend is replaced.
    package var frontendRestarts = RestartPolicy.standard
    /// Whether and how often an engine that died is replaced.
    package var engineRestarts = RestartPolicy.never
    /// When our frontend counts a silent engine as hung, in seconds; nil = its default, 0 = never.
    package var engineHangTimeout: Double?
    /// When requests that wait for a hung engine fail, in seconds since its last sign of life; nil or 0 = never.
    package var engineHangRequestDeadline: Double?
    /// How long open requests may take to finish after a stop signal.
    package var shutdownTimeout: Duration = .zero
    /// How long engines may take to become ready.
    package var engineReadyTimeout: Duration = .seconds(600)

    package init(model: String, frontendExecutable: String, engineExecutable: String) {
        self.model = model
        self.frontendExecutable = frontendExecutable
        self.engineExecutable = engineExecutable
    }
}
