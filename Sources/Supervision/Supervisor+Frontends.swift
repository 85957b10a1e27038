import EngineProtocol

/// How the supervisor starts frontends.
extension Supervisor {
    /// Of several frontends on one socket anyone may have answered.
    var everyFrontendAccepts: Bool {
        if let split = frontends as? SplitFrontendManager { return split.acceptsConnections }
        guard configuration.apiServerCount > 1, let frontends, let listener else { return true }
        return frontends.processes.allSatisfy {
            !$0.isAlive || ProcessInfo.acceptsConnections($0.pid, on: listener.descriptor.rawValue)
        }
    }

    func startFrontends(
        _ listener: HTTPListener, _ transports: [FrontendTransport], _ directory: RuntimeDirectory,
        _ factory: ChildFactory
    ) throws -> any FrontendManager {
        var launch = frontendLaunch()
        launch.startupReport = startupReport
        if !configuration.split.isEmpty {
            return try startSplit(launch, listener, transports, directory, factory)
        }
        guard transports.count > 1 else {
            return try FrontendProcessManager(
                launch, listener: listener, transport: transports[0], directory: directory, factory: factory)
        }
        launch.metricsDirectory = try directory.createFolder("metrics")
        // One that is not ready must not take connections that another could serve.
        launch.environment["VLLM_ENGINE_LISTEN_WHEN_READY"] = "1"
        return try APIServerProcessManager(
            launch, listener: listener, transports: transports, directory: directory, factory: factory)
    }

    func makeTransport(
        _ contract: FrontendContract, _ directory: RuntimeDirectory
    ) throws -> FrontendTransport {
        func address() -> String { engineSideAddress(directory) }
        if !contract.adoptsListeners, configuration.frontend == .swift || configuration.dataParallel.frontendsAreLocal {
            return .addresses(input: address(), output: address())
        }
        let input = try ZMQListener(address: address(), sends: true)
        let output = try ZMQListener(address: address(), sends: false)
        if contract.adoptsListeners { return .listeners(input: input, output: output) }
        // Only our frontend tells which ports it got: for others two are looked for beforehand, as vLLM does.
        defer {
            input.close()
            output.close()
        }
        return .addresses(input: input.address, output: output.address)
    }

    func frontendLaunch() -> FrontendLaunch {
        var launch = FrontendLaunch(
            kind: configuration.frontend, executable: configuration.frontendExecutable,
            contract: configuration.frontendContract, arguments: configuration.frontendArguments,
            environment: ProcessInfo.environment())
        launch.engineStartIndex = configuration.dataParallel.servedRanks.lowerBound
        launch.engineCount = configuration.dataParallel.servedRanks.count
        launch.dataParallelSize = configuration.dataParallel.size
        launch.coordinatorAddress = statsPublishAddress
        if let seconds = configuration.engineHangTimeout {
            launch.environment["VLLM_ENGINE_HANG_TIMEOUT_S"] = "\(seconds)"
        }
        if let seconds = configuration.engineHangRequestDeadline {
            launch.environment["VLLM_ENGINE_HANG_REQUEST_DEADLINE_S"] = "\(seconds)"
        }
        if configuration.engineRestarts.limit > 0 { launch.environment["VLLM_ENGINE_RESTARTS"] = "1" }
        launch.servedAddress = listener.map(\.displayAddress) ?? ""
        return launch
    }

    /// Starts a frontend beside the one that serves, on the same HTTP socket.
    func startSuccessor(
        _ kind: FrontendKind, program: String, contract: FrontendContract
    ) throws -> FrontendProcessManager {
        guard let directory, let factory, let listener else { throw SupervisionError(.failure, "not started yet") }
        var launch = frontendLaunch()
        launch.kind = kind
        launch.executable = program
        launch.contract = contract
        launch.environment["VLLM_ENGINE_LISTEN_WHEN_READY"] = "1"
        return try FrontendProcessManager(
            launch, listener: listener, transport: try makeTransport(contract, directory), directory: directory,
            factory: factory)
    }
}
