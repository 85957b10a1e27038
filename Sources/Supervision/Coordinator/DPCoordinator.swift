import EngineProtocol
import Glibc
import Logging

/// The supervisor's side of the coordinator process (vLLM: `DPCoordinator`).
package final class DPCoordinator {
    package static let processName = "DPCoordinator"

    package let child: SupervisedProcess
    /// For frontends: an XPUB.
    package let statsPublishAddress: String
    /// For engines: where they send (a PULL), and where they are told (an XPUB).
    package let engineOutputAddress: String
    package let enginePublishAddress: String
    private let factory: ChildFactory

    /// Starts the process and waits until it has told its addresses.
    ///
    /// - Parameter timeout: vLLM allows 120 s.
    package init(
        _ configuration: CoordinatorProcess.Configuration, executable: String = "/proc/self/exe",
        environment: [String: String] = ProcessInfo.environment(), factory: ChildFactory,
        timeout: Duration = .seconds(120), isInterrupted: () -> Bool = { false }
    ) throws {
        self.factory = factory
        var request = SpawnRequest(
            name: Self.processName, executable: ProcessInfo.readLink(executable) ?? executable,
            arguments: [
                "dp-coordinator", "--engine-count", String(configuration.engineCount),
                "--stats-publish-address", configuration.statsPublish,
                "--engine-output-address", configuration.engineOutput,
                "--engine-publish-address", configuration.enginePublish,
                "--protocol-version", "\(configuration.family)",
            ] + (configuration.coordinatesWaves ? ["--waves"] : []),
            environment: environment)
        let report = try AddressReport(names: CoordinatorProcess.addressNames, loop: factory.loop)
        request.arguments += ["--address-fd", String(request.inherit(report.childEnd))]
        request.arguments += ["--death-fd", String(request.inherit(factory.deathDescriptor))]
        let child = try factory.start(request)
        self.child = child
        report.spawned()
        factory.logger.info(
            "Started \(child.name)",
            metadata: ["pid": "\(child.process.pid)", "command": "\(shellQuoted(request))"])
        waitForSentinels([child.process], on: factory.loop, until: .now + timeout) {
            !report.isComplete && child.process.isAlive && !isInterrupted()
        }
        report.drain()
        // One that dies closes the pipe a moment before it has ended.
        if report.result == .endOfFile { child.process.join(timeout: .seconds(1)) }
        guard case .addresses(let addresses)? = report.result else {
            let problem =
                child.process.isAlive
                ? "has not told its addresses within \(timeout.inSeconds) s"
                : "ended before it told its addresses: \(child.process.exitDescription)"
            throw SupervisionError(
                .startupFailure, "process \(child.name) (pid \(child.process.pid)) \(problem)")
        }
        statsPublishAddress = addresses[0]
        engineOutputAddress = addresses[1]
        enginePublishAddress = addresses[2]
    }

    /// SIGTERM, grace (nil = 5 s), then SIGKILL. Idempotent. Returns the names of those killed.
    @discardableResult
    package func shutdown(timeout: Duration?, isInterrupted: () -> Bool = { false }) -> [String] {
        let killed = Supervision.shutdown(
            [child.process], timeout: timeout, on: factory.loop, logger: factory.logger, isInterrupted: isInterrupted)
        child.log.close()
        return killed
    }
}
