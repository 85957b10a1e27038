import Logging

/// N frontend processes that share the HTTP socket (vLLM: `APIServerProcessManager`), each with its own sockets for
/// engines and its own client index.
package final class APIServerProcessManager: FrontendManager {
    private let members: [FrontendProcessManager]
    private let factory: ChildFactory

    /// - Parameter transports: one per process; the index is the client index.
    package init(
        _ launch: FrontendLaunch, listener: HTTPListener, transports: [FrontendTransport],
        directory: RuntimeDirectory, factory: ChildFactory
    ) throws {
        self.factory = factory
        var members: [FrontendProcessManager] = []
        // On failure those that have been started end with the array.
        for (index, transport) in transports.enumerated() {
            var launch = launch
            launch.clientIndex = index
            launch.clientCount = transports.count
            members.append(
                try FrontendProcessManager(
                    launch, listener: listener, transport: transport, directory: directory, factory: factory))
        }
        self.members = members
    }

    package var children: [SupervisedProcess] { members.flatMap(\.children) }
    package var kind: FrontendKind { members.first?.kind ?? .swift }
    package var transports: [FrontendTransport] { members.map(\.transport) }
    package var restarts: Int { members.reduce(0) { $0 + $1.restarts } }

    package func restart(_ child: SupervisedProcess) throws {
        for member in members where member.children.contains(where: { $0 === child }) { try member.restart() }
    }

    package func renewTransports(_ make: (FrontendContract) throws -> FrontendTransport) throws {
        for member in members { try member.renewTransports(make) }
    }

    /// Waits until every child that binds its sockets itself has told their addresses over its pipe (vLLM:
    /// `gather_actual_addresses`). What a child has told counts, even if it has ended since.
    ///
    /// - Returns: by client index.
    /// - Throws: `SupervisionError(.startupFailure)` that names the child: it ended or hung up before it told, what it
    ///   told makes no sense, or the time was over.
    @discardableResult
    package func gatherActualAddresses(
        timeout: Duration, isInterrupted: () -> Bool
    ) throws -> [(input: String, output: String)] {
        try Supervision.gatherActualAddresses(
            members, timeout: timeout, on: factory.loop, isInterrupted: isInterrupted)
    }

    @discardableResult
    package func shutdown(timeout: Duration?, isInterrupted: () -> Bool) -> [String] {
        // All at once: the grace is for all of them together.
        let killed = shutdownSubprocesses(
            processes, timeout: timeout, on: factory.loop, logger: factory.logger, isInterrupted: isInterrupted)
        for member in members { member.shutdown(timeout: .zero) }
        return killed
    }
}

/// See `APIServerProcessManager.gatherActualAddresses`.
func gatherActualAddresses(
    _ members: [FrontendProcessManager], timeout: Duration, on loop: EventLoop, isInterrupted: () -> Bool
) throws -> [(input: String, output: String)] {
    waitForSentinels(members.flatMap(\.processes), on: loop, until: .now + timeout) {
        !isInterrupted() && members.contains { $0.addressReport?.isComplete == false }
            && members.allSatisfy { $0.addressFailure == nil }
    }
    // A child may have told and ended before the loop looked at its pipe.
    for member in members {
        member.addressReport?.drain()
        // One that dies closes the pipe a moment before it has ended.
        if member.addressReport?.result == .endOfFile { member.children.first?.process.join(timeout: .seconds(1)) }
    }
    if let failure = members.lazy.compactMap(\.addressFailure).first {
        throw SupervisionError(.startupFailure, failure)
    }
    return try members.map { member in
        if let report = member.addressReport {
            guard case .addresses(let addresses)? = report.result else {
                throw SupervisionError(
                    .startupFailure, "\(member.childName) has not told its addresses within \(timeout.inSeconds) s")
            }
            member.adopt(input: addresses[0], output: addresses[1])
        }
        return (member.transport.inputAddress, member.transport.outputAddress)
    }
}

extension FrontendProcessManager {
    fileprivate var childName: String {
        children.first.map { "\($0.name) (pid \($0.process.pid))" } ?? kind.processName
    }

    /// Why the child will never tell its addresses; nil while it may, or has.
    fileprivate var addressFailure: String? {
        guard let report = addressReport else { return nil }
        // Order matters: what was told counts more than how the child ended.
        if let exited = firstExited() {
            report.drain()
            if report.result == nil || report.result == .endOfFile {
                return "\(childName) ended before it told its addresses: \(exited.process.exitDescription)"
            }
        }
        switch report.result {
        case .endOfFile?: return "\(childName) closed its address pipe without telling its addresses"
        case .unusable(let problem)?: return "\(childName) told no usable addresses: \(problem)"
        case .addresses?, nil: return nil
        }
    }
}
