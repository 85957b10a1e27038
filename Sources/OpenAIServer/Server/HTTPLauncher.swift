import EngineClient
import Glibc
import Logging
import Metrics
import NIOCore
import NIOPosix

/// The HTTP side of a frontend process from its listener to its last byte (the role of vLLM's `launcher.py`).
struct HTTPLauncher {
    let context: ServerContext
    let events: SignalPipe
    let environment: ServerEnvironment
    let logger: Logger

    private var engine: any EngineConnection { context.engine }

    /// Serves the routes until a signal or the engine's death (vLLM: `serve_http`).
    ///
    /// - Parameter tls: nil = plain HTTP.
    /// - Returns: the exit code.
    /// - Throws: why it cannot listen.
    func serveHTTP(
        _ router: Router, on target: ListenTarget, group: MultiThreadedEventLoopGroup, tls: TLSContextBox?
    ) throws -> Int32 {
        let configuration = context.configuration
        logger.info("routes: \(router.summary)")
        var router = router
        UnsupportedRoutes.install(on: &router, context: context)
        let service = HTTPService(context: context, router: router, logger: logger)
        let loops = group.makeIterator().reduce(0) { count, _ in count + 1 }
        let listener = try HTTPListener.start(on: target, service: service, group: group, tls: tls)
        logger.info(
            "listening on \(listener.localAddress?.shortDescription ?? "an inherited socket") with \(loops) event loops"
        )
        context.startup.reached("listening")

        var tasks = PeriodicTasks()
        if !configuration.disableLogStats { logStatus(in: &tasks) }
        if let settings = configuration.tls, settings.refreshes, let tls {
            let refresh = CertificateRefresh(settings, box: tls, logger: logger)
            tasks.add(every: CertificateRefresh.interval) { refresh.check() }
        }
        if !environment.keepsAliveOnEngineDeath, !environment.enginesAreReplaced {
            watchdogLoop(in: &tasks)
        }
        while true {
            switch events.next(milliseconds: tasks.run()) {
            case .stop:
                let patience = configuration.shutdownTimeout
                shutDown(listener, patience: patience, accepting: patience > 0)
                return 0
            case .drain:
                shutDown(listener, patience: .infinity, accepting: true)
                return 0
            case .handOver:
                handOver(listener)
                return 0
            case .startupFailed:
                guard case .dead(let reason) = engine.state else { continue }
                logger.error("engine start-up failed: \(reason)")
                return 1
            case .engineDead:
                terminateIfErrored(listener)
                return 1
            case .wakeUp, nil: continue
            }
        }
    }

    private func logStatus(in tasks: inout PeriodicTasks) {
        var status = StatusLine()
        let interval = environment.statusInterval
        tasks.add(every: interval) { [context, logger] in
            if let line = status.next(context.metrics.totals(), seconds: interval) { logger.info("\(line)") }
        }
    }

    /// A server whose engine is dead is of no use unless somebody brings the engine back (vLLM: `watchdog_loop`, every
    /// five seconds; `VLLM_KEEP_ALIVE_ON_ENGINE_DEATH` turns it off).
    private func watchdogLoop(in tasks: inout PeriodicTasks) {
        tasks.add(every: 5) {
            if case .dead = engine.state { events.post(.engineDead) }
        }
    }

    /// vLLM: `terminate_if_errored`. The requests have failed already; their answers get a moment to leave.
    private func terminateIfErrored(_ listener: HTTPListener) {
        if case .dead(let reason) = engine.state { logger.error("the engine is dead, ending: \(reason)") }
        shutDown(listener, patience: 0, accepting: false)
    }

    /// Leaves the socket to another process: every connection that was accepted here is answered, then the end. A stop
    /// signal skips the waiting.
    private func handOver(_ listener: HTTPListener) {
        logger.info(
            "handing over: \(context.runningRequests()) requests are running on \(context.openConnections()) connections"
        )
        try? listener.close().wait()
        context.startLeaving()
        wait(seconds: .infinity, events) { context.openConnections() == 0 }
        end()
    }

    /// Lets requests end for `patience` seconds, ends the rest in-band, and says goodbye to the engines. A stop signal
    /// skips the waiting.
    ///
    /// - Parameter accepting: new connections are still taken, and their requests refused with 503; otherwise somebody
    ///   else takes them, or nobody.
    private func shutDown(_ listener: HTTPListener, patience: Double, accepting: Bool) {
        let limit = patience.isFinite ? ", waiting up to \(patience) s" : ""
        logger.info("draining: \(context.runningRequests()) requests are running\(limit)")
        if !accepting { try? listener.close().wait() }
        context.startDraining()
        wait(seconds: patience, events) { context.runningRequests() == 0 }
        try? listener.close().wait()
        end()
    }

    private func end() {
        let rest = context.runningRequests()
        logger.info("stopping: \(rest) requests are ended")
        context.endRunningRequests()
        // Time for the last bytes to leave; a client that does not take them is not waited for longer.
        wait(seconds: 3) { context.openConnections() == 0 }
        guard let engine = engine as? EngineClient else { return }
        engine.shutdown(drainTimeout: .zero) { events.post(.wakeUp) }
        wait(seconds: 2, events) { engine.state == .closed }
    }

    /// Until `condition` holds, the time is over, or another stop signal comes (with `events`).
    private func wait(seconds: Double, _ events: SignalPipe? = nil, until condition: () -> Bool) {
        let end = MonotonicClock.now() + seconds
        while !condition() {
            let left = end - MonotonicClock.now()
            guard left > 0 else { return }
            let pause = Int32(min(20, max(1, left * 1000)))
            guard let events else {
                poll(nil, 0, pause)
                continue
            }
            if events.next(milliseconds: pause) == .stop { return }
        }
    }
}
