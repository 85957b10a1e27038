/// The frontends of a service, be it one or several: what waiting, restarting and stopping need to know.
package protocol FrontendManager: AnyObject {
    var children: [SupervisedProcess] { get }
    var kind: FrontendKind { get }
    /// The engine side, by client index.
    var transports: [FrontendTransport] { get }
    /// How often a crashed frontend was replaced.
    var restarts: Int { get }

    /// Starts a successor of a frontend that has ended, on the same socket and listeners.
    func restart(_ child: SupervisedProcess) throws

    /// From the next restart on, frontends use other sockets for engines: vLLM's Rust frontend removes the files of the
    /// ones it had when it ends in order.
    func renewTransports(_ make: (FrontendContract) throws -> FrontendTransport) throws

    /// See `APIServerProcessManager`.
    @discardableResult
    func gatherActualAddresses(
        timeout: Duration, isInterrupted: () -> Bool
    ) throws -> [(input: String, output: String)]

    /// SIGTERM, at least 5 s of grace, then SIGKILL of the tree. Idempotent. Returns the names of those killed.
    @discardableResult
    func shutdown(timeout: Duration?, isInterrupted: () -> Bool) -> [String]
}

extension FrontendManager {
    package var processes: [SubprocessWrapper] { children.map(\.process) }

    /// The first frontend that has ended.
    package func firstExited() -> SupervisedProcess? { children.first { !$0.process.isAlive } }

    @discardableResult
    package func gatherActualAddresses(timeout: Duration) throws -> [(input: String, output: String)] {
        try gatherActualAddresses(timeout: timeout, isInterrupted: { false })
    }

    @discardableResult
    package func shutdown(timeout: Duration?) -> [String] { shutdown(timeout: timeout, isInterrupted: { false }) }
}
