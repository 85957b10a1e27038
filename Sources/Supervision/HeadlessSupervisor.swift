import CProcessShims
import EngineProtocol
import Glibc
import Logging
import ZeroMQ

/// `--headless`: the engines of a node whose requests come from the frontends of another one. There is no port, no
/// frontend and no handshake here; the engines dial the other node themselves.
package final class HeadlessSupervisor {
    private let configuration: ServeConfiguration
    private let logger: Logger
    private let output: LogOutput
    private let loop = EventLoop()
    private var directory: RuntimeDirectory?
    private var orphanGuard: OrphanGuard?
    private var engines: EngineProcessManager?
    private var restarts: RestartPolicy

    package init(configuration: ServeConfiguration, logger: Logger, output: LogOutput = .standardError) {
        self.configuration = configuration
        self.logger = logger
        self.output = output
        restarts = configuration.engineRestarts
    }

    /// Runs until a signal or the end of an engine; everything is gone when it returns.
    package func run() -> ExitCode {
        defer {
            engines?.shutdown(timeout: .zero, isInterrupted: { true })
            orphanGuard?.finish()
        }
        do {
            let signals = try SignalSource(loop: loop)
            signals.onChildExit = { [unowned self] in reapStrangers() }
            try start()
            return serve(signals: signals)
        } catch let error as SupervisionError {
            logger.end(error.code, error.message)
            return error.code
        } catch {
            logger.critical("\(error)")
            return .failure
        }
    }

    private func start() throws {
        let directory = try RuntimeDirectory.plan()
        self.directory = directory
        let orphanGuard = try OrphanGuard(directory: directory.path)
        self.orphanGuard = orphanGuard
        try directory.create()
        RuntimeDirectory.sweepStale()
        _ = cps_become_subreaper()
        let topology = configuration.dataParallel
        var launch = EngineLaunch(
            executable: configuration.engineExecutable, model: configuration.model,
            handshakeAddress: topology.handshakeAddress, arguments: configuration.engineArguments,
            environment: ProcessInfo.environment())
        launch.startIndex = topology.startRank
        launch.count = topology.localSize
        launch.isHeadless = true
        // As for our own frontend, unless --frontend-version says what the other node has.
        launch.arguments += ["--control", "--protocol-version", "\(configuration.frontendContract.family)"]
        engines = try EngineProcessManager(
            launch,
            factory: ChildFactory(loop: loop, orphanGuard: orphanGuard, logger: logger, output: output))
        let ranks = topology.localRanks
        logger.info(
            """
            Headless: engines \(ranks.lowerBound) to \(ranks.upperBound - 1) of \(topology.size) dial \
            \(topology.handshakeAddress)
            """)
    }

    private func serve(signals: SignalSource) -> ExitCode {
        guard let engines else { return .failure }
        let exited = waitForEnd(of: engines, signals: signals)
        let signalsBefore = max(1, signals.stopRequests.count)
        let isInterrupted = { signals.stopRequests.count > signalsBefore }
        let patience = max(configuration.shutdownTimeout, .seconds(5))
        let killed = engines.shutdown(timeout: patience, isInterrupted: isInterrupted)
        if let exited {
            exited.child.log.writeErrorBlock()
            logger.end(.failure, describe(exited.child) + exited.reason)
            return .failure
        }
        let cause = signals.stopRequests.first.map(signalName) ?? "a signal"
        guard killed.isEmpty else {
            logger.error("Stopped by \(cause); had to be killed: \(killed.joined(separator: ", "))")
            return .killed
        }
        logger.info("Stopped by \(cause)")
        return .success
    }

    private func describe(_ child: SupervisedProcess) -> String {
        "engine process \(child.name) (pid \(child.process.pid)) ended unexpectedly: \(child.process.exitDescription)"
    }

    /// Until a signal (nil), or until an engine has died that is not replaced.
    private func waitForEnd(
        of engines: EngineProcessManager, signals: SignalSource
    ) -> (child: SupervisedProcess, reason: String)? {
        // Those that have ended and are being replaced.
        var replaced: Set<pid_t> = []
        while !signals.stopRequested {
            let generation = engines.processes.map(\.pid)
            replaced.formIntersection(generation)
            let ended = engines.monitorEngineLiveness(except: replaced) {
                !signals.stopRequested && engines.processes.map(\.pid) == generation
            }
            guard !signals.stopRequested, let child = ended else { continue }
            if let reason = replace(child, in: engines, signals: signals) { return (child, reason) }
            replaced.insert(child.process.pid)
        }
        return nil
    }

    /// The node with the frontends has to know, and decides whether another engine may come.
    ///
    /// - Returns: why none comes, as the end of a sentence; nil if one does.
    private func replace(
        _ child: SupervisedProcess, in engines: EngineProcessManager, signals: SignalSource
    ) -> String? {
        guard let rank = engines.rank(of: child) else { return "" }
        let isAllowed = configuration.engineRestarts.limit > 0
        let delay = restarts.delay(now: .now)
        let answer = report(loss: rank, returns: delay != nil, signals: signals)
        guard let delay else {
            return isAllowed ? "; engines were restarted \(restarts.count) times already" : ""
        }
        guard let answer else {
            return
                "; it is not restarted: the node with the frontend does not answer, as vLLM's launcher, which takes "
                + "every engine once"
        }
        if let refusal = answer.refusal {
            return "; it is not restarted: the node with the frontend says that \(refusal)"
        }
        logger.error(
            """
            \(describe(child)); starting another after \(milliseconds(delay)) ms \
            (\(restarts.count) of \(restarts.limit) allowed)
            """)
        start(successorOf: rank, after: delay, in: engines)
        return nil
    }

    private func start(successorOf rank: Int, after delay: Duration, in engines: EngineProcessManager) {
        loop.schedule(after: delay) { [unowned self] in
            do { try engines.restart(rank: rank) } catch {
                logger.error("\(error); trying again")
                start(successorOf: rank, after: .seconds(1), in: engines)
            }
        }
    }

    /// - Returns: nil if there is no answer within 5 seconds, or none is wanted.
    private func report(loss rank: Int, returns: Bool, signals: SignalSource) -> EngineReturnAnswer? {
        var message = EngineHandshakeMessage(status: .lost, isLocal: false, isHeadless: true)
        message.returns = returns
        do {
            let socket = try ZMQSocket(.dealer, context: ZMQContext())
            defer { socket.close() }
            // Also gets through if it is the last thing that is sent here.
            try socket.setLinger(milliseconds: 1000)
            try socket.setIdentity(EngineIdentity.encode(rank: rank))
            let address = configuration.dataParallel.handshakeAddress
            if address.hasPrefix("tcp://[") { try socket.setIPv6(true) }
            try socket.connect(address)
            try socket.send(message.encode())
            guard returns else { return nil }
            let descriptor = try socket.eventDescriptor()
            loop.watch(descriptor) {}
            defer { loop.unwatch(descriptor) }
            var answer: EngineReturnAnswer?
            loop.run(until: .now + .seconds(5)) {
                if let frame = (try? socket.receiveFrames())?.first {
                    answer = frame.withUnsafeBytes { try? EngineReturnAnswer(decoding: $0) }
                }
                return answer == nil && !signals.stopRequested
            }
            return answer
        } catch {
            logger.error("the node with the frontend cannot be told that engine \(rank) died: \(error)")
            return nil
        }
    }

    private func reapStrangers() {
        var known = (engines?.processes ?? []).map(\.pid)
        if let reaper = orphanGuard?.reaperPid { known.append(reaper) }
        var reaped: pid_t = 0
        repeat {
            guard cps_reap_stranger(known, known.count, &reaped) == 0 else { return }
        } while reaped != 0
        _ = try? orphanGuard?.ensureReaper()
    }
}
