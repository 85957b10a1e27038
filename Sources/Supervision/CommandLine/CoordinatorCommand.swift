import ArgumentParser
import EngineProtocol
import Glibc
import Logging
import ZeroMQ

/// `vllm-engine dp-coordinator`: started by the supervisor, not by people.
package struct CoordinatorCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "dp-coordinator", abstract: "The data-parallel coordinator of a running service.",
        shouldDisplay: false)

    @Option package var engineCount: Int
    @Option package var statsPublishAddress: String
    @Option package var engineOutputAddress: String
    @Option package var enginePublishAddress: String
    @Option package var protocolVersion: String
    @Flag(help: "Engines of a mixture-of-experts model run in lockstep.") package var waves = false
    @Option package var addressFd: Int32?
    @Option package var deathFd: Int32?

    package init() {}

    package mutating func validate() throws {
        guard (1...65_536).contains(engineCount) else { throw ValidationError("--engine-count is out of range") }
        guard ProtocolFamily(name: protocolVersion) != nil else {
            throw ValidationError("--protocol-version: \(protocolVersion) is not known")
        }
    }

    package mutating func run() throws {
        // The order of things is the supervisor's: it ends this process last, with SIGTERM. A Ctrl-C is not for us.
        signal(SIGINT, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
        signal(SIGTERM) { _ in _exit(0) }
        let level = SupervisorLogHandler.level(named: ProcessInfo.environmentVariable("VLLM_LOGGING_LEVEL"))
        let logger = Logger(label: "coordinator") { _ in
            SupervisorLogHandler(name: DPCoordinator.processName, level: level)
        }
        var configuration = CoordinatorProcess.Configuration(
            engineCount: engineCount, statsPublish: statsPublishAddress, engineOutput: engineOutputAddress,
            enginePublish: enginePublishAddress)
        configuration.coordinatesWaves = waves
        configuration.family = ProtocolFamily(name: protocolVersion) ?? .newest
        configuration.addressDescriptor = addressFd
        configuration.deathDescriptor = deathFd
        do {
            var process = try CoordinatorProcess(configuration, context: try ZMQContext(), logger: logger)
            try process.run()
        } catch {
            logger.error("\(error)")
            throw ArgumentParser.ExitCode.failure
        }
    }
}
