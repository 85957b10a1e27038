import Glibc
import JSONBytes
import Logging

/// A process of our frontend's program that answers 503 on TLS sockets (`vllm-swift refuse`), while a frontend that does
/// not accept any more finishes its requests, or is started anew with its engine. The supervisor itself speaks no TLS.
final class RefusingProcess {
    private let child: SupervisedProcess
    private let factory: ChildFactory

    /// - Parameters:
    ///   - listeners: sockets that listen.
    ///   - reason: what clients are told.
    ///   - arguments: of the frontend; those about TLS are passed on.
    /// - Throws: that the program is not there or cannot be started.
    init(
        on listeners: [HTTPListener], _ reason: UnavailableResponder.Reason, arguments: FrontendArguments,
        factory: ChildFactory
    ) throws {
        self.factory = factory
        var request = SpawnRequest(
            name: "Refusal", executable: try Binaries.frontend(.swift, explicit: nil), arguments: ["refuse"])
        for listener in listeners {
            request.arguments += ["--listen-fd", String(request.inherit(listener.descriptor.rawValue))]
        }
        var own = FrontendArguments()
        own["model_tag"] = .string("none")
        for name in arguments.names where name.hasPrefix("ssl_") { own[name] = arguments[name] }
        request.arguments += ["--args-json", own.json, "--message", reason.rawValue]
        request.environment["VLLM_ENGINE_PROCESS_NAME"] = request.name
        let death = request.inherit(factory.deathDescriptor)
        request.environment[OrphanGuard.deathDescriptorVariable] = String(death)
        child = try factory.start(request)
        factory.logger.info(
            "Started \(child.name), which answers new requests", metadata: ["pid": "\(child.process.pid)"])
    }

    /// Somebody who reaps strangers must leave these.
    var pids: [pid_t] { [child.process.pid] }

    /// Lets it give its last answers and end, without waiting for that.
    /// - Parameter ended: called then.
    func retire(then ended: @escaping () -> Void) {
        let sentinel = child.process.sentinel
        guard child.process.isAlive else { return ended() }
        factory.loop.watch(sentinel) { [self] in
            factory.loop.unwatch(sentinel)
            shutdown()
            ended()
        }
        child.process.terminate()
    }

    /// Idempotent.
    func shutdown() {
        Supervision.shutdown([child.process], timeout: .seconds(1), on: factory.loop, logger: factory.logger)
        child.log.close()
    }
}
