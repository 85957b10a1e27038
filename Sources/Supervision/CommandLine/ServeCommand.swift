import ArgumentParser
import CProcessShims
import EngineProtocol
import Glibc
import JSONBytes
import Logging

/// `vllm-engine serve`, which is also what `vllm-engine` without a command does.
package struct ServeCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve a model: supervisor, engine and the frontend of your choice.",
        discussion: """
            Starts an engine and a frontend, watches both, and takes everything down together. Without MODEL the small \
            model of this project is served. Option names are vLLM's; --foo_bar works like --foo-bar.

            EXAMPLES
              vllm-engine                                   the embedded model on port 8000
              vllm-engine /models/Qwen3-0.6B --port 9000    a model folder of yours
              vllm-engine --frontend rust --frontend-binary /path/to/vllm-rs
              vllm-engine mock --mock-itl-ms 20             scripted tokens, no model
                                                            (more: `blas-engine --help`)

            EXIT CODES
            \(exitCodeTable)

            SIGNALS
              SIGTERM, SIGINT, SIGHUP   finish open requests for --shutdown-timeout, then
                                        stop; again: at once
              SIGQUIT, SIGUSR1          log the state of every process

            OTHER COMMANDS (`vllm-engine COMMAND --help`)
              status    show the state of a running service, also as JSON
              swap      exchange the frontend of a running one, without a failed request
              top       watch its processes, requests and latencies
              drain     finish the open requests of a running service, then stop it
              ab        compare frontends: latency, CPU, memory, answers
              bench     measure one server
              report    compute the report of such a run again from its records
            """)

    @Argument(help: ArgumentHelp("Model folder, or `mock`; default: the embedded model.", valueName: "model"))
    package var model: String?

    @OptionGroup(title: "Processes")
    package var supervisor: SupervisorOptions

    @OptionGroup(title: "Data parallelism")
    package var dataParallel: DataParallelOptions

    @OptionGroup(title: "Listening")
    package var listen: ListenOptions

    @OptionGroup(title: "Engine")
    package var engine: EngineOptions

    @OptionGroup(title: "Requests")
    package var frontend: FrontendOptions

    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("Further options for the engine's own command line.", valueName: "engine-options"))
    package var engineArguments: [String] = []

    package init() {}

    private static let exitCodeTable = ExitCode.allCases
        .map { "  \($0.rawValue)  \($0.meaning)" }.joined(separator: "\n")

    package mutating func run() throws {
        let level = SupervisorLogHandler.level(named: ProcessInfo.environmentVariable("VLLM_LOGGING_LEVEL"))
        let logger = Logger(label: "Supervisor") { _ in SupervisorLogHandler(level: level) }
        let code: ExitCode
        do {
            let configuration = try makeConfiguration()
            code =
                configuration.dataParallel.isHeadless
                ? HeadlessSupervisor(configuration: configuration, logger: logger).run()
                : Supervisor(configuration: configuration, logger: logger).run()
        } catch let error as SupervisionError {
            logger.end(error.code, error.message)
            code = error.code
        }
        throw ArgumentParser.ExitCode(code.rawValue)
    }

    /// Finds the programs and distributes the options.
    package func makeConfiguration() throws -> ServeConfiguration {
        let shares = try supervisor.makeShares()
        if !shares.isEmpty, listen.uds != nil {
            throw SupervisionError(.usage, "--split needs a TCP port: a unix socket cannot be shared by weight")
        }
        let kind = shares.first?.kind ?? FrontendKind(supervisor.frontend)
        if kind != .python, !shares.contains(where: { $0.kind == .python }), supervisor.python != nil {
            throw SupervisionError(.usage, "--python is only for --frontend python")
        }
        if kind == .python, shares.isEmpty, supervisor.frontendBinary != nil {
            throw SupervisionError(.usage, "--frontend python takes --python, not --frontend-binary")
        }
        if supervisor.apiServerCount > 1, kind != .swift, kind != .python {
            throw SupervisionError(
                .usage,
                "--api-server-count \(supervisor.apiServerCount): vLLM's Rust frontend is made to be one process "
                    + "(with threads); use --frontend swift or python")
        }
        let topology = try DataParallelTopology(dataParallel.description)
        if topology.isHeadless, supervisor.apiServerCount > 1 {
            throw SupervisionError(.usage, "--headless and --api-server-count exclude each other: there is no frontend")
        }
        if !shares.isEmpty, !topology.isSingleNode || topology.isHeadless || topology.loadBalancing != .internal {
            throw SupervisionError(
                .usage, "--split works only if all engines run on this machine, with internal load balancing")
        }
        let program =
            topology.isHeadless
            ? ""
            : try shares.first?.executable
                ?? Binaries.frontend(kind, explicit: kind == .python ? supervisor.python : supervisor.frontendBinary)
        let model = try model ?? Binaries.defaultModel(explicit: nil)
        if model != "mock" { try ModelFolder.check(model) }

        var configuration = ServeConfiguration(
            model: model, frontendExecutable: program,
            engineExecutable: try Binaries.engine(explicit: supervisor.engineBinary))
        configuration.frontend = kind
        configuration.split = shares
        configuration.reportsUsageStats = supervisor.reportUsageStats
        configuration.frontendContract =
            try shares.first?.contract
            ?? FrontendContract(
                of: topology.isHeadless ? .swift : kind, program: program, release: supervisor.frontendVersion)
        configuration.servedModelNames = frontend.servedModelName
        configuration.apiServerCount = supervisor.apiServerCount
        configuration.dataParallel = topology
        configuration.host = listen.host
        configuration.port = listen.port
        configuration.unixSocketPath = listen.uds
        configuration.usesTLS = listen.sslCertfile != nil
        configuration.needsAPIKey =
            !listen.apiKey.isEmpty || ProcessInfo.environmentVariable("VLLM_API_KEY") != nil
        configuration.frontendRestarts = supervisor.frontendRestarts
        configuration.engineRestarts = supervisor.engineRestarts
        configuration.engineHangTimeout = supervisor.engineHangTimeout?.value
        configuration.engineHangRequestDeadline = supervisor.engineHangRequestDeadline?.value
        if kind != .swift, max(configuration.engineHangTimeout ?? 0, configuration.engineHangRequestDeadline ?? 0) > 0 {
            let option =
                configuration.engineHangTimeout ?? 0 > 0 ? "--engine-hang-timeout" : "--engine-hang-request-deadline"
            throw SupervisionError(
                .usage, "\(option) needs --frontend swift: vLLM's frontends do not notice hung engines")
        }
        configuration.shutdownTimeout = supervisor.shutdownTimeout?.duration ?? .zero

        let readyTimeout = try secondsFromEnvironment("VLLM_ENGINE_READY_TIMEOUT_S", default: 600)
        configuration.engineReadyTimeout = .seconds(readyTimeout)
        configuration.engineArguments = engine.words
        if engine.threads == nil, topology.localSize > 1 {
            // Each would take all of them.
            configuration.engineArguments += [
                "--threads", String(max(1, ProcessInfo.usableProcessors / topology.localSize)),
            ]
        }
        if let timeout = supervisor.shutdownTimeout {
            configuration.engineArguments += ["--shutdown-timeout", "\(timeout.value)"]
        }
        if frontend.disableLogStats { configuration.engineArguments.append("--disable-log-stats") }
        configuration.engineArguments += engineArguments

        supervisor.add(to: &configuration.frontendArguments)
        dataParallel.add(to: &configuration.frontendArguments, kind)
        listen.add(to: &configuration.frontendArguments)
        engine.add(to: &configuration.frontendArguments)
        frontend.add(to: &configuration.frontendArguments)
        if model == "mock" {
            // There is no model, but the frontend needs a tokenizer and a template from somewhere.
            configuration.frontendArguments["model_tag"] = .string(
                try frontend.tokenizer ?? Binaries.defaultModel(explicit: nil))
            configuration.frontendArguments["tokenizer"] = nil
        } else {
            configuration.frontendArguments["model_tag"] = .string(model)
        }
        // The scripted engine plays the model whose tokenizer it has.
        configuration.modelIsMixtureOfExperts =
            configuration.frontendArguments["model_tag"]?.stringValue.map(ModelFolder.isMixtureOfExperts) ?? false
        if dataParallel.wantsExternal, !configuration.modelIsMixtureOfExperts {
            throw SupervisionError(
                .usage,
                "--data-parallel-external-lb and --data-parallel-rank are for mixture-of-experts models: the engines of "
                    + "any other model are independent; behind a load balancer of yours start one service each, without "
                    + "--data-parallel options")
        }
        if configuration.modelIsMixtureOfExperts, topology.size > 1, configuration.engineRestarts.limit > 0 {
            throw SupervisionError(
                .usage,
                "--restart on-failure: the engines of a mixture-of-experts model run in lockstep, one alone cannot come "
                    + "back; restart the whole service instead")
        }
        configuration.frontendArguments["engine_ready_timeout_secs"] = .number(readyTimeout)
        configuration.frontendArguments["http_timeout_keep_alive"] = .number(
            try secondsFromEnvironment("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", default: 5))
        return configuration
    }

    private func secondsFromEnvironment(_ name: String, default fallback: Int) throws -> Int {
        guard let text = ProcessInfo.environmentVariable(name) else { return fallback }
        guard let value = Int(text), (0...1_000_000).contains(value) else {
            throw SupervisionError(.usage, "\(name) must be a whole number of seconds, not \(text)")
        }
        return value
    }
}

