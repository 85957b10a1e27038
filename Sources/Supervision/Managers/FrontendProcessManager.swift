import Glibc
import Logging

/// One frontend process (vLLM: `RustFrontendProcessManager`): swift, rust, or any program with that command line.
///
/// It inherits the HTTP socket and, from contract 0.32 on, its two listeners for engines. Our copies stay open, so that
/// a successor can be started on the same addresses.
package final class FrontendProcessManager: FrontendManager {
    package private(set) var children: [SupervisedProcess] = []
    package private(set) var transport: FrontendTransport
    /// Where the child tells the addresses that it has bound, if it has to.
    private(set) var addressReport: AddressReport?
    /// How often a crashed frontend was replaced.
    package private(set) var restarts = 0
    private let launch: FrontendLaunch
    private let factory: ChildFactory
    private let listener: HTTPListener
    private let directory: RuntimeDirectory

    package init(
        _ launch: FrontendLaunch, listener: HTTPListener, transport: FrontendTransport, directory: RuntimeDirectory,
        factory: ChildFactory
    ) throws {
        self.launch = launch
        self.factory = factory
        self.listener = listener
        self.transport = transport
        self.directory = directory
        try start()
    }

    deinit { shutdown(timeout: nil) }

    package var kind: FrontendKind { launch.kind }
    package var transports: [FrontendTransport] { [transport] }

    package func restart(_ child: SupervisedProcess) throws { try restart() }

    package func renewTransports(_ make: (FrontendContract) throws -> FrontendTransport) throws {
        let old = transport
        transport = try make(launch.contract)
        old.close()
        for address in [old.inputAddress, old.outputAddress] where address.hasPrefix("ipc://") {
            unlink(String(address.dropFirst(6)))
        }
    }

    @discardableResult
    package func gatherActualAddresses(
        timeout: Duration, isInterrupted: () -> Bool
    ) throws -> [(input: String, output: String)] {
        try Supervision.gatherActualAddresses([self], timeout: timeout, on: factory.loop, isInterrupted: isInterrupted)
    }

    /// From now on these are the child's addresses, and its successors'.
    func adopt(input: String, output: String) {
        transport = .addresses(input: input, output: output)
        addressReport = nil
    }

    /// Starts a successor of a frontend that has ended, on the same socket and listeners. Engines reconnect to it.
    package func restart() throws {
        for child in children { child.log.close() }
        children = []
        // A frontend that binds its addresses itself may not expect the files of its predecessor.
        if case .addresses(let input, let output) = transport {
            for address in [input, output] where address.hasPrefix("ipc://") { unlink(String(address.dropFirst(6))) }
        }
        restarts += 1
        try start()
    }

    private func start() throws {
        var request = SpawnRequest(
            name: launch.processName, executable: launch.executable, arguments: [],
            environment: launch.environment)
        if restarts == 0 {
            request.environment["VLLM_ENGINE_STARTUP"] = launch.startupReport
        } else if request.environment["VLLM_ENGINE_LISTEN_PATIENCE_S"] == nil {
            // Clients that knocked meanwhile would be refused for the moment that engines take to come back.
            request.environment["VLLM_ENGINE_LISTEN_PATIENCE_S"] = "1"
        }
        request.title = launch.processTitle
        if launch.kind == .swift {
            request.environment["VLLM_ENGINE_PROCESS_NAME"] = launch.processName
            if let progress = launch.progress {
                let descriptor = request.inherit(progress.descriptor.rawValue)
                request.environment[LoadProgress.variable] = String(descriptor)
            }
        }
        let death = request.inherit(factory.deathDescriptor)
        request.environment[OrphanGuard.deathDescriptorVariable] = String(death)
        let listenDescriptor = request.inherit(listener.descriptor.rawValue)
        let words = try commandLine(listenDescriptor: listenDescriptor, request: &request)
        request.arguments = words(launch.arguments.json)
        if let metricsDirectory = launch.metricsDirectory, launch.kind == .python {
            request.environment["PROMETHEUS_MULTIPROC_DIR"] = metricsDirectory
        }
        // Whether a frontend without an engine should end is for the supervisor to say.
        if launch.kind == .swift, request.environment["VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"] == nil {
            request.environment["VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"] = "1"
        }
        let child = try factory.start(request)
        addressReport?.spawned()
        children = [child]
        request.arguments = words(launch.arguments.redactedJSON)
        factory.logger.info(
            "Started \(child.name)",
            metadata: ["pid": "\(child.process.pid)", "command": "\(shellQuoted(request))"])
    }

    /// The arguments as a function of the JSON in them, so that the log can show another one.
    private func commandLine(
        listenDescriptor: Int32, request: inout SpawnRequest
    ) throws -> (_ argumentsJSON: String) -> [String] {
        let launch = launch
        switch transport {
        case .listeners(let input, let output):
            let inputDescriptor = request.inherit(input.descriptor.rawValue)
            let outputDescriptor = request.inherit(output.descriptor.rawValue)
            if launch.kind == .python {
                let script = try directory.write(pythonFrontendScript, to: "vllm_api_server.py")
                return { json in
                    launch.pythonCommandLine(
                        script: script, listenDescriptor: listenDescriptor, inputDescriptor: inputDescriptor,
                        outputDescriptor: outputDescriptor, inputAddress: input.address,
                        outputAddress: output.address, argumentsJSON: json)
                }
            }
            return { json in
                launch.commandLine(
                    listenDescriptor: listenDescriptor,
                    transport: [
                        "--input-listener-fd", String(inputDescriptor), "--output-listener-fd",
                        String(outputDescriptor),
                    ],
                    argumentsJSON: json)
            }
        case .addresses(let input, let output):
            var words = ["--input-address", input, "--output-address", output]
            if transport.isChosenByTheFrontend {
                let report = try AddressReport(loop: factory.loop)
                addressReport = report
                words += ["--address-fd", String(request.inherit(report.childEnd))]
            }
            return { json in
                launch.commandLine(listenDescriptor: listenDescriptor, transport: words, argumentsJSON: json)
            }
        }
    }

    @discardableResult
    package func shutdown(timeout: Duration?, isInterrupted: () -> Bool) -> [String] {
        let killed = shutdownSubprocesses(
            processes, timeout: timeout, on: factory.loop, logger: factory.logger, isInterrupted: isInterrupted)
        for child in children { child.log.close() }
        transport.close()
        return killed
    }
}
