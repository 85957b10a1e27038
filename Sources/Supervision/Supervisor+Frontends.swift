import EngineHandshake
import EngineProtocol
import Logging

/// How the supervisor starts frontends.
extension Supervisor {
    /// Of several frontends on one socket anyone may have answered; and what answers over TLS is not heard here.
    var everyFrontendAccepts: Bool {
        if let split = frontends as? SplitFrontendManager { return split.acceptsConnections }
        guard let frontends, let listener else { return true }
        // An unknown program may wait for connections in ways that cannot be seen.
        let isUnheard = if case .program = frontends.kind { false } else { configuration.usesTLS }
        guard frontends.processes.count > 1 || isUnheard else { return true }
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
        return try startOneOrMore(launch, listener, transports, directory, factory)
    }

    private func startOneOrMore(
        _ launch: FrontendLaunch, _ listener: HTTPListener, _ transports: [FrontendTransport],
        _ directory: RuntimeDirectory, _ factory: ChildFactory
    ) throws -> any FrontendManager {
        guard transports.count > 1 else {
            return try FrontendProcessManager(
                launch, listener: listener, transport: transports[0], directory: directory, factory: factory)
        }
        var launch = launch
        generation += 1
        launch.metricsDirectory = try directory.createFolder("metrics-\(generation)")
        // One that is not ready must not take connections that another could serve.
        launch.environment["VLLM_ENGINE_LISTEN_PATIENCE_S"] = "86400"
        return try APIServerProcessManager(
            launch, listener: listener, transports: transports, directory: directory, factory: factory)
    }

    /// - Parameter mayTell: there is time for the frontend to tell which ports it has bound.
    func makeTransport(
        _ contract: FrontendContract, _ directory: RuntimeDirectory, mayTell: Bool = true
    ) throws -> FrontendTransport {
        func address() -> String { engineSideAddress(directory) }
        if !contract.adoptsListeners,
            configuration.frontend == .swift && mayTell || configuration.dataParallel.frontendsAreLocal
        {
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
        launch.progress = progress
        launch.servedAddress = listener.map(\.displayAddress) ?? ""
        return launch
    }

    /// Starts frontends beside those that serve, on the same HTTP socket.
    func startSuccessors(
        _ kind: FrontendKind, program: String, contract: FrontendContract, count: Int
    ) throws -> any FrontendManager {
        guard let directory, let factory, let listener else { throw SupervisionError(.failure, "not started yet") }
        var launch = frontendLaunch()
        launch.kind = kind
        launch.executable = program
        launch.contract = contract
        launch.environment["VLLM_ENGINE_LISTEN_PATIENCE_S"] = "86400"
        let transports = try (0..<count).map { _ in try makeTransport(contract, directory, mayTell: false) }
        return try startOneOrMore(launch, listener, transports, directory, factory)
    }

    /// Engines that are told of further frontends only when they start: vLLM's own.
    var foreignEngines: [Int] {
        configuration.dataParallel.servedRanks.filter { handshake?.state.instance(ofRank: $0) == nil }
    }

    /// A successor would never get to know them.
    func hasForeignEngines(for frontend: SupervisedProcess) -> Bool {
        guard recovery == nil, !foreignEngines.isEmpty else { return false }
        let list = foreignEngines.map(String.init).joined(separator: ", ")
        logger.error("\(frontend.name) cannot be replaced: vLLM's own engines (\(list)) register once, when they start")
        return true
    }

    /// Engines notice by themselves when the frontend behind a unix socket comes back; over TCP they cannot tell that from
    /// a fault of the network.
    func introduce(frontendAt place: Int?, of frontends: any FrontendManager) {
        guard let place, case let transport = frontends.transports[place], transport.inputAddress.hasPrefix("tcp://")
        else { return }
        let index = clientIndices.lowerBound + place
        sendToEngines(.disconnectFrontend(clientIndex: index))
        sendToEngines(
            .connectFrontend(clientIndex: index, input: transport.inputAddress, output: transport.outputAddress))
    }
}