extension FrontendContract {
    /// - Parameter release: `--frontend-version`; nil = the program is asked.
    init(of kind: FrontendKind, program: String, release: String?) throws {
        if let release {
            guard let family = ProtocolFamily(name: release) else {
                throw SupervisionError(.usage, "--frontend-version: \(release) is not a vLLM release from 0.22 on")
            }
            self.init(family: family)
            if kind == .python, !adoptsListeners {
                throw SupervisionError(.usage, "--frontend python needs vLLM 0.32 or later")
            }
            return
        }
        switch kind {
        case .swift: self = .current
        case .python: self.init(family: .v0_32)
        case .rust, .program: self = try ContractProbe.ask(program)
        }
    }
}

/// The commands of `vllm-engine` that serve. The program adds those that measure.
package struct VLLMEngineCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "vllm-engine",
        abstract: "Supervisor for vLLM frontends and engines.",
        version: "vllm-engine 0.1.0",
        subcommands: [
            ServeCommand.self, StatusCommand.self, DrainCommand.self, SwapCommand.self, TopCommand.self,
            CoordinatorCommand.self,
        ],
        defaultSubcommand: ServeCommand.self)

    package init() {}
}

extension ParsableCommand {
    /// Runs the command line and ends the process.
    package static func runProgram(_ arguments: [String]) -> Never {
        cps_open_standard_descriptors()
        do {
            var command = try parseAsRoot(withImpliedCommand(ArgumentNormalizer.normalize(arguments)))
            try command.run()
            exit(withError: ArgumentParser.ExitCode.success)
        } catch {
            // Usage errors are 64 by that library's convention and 2 by ours and vLLM's.
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            LogOutput.standardError.write(line: fullMessage(for: error))
            exit(withError: ArgumentParser.ExitCode(ExitCode.usage.rawValue))
        }
    }

    /// So that `vllm-engine --help` shows the options of `serve`.
    private static func withImpliedCommand(_ arguments: [String]) -> [String] {
        let own = configuration.subcommands.compactMap { $0.configuration.commandName } + ["help", "--version"]
        return arguments.first.map(own.contains) == true ? arguments : ["serve"] + arguments
    }
}
