import CProcessShims
import EngineHandshake
import EngineProtocol
import Glibc
import Logging
import ZeroMQ

/// Runs one service from bind to exit: sockets, children, handshake, waiting, one shutdown path.
///
/// Everything happens on the calling thread, which must be the first one of the process: signals are blocked and the
/// reaper is forked before other threads exist.
package final class Supervisor {
    let configuration: ServeConfiguration
    let logger: Logger
    private let output: LogOutput
    let loop = EventLoop()
    let notifier = ServiceNotifier()
    let start = ContinuousClock.now
    /// What was reached when, for the start-up line.
    private(set) var milestones: [(name: String, after: Duration)] = []

    private(set) var listener: HTTPListener?
    private var orphanGuard: OrphanGuard?
    private(set) var context: ZMQContext?
    private(set) var frontends: (any FrontendManager)?
    private(set) var engines: EngineProcessManager?
    private(set) var coordinator: DPCoordinator?
    /// Where engines in lockstep meet, if rank 0 is of this node.
    var lockstepPorts: LockstepPorts?
    /// What the node of rank 0 told, if that is another one.
    private(set) var firstNode: EngineInitMessage?
    private var probe: ReadinessProbe?
    private(set) var state = "starting"
    private var frontendRestarts: RestartPolicy
    var engineRestarts: RestartPolicy
    private var frontendLostAt: ContinuousClock.Instant?
    private var control: ControlServer?
    private(set) var handshake: HandshakeServer?
    private(set) var directory: RuntimeDirectory?
    private(set) var progress: LoadProgress?
    private(set) var factory: ChildFactory?
    /// Engines that died and are being replaced.
    var recovery: EngineRecovery?
    /// The exchange of the frontend that is under way.
    var swap: FrontendSwap?
    /// Answers on TLS sockets in place of frontends that do not any more.
    var refusal: RefusingProcess?
    /// The program that is asked what kind of frontend it is, for a swap.
    var contractProbe: ContractProbe?
    /// How often frontends that share their metrics were started together.
    var generation = 0
    /// Of the frontends that serve, at the engines.
    var clientIndices: Range<Int>
    /// Set when an engine of another machine has died for good: what happened.
    var lostRemoteEngine: String?
    /// Set by `vllm-engine drain`, in place of the configured shutdown timeout.
    var drainTimeout: Duration?
    /// Clients of the control socket that want to know how it ended.
    var drainObservers: [ControlServer.Exchange] = []

    package init(configuration: ServeConfiguration, logger: Logger, output: LogOutput = .standardError) {
        self.configuration = configuration
        self.logger = logger
        self.output = output
        frontendRestarts = configuration.frontendRestarts
        engineRestarts = configuration.engineRestarts
        clientIndices = 0..<max(configuration.apiServerCount, configuration.split.count)
    }

    /// Serves until a signal or a failure; everything is gone when it returns.
    package func run() -> ExitCode {
        do {
            // Until here a signal ends the process at once, which leaves nothing behind.
            let signals = try SignalSource(loop: loop)
            step("signals caught")
            let code: ExitCode
            do {
                try bringUp(signals: signals)
                code = try serve(signals: signals)
            } catch let error as SupervisionError {
                code = fail(error, signals: signals)
            }
            tellDrainObservers(code)
            tearDown()
            return code
        } catch {
            logger.critical("\(error)")
            tearDown()
            return (error as? SupervisionError)?.code ?? .failure
        }
    }

    // MARK: - Start

    private func bringUp(signals: SignalSource) throws {
        let listener = try bindHTTP()
        self.listener = listener
        reached("bound")
        if !ProcessInfo.isComplete {
            logger.warning("/proc does not show this pid namespace: some of the watching is left out (mount it)")
        }
        feedWatchdog()
        raiseDescriptorLimit()

        let directory = try RuntimeDirectory.plan()
        let orphanGuard = try OrphanGuard(directory: directory.path)
        self.orphanGuard = orphanGuard
        step("orphan guard started")
        try directory.create()
        step("runtime directory created")
        try directory.note(httpAddress: listener.displayAddress)
        listener.allowReuse()
        control = try ControlServer(path: directory.file(ControlServer.fileName), loop: loop) {
            [unowned self, unowned signals] request, exchange in
            handle(request, exchange, signals: signals)
        }
        step("control socket open")
        for path in RuntimeDirectory.sweepStale() {
            logger.info("Removed the runtime directory of a dead run", metadata: ["path": "\(path)"])
        }
        step("stale runs swept")
        _ = cps_become_subreaper()
        signals.onChildExit = { [unowned self] in
            reapStrangers()
            childEndedDuringSwap()
        }
        signals.onDump = { [unowned self] in dumpState() }

        let context: ZMQContext
        do { context = try ZMQContext() } catch { throw SupervisionError(.failure, "\(error)") }
        self.context = context
        self.directory = directory
        progress = try LoadProgress(in: directory)
        let factory = ChildFactory(loop: loop, orphanGuard: orphanGuard, logger: logger, output: output)
        self.factory = factory
        let timeout = configuration.engineReadyTimeout
        let isInterrupted = { signals.stopRequested }
        let remote = try shakeHandsWithFirstNode(context)
        firstNode = try remote?.waitForInit(timeout: timeout, isInterrupted: isInterrupted)
        coordinator = try startCoordinator(directory, factory, isInterrupted: isInterrupted)
        if coordinator != nil { step("coordinator started") }
        if signals.stopRequested { return }
        var transports = try clientIndices.map { _ in
            try makeTransport(configuration.frontendContract, directory)
        }
        step("engine sockets open")
        if transports.contains(where: \.isChosenByTheFrontend) {
            // Engines cannot be told before the frontends have told us.
            frontends = try startFrontends(listener, transports, directory, factory)
            transports = try gatherFrontendAddresses(timeout: timeout, isInterrupted: isInterrupted)
            if signals.stopRequested { return }
        }
        let handshake = try makeHandshake(
            directory, context,
            EngineInitMessage(inputs: transports.map(\.inputAddress), outputs: transports.map(\.outputAddress)))
        self.handshake = handshake
        step("handshake socket open")
        handshake.onEvent = { [unowned self] rank, event in handle(event, rank: rank) }
        handshake.onReady = { [unowned self] rank in engineIsBack(rank: rank) }
        handshake.onLost = { [unowned self] rank, returns in remoteEngineLost(rank: rank, returns: returns) }
        handshake.onViolation = { [unowned self] violation in engineBrokeProtocol(violation) }

        let engines = try EngineProcessManager(engineLaunch(handshake.address), factory: factory)
        self.engines = engines
        step("engines spawned")
        let frontends = try self.frontends ?? startFrontends(listener, transports, directory, factory)
        self.frontends = frontends
        reached("spawned")

        let probe = makeProbe(listener)
        if try handshake.run(
            engines: engines, frontends: frontends, coordinator: coordinator?.child, signals: signals,
            timeout: timeout)
        {
            try remote?.sendReady(hash: handshake.state.parallelConfigHash)
            reached("engine ready")
            probe.isEnabled = true
        }
    }

    /// One line per step of the start, for those who look closely.
    private func step(_ name: String) { logger.debug("Start-up step: \(name)") }

    private func reached(_ milestone: String) {
        step(milestone)
        milestones.append((milestone, ContinuousClock.now - start))
    }

    @discardableResult
    private func makeProbe(_ listener: HTTPListener) -> ReadinessProbe {
        let probe = ReadinessProbe(
            listener, loop: loop, encrypted: configuration.usesTLS,
            isComplete: { [unowned self] in everyFrontendAccepts }
        ) { [unowned self] in becameReady() }
        self.probe = probe
        return probe
    }

    func stopProbe() { probe?.stop() }

    /// Asks again until requests are answered.
    func restartProbe() {
        guard let listener, !isStopping else { return }
        stopProbe()
        makeProbe(listener).isEnabled = true
    }

    private func bindHTTP() throws -> HTTPListener {
        if let listener = try HTTPListener.passed(for: configuration) { return listener }
        if let path = configuration.unixSocketPath { return try .bind(path: path) }
        return try .bind(
            host: configuration.host, port: configuration.port, scheme: configuration.usesTLS ? "https" : "http")
    }

    private func engineLaunch(_ handshakeAddress: String) -> EngineLaunch {
        var launch = EngineLaunch(
            executable: configuration.engineExecutable, model: configuration.model,
            handshakeAddress: handshakeAddress, arguments: configuration.engineArguments,
            environment: ProcessInfo.environment())
        launch.startIndex = configuration.dataParallel.startRank
        launch.count = configuration.dataParallel.localSize
        launch.progress = progress
        launch.arguments += ["--control", "--protocol-version", "\(configuration.frontendContract.family)"]
        return launch
    }

    /// From now on this one is waited for, restarted and stopped.
    func serveWith(_ frontends: any FrontendManager) { self.frontends = frontends }

    func sendToEngines(_ command: EngineControlCommand) {
        for rank in configuration.dataParallel.servedRanks {
            do { try handshake?.send(command, toRank: rank) } catch { logger.error("engine \(rank): \(error)") }
        }
    }

    // MARK: - Serving

    private func becameReady() {
        if frontendLostAt != nil || recovery != nil {
            enter("serving")
            finishRecovery()
            if let lost = frontendLostAt {
                frontendLostAt = nil
                logger.info("The frontend is back after \(milliseconds(ContinuousClock.now - lost)) ms")
            }
            return
        }
        reached("frontend ready")
        enter("serving")
        reportUsageStats()
        let times = milestones.map { "\($0.name) \(milliseconds($0.after)) ms" }.joined(separator: ", ")
        logger.info("Start-up: \(times)")
        if let listener { output.write(line: ReadyBanner(configuration, address: listener.displayAddress).text) }
    }

    var isStopping: Bool { state == "draining" || state == "stopping" }

    func enter(_ state: String) {
        guard state != self.state else { return }
        logger.info("State: \(self.state) -> \(state)")
        self.state = state
        switch state {
        case "serving": notifier.ready("serving")
        case "stopping", "draining": notifier.stopping()
        default: notifier.status(state)
        }
    }

    private func serve(signals: SignalSource) throws -> ExitCode {
        guard let frontends, let engines else {
            // Only a signal ends the start without an error.
            logger.info("Stopped by \(signals.stopRequests.first.map(signalName) ?? "a signal") while starting")
            return .success
        }
        let completion = waitForCompletionOrFailure(
            frontends: self.frontends ?? frontends, engines: engines, coordinator: coordinator?.child.process,
            signals: signals, on: loop, otherFailure: self.lostRemoteEngine,
            frontendExited: { [unowned self] in replaceWithEngine($0) || replace($0) },
            engineExited: { [unowned self] in replace(engine: $0) })
        let wasServing = state != "starting"
        switch completion {
        case .signalled(let signal):
            let cause = drainTimeout == nil ? signalName(signal) : "the drain command"
            logger.info("\(cause) received")
            let killed = stop(signals: signals)
            guard killed.isEmpty else {
                logger.error("Stopped by \(cause); had to be killed: \(killed.joined(separator: ", "))")
                return .killed
            }
            logger.info("Stopped by \(cause)")
            return .success
        case .engineExited(let name, _, _), .processExited(let name, _, _):
            if case .engineExited = completion { announceEngineDeath() }
            // A signal that arrives from now on still shortens the grace.
            stop(signals: signals)
            var cause = completion.message
            if frontendRestarts.count > 0, frontendRestarts.count == frontendRestarts.limit {
                cause += "; it was restarted \(frontendRestarts.count) times already"
            }
            if case .engineExited = completion, engineRestarts.count > 0 {
                cause += "; engines were restarted \(engineRestarts.count) times already"
            }
            report(wasServing ? .failure : .startupFailure, cause, childNamed: name)
            return wasServing ? .failure : .startupFailure
        case .failed(let cause):
            announceEngineDeath()
            stop(signals: signals)
            report(wasServing ? .failure : .startupFailure, cause, childNamed: nil)
            return wasServing ? .failure : .startupFailure
        }
    }

    /// A frontend crashed: the engine keeps its weights, the port stays open, a successor starts on the same listeners.
    /// Returns whether it does; clients that connect meanwhile wait in the socket's backlog.
    private func replace(_ frontend: SupervisedProcess) -> Bool {
        guard state != "starting", frontend.process.exitCode != 0, !hasForeignEngines(for: frontend),
            let delay = frontendRestarts.delay(now: .now)
        else { return leaveToOthers(frontend) }
        logger.error(
            """
            process \(frontend.name) (pid \(frontend.process.pid)) died: \(frontend.process.exitDescription); \
            starting another (\(frontendRestarts.count) of \(frontendRestarts.limit) allowed)
            """)
        if frontends?.processes.contains(where: \.isAlive) != true {
            enter("frontend lost")
            frontendLostAt = frontendLostAt ?? .now
        }
        probe?.stop()
        loop.schedule(after: delay) { [unowned self] in
            guard let frontends, !isStopping else { return }
            do {
                let place = frontends.children.firstIndex { $0 === frontend }
                try frontends.restart(frontend)
                introduce(frontendAt: place, of: frontends)
                // Otherwise when the engine is back, too.
                if recovery?.ranks.isEmpty ?? true { restartProbe() }
            } catch {
                logger.error("\(error)")
            }
        }
        return true
    }

    // MARK: - Ends

    private func fail(_ error: SupervisionError, signals: SignalSource) -> ExitCode {
        // Of several engines that have ended the first one is the cause.
        let failed = engines?.failedProcessName ?? children.first { !$0.process.isAlive }?.name
        // No client has been served yet, so there is nothing to wait for.
        _ = frontends?.shutdown(timeout: .zero, isInterrupted: { signals.stopRequested })
        _ = engines?.shutdown(timeout: .seconds(1), isInterrupted: { signals.stopRequested })
        _ = coordinator?.shutdown(timeout: .seconds(1), isInterrupted: { signals.stopRequested })
        report(error.code, error.message, childNamed: failed)
        return error.code
    }

    /// The failing child's own last words, then the cause as the last line.
    private func report(_ code: ExitCode, _ message: String, childNamed name: String?) {
        if let child = children.first(where: { $0.name == name }) {
            child.log.writeErrorBlock()
        }
        logger.end(code, message)
    }

    private func tearDown() {
        stopProbe()
        control?.close()
        handshake?.close()
        listener?.close()
        _ = frontends?.shutdown(timeout: .zero, isInterrupted: { true })
        _ = swap?.idle.shutdown(timeout: .zero, isInterrupted: { true })
        swap = nil
        _ = engines?.shutdown(timeout: .zero, isInterrupted: { true })
        _ = coordinator?.shutdown(timeout: .zero, isInterrupted: { true })
        orphanGuard?.finish()
        reapStrangers()
    }

    // MARK: - Odds and ends

    /// Orphans of our descendants are re-parented to us (also when we are PID 1); somebody has to reap them.
    private func reapStrangers() {
        var known = children.map(\.process.pid)
        known += (swap?.idle.processes ?? []).map(\.pid) + (contractProbe?.pids ?? []) + (refusal?.pids ?? [])
        if let reaper = orphanGuard?.reaperPid { known.append(reaper) }
        var reaped: pid_t = 0
        repeat {
            guard cps_reap_stranger(known, known.count, &reaped) == 0 else { return }
        } while reaped != 0
        if let replaced = try? orphanGuard?.ensureReaper(), replaced {
            logger.warning("The reaper process was killed; started another")
        }
    }

    var children: [SupervisedProcess] {
        (engines?.children ?? []) + (frontends?.children ?? []) + (coordinator.map { [$0.child] } ?? [])
    }
}

func milliseconds(_ duration: Duration) -> Int64 {
    duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000
}
