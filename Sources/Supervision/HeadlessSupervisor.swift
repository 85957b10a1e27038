import CProcessShims
import Glibc
import Logging

/// `--headless`: the engines of a node whose requests come from the frontends of another one. There is no port, no
/// frontend and no handshake here; the engines dial the other node themselves.
package final class HeadlessSupervisor {
    private let configuration: ServeConfiguration
    private let logger: Logger
    private let output: LogOutput
    private let loop = EventLoop()
    private var orphanGuard: OrphanGuard?
    private var engines: EngineProcessManager?

    package init(configuration: ServeConfiguration, logger: Logger, output: LogOutput = .standardError) {
        self.configuration = configuration
        self.logger = logger
        self.output = output
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
            logger.error("\(error.message) (exit code \(error.code.rawValue))")
            return error.code
        } catch {
            logger.critical("\(error)")
            return .failure
        }
    }

    private func start() throws {
        let directory = try RuntimeDirectory.plan()
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
        launch.arguments += ["--protocol-version", "\(configuration.frontendContract.family)"]
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
        let exited = engines.monitorEngineLiveness { !signals.stopRequested }
        let signalsBefore = max(1, signals.stopRequests.count)
        let isInterrupted = { signals.stopRequests.count > signalsBefore }
        let patience = max(configuration.shutdownTimeout, .seconds(5))
        let killed = engines.shutdown(timeout: patience, isInterrupted: isInterrupted)
        if let exited {
            exited.log.writeErrorBlock()
            logger.error(
                """
                engine process \(exited.name) (pid \(exited.process.pid)) ended unexpectedly: \
                \(exited.process.exitDescription) (exit code \(ExitCode.failure.rawValue))
                """)
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
