import Glibc
import Logging

/// Pumps the loop while the condition holds, waking up at the end of each of these processes.
func waitForSentinels(
    _ processes: [SubprocessWrapper], on loop: EventLoop, until deadline: EventLoop.Instant? = nil,
    while condition: () -> Bool
) {
    // A process that has already ended stays readable for ever, so its watch goes at the first event.
    for process in processes where process.isAlive && process.sentinel >= 0 {
        let sentinel = process.sentinel
        loop.watch(sentinel) { loop.unwatch(sentinel) }
    }
    defer { for process in processes { loop.unwatch(process.sentinel) } }
    loop.run(until: deadline, while: condition)
}

/// Ends processes (vLLM: `shutdown`): SIGTERM to each, up to `timeout` (nil = 5 s) for all of them together, then
/// SIGKILL to the trees of those that are left. Idempotent; processes that have ended are left alone.
///
/// - Parameter isInterrupted: cuts the grace short, for a second signal: SIGTERM again, which our own programs take as
///   "at once", and shortly after that SIGKILL.
/// - Returns: the names of the processes that had to be killed.
@discardableResult
package func shutdown(
    _ processes: [SubprocessWrapper], timeout: Duration?, on loop: EventLoop, logger: Logger,
    isInterrupted: () -> Bool = { false }
) -> [String] {
    let running = processes.filter { $0.sentinel >= 0 && $0.isAlive }
    guard !running.isEmpty else { return [] }
    let deadline = ContinuousClock.now + (timeout ?? .seconds(5))
    for process in running {
        logger.debug("SIGTERM to \(process.name)", metadata: ["pid": "\(process.pid)"])
        process.terminate()
    }
    waitForSentinels(running, on: loop, until: deadline) {
        running.contains { $0.isAlive } && !isInterrupted()
    }
    if isInterrupted(), running.contains(where: { $0.isAlive }) {
        // Time to tell clients that this is the end.
        for process in running { process.terminate() }
        waitForSentinels(running, on: loop, until: .now + .milliseconds(1200)) { running.contains { $0.isAlive } }
    }
    let stubborn = running.filter(\.isAlive)
    for process in stubborn {
        logger.warning("Killing \(process.name): it did not end in time", metadata: ["pid": "\(process.pid)"])
        process.killTree()
    }
    for process in stubborn { process.join(timeout: .seconds(5)) }
    return stubborn.map(\.name)
}

/// As `shutdown`, but with at least 5 s of grace whatever the timeout (vLLM: `_shutdown_subprocesses`).
@discardableResult
package func shutdownSubprocesses(
    _ processes: [SubprocessWrapper], timeout: Duration?, on loop: EventLoop, logger: Logger,
    isInterrupted: () -> Bool = { false }
) -> [String] {
    shutdown(
        processes, timeout: max(timeout ?? .zero, .seconds(5)), on: loop, logger: logger,
        isInterrupted: isInterrupted)
}

/// Why a service stopped running.
package enum Completion: Equatable, Sendable {
    /// A stop signal arrived.
    case signalled(Int32)
    /// An engine ended, with any status: the service is of no use without it.
    case engineExited(name: String, pid: pid_t, exit: String)
    /// A frontend or the coordinator ended with a failure, or the last frontend ended.
    case processExited(name: String, pid: pid_t, exit: String)
    /// Something beyond the processes of this machine.
    case failed(String)

    /// The line that names the cause.
    package var message: String {
        switch self {
        case .signalled(let signal): "stopped by \(signalName(signal))"
        case .engineExited(let name, let pid, let exit):
            "engine process \(name) (pid \(pid)) ended unexpectedly: \(exit)"
        case .processExited(let name, let pid, let exit): "process \(name) (pid \(pid)) ended unexpectedly: \(exit)"
        case .failed(let cause): cause
        }
    }
}

/// Waits until a signal asks to stop, an engine ends, a frontend or the coordinator fails, or no frontend is left
/// (vLLM: `wait_for_completion_or_failure`).
///
/// - Parameter frontends: asked again after every wake-up, for they may be exchanged meanwhile.
/// - Parameter frontendExited: may decide to replace a frontend that has ended; true = it did or will, go on waiting.
/// - Parameter engineExited: the same for an engine.
/// - Parameter otherFailure: asked after every wake-up for what else may end the service.
package func waitForCompletionOrFailure(
    frontends current: @autoclosure () -> any FrontendManager, engines: EngineProcessManager?,
    coordinator: SubprocessWrapper? = nil,
    signals: SignalSource, on loop: EventLoop, otherFailure: @autoclosure () -> String? = nil,
    frontendExited: (SupervisedProcess) -> Bool = { _ in false },
    engineExited: (SupervisedProcess) -> Bool = { _ in false }
) -> Completion {
    // Those that have ended and are being replaced.
    var replaced: Set<pid_t> = []
    func replaceable() -> [SubprocessWrapper] { current().processes + (engines?.processes ?? []) }
    while true {
        let generation = replaceable().map(\.pid)
        replaced.formIntersection(generation)
        let watched = replaceable().filter { !replaced.contains($0.pid) } + (coordinator.map { [$0] } ?? [])
        waitForSentinels(watched, on: loop) {
            !signals.stopRequested && watched.allSatisfy(\.isAlive) && replaceable().map(\.pid) == generation
                && otherFailure() == nil
        }

        // The engine first: a frontend that loses its engine may end as a consequence.
        if let engine = engines?.firstExited(except: replaced) {
            if !signals.stopRequested, engineExited(engine) {
                replaced.insert(engine.process.pid)
                continue
            }
            return .engineExited(name: engine.name, pid: engine.process.pid, exit: engine.process.exitDescription)
        }
        if let signal = signals.stopRequests.first { return .signalled(signal) }
        if let cause = otherFailure() { return .failed(cause) }
        if let coordinator, !coordinator.isAlive {
            return .processExited(
                name: coordinator.name, pid: coordinator.pid, exit: coordinator.exitDescription)
        }
        if let frontend = current().children.first(where: {
            !$0.process.isAlive && !replaced.contains($0.process.pid)
        }) {
            // One of several may leave on its own terms.
            let isExpected = frontend.process.exitCode == 0 && current().processes.contains { $0.isAlive }
            guard frontendExited(frontend) || isExpected else {
                return .processExited(
                    name: frontend.name, pid: frontend.process.pid, exit: frontend.process.exitDescription)
            }
            replaced.insert(frontend.process.pid)
        }
    }
}
