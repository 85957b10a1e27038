import Logging

/// Different frontends before the same engines, each with a share of the new connections (`--split`).
///
/// Each has a listening socket of its own on the common port, its own sockets for engines, and a door through which its
/// own pages can be reached.
package final class SplitFrontendManager: FrontendManager {
    package final class Part {
        package let manager: FrontendProcessManager
        /// At the engines.
        package let clientIndex: Int
        package let listener: HTTPListener
        package let weight: Int
        package let door: FrontendDoor

        init(manager: FrontendProcessManager, clientIndex: Int, listener: HTTPListener, weight: Int, door: FrontendDoor)
        {
            self.manager = manager
            self.clientIndex = clientIndex
            self.listener = listener
            self.weight = weight
            self.door = door
        }
    }

    /// Those that take part; one that died and is not replaced leaves.
    package private(set) var parts: [Part] = []
    package let group: ReusePortGroup
    private let factory: ChildFactory

    /// - Parameters:
    ///   - launches: one per share.
    ///   - listener: of the port; the first frontend gets it.
    package init(
        _ launches: [FrontendLaunch], weights: [Int], listener: HTTPListener, transports: [FrontendTransport],
        directory: RuntimeDirectory, factory: ChildFactory
    ) throws {
        self.factory = factory
        group = try ReusePortGroup(first: listener, weights: weights)
        for (index, member) in group.members.enumerated() {
            let door = try FrontendDoor(
                path: directory.file("frontend-\(index).sock"), to: member.listener, in: group, loop: factory.loop)
            let manager = try FrontendProcessManager(
                launches[index], listener: member.listener, transport: transports[index], directory: directory,
                factory: factory)
            parts.append(
                Part(
                    manager: manager, clientIndex: index, listener: member.listener, weight: member.weight, door: door))
        }
    }

    package var children: [SupervisedProcess] { parts.flatMap(\.manager.children) }
    /// Of all of them if they are of one kind; otherwise what can be asked of any frontend is asked.
    package var kind: FrontendKind {
        let kinds = parts.map(\.manager.kind)
        guard let first = kinds.first else { return .swift }
        return kinds.first { $0 != .swift } ?? first
    }
    package var transports: [FrontendTransport] { parts.map(\.manager.transport) }
    package var restarts: Int { parts.reduce(0) { $0 + $1.manager.restarts } }
    package var acceptsConnections: Bool {
        parts.allSatisfy { part in
            part.manager.processes.allSatisfy {
                !$0.isAlive || ProcessInfo.acceptsConnections($0.pid, on: part.listener.descriptor.rawValue)
            }
        }
    }

    package func part(of child: SupervisedProcess) -> Part? {
        parts.first { part in part.manager.children.contains { $0 === child } }
    }

    package func restart(_ child: SupervisedProcess) throws { try part(of: child)?.manager.restart() }

    package func renewTransports(_ make: (FrontendContract) throws -> FrontendTransport) throws {
        for part in parts { try part.manager.renewTransports(make) }
    }

    @discardableResult
    package func gatherActualAddresses(
        timeout: Duration, isInterrupted: () -> Bool
    ) throws -> [(input: String, output: String)] {
        try Supervision.gatherActualAddresses(
            parts.map(\.manager), timeout: timeout, on: factory.loop, isInterrupted: isInterrupted)
    }

    /// A frontend that has ended and is not replaced leaves its share to the others. Returns whether there are any.
    package func drop(_ child: SupervisedProcess) -> Bool {
        guard parts.contains(where: { part in part.manager.processes.contains(where: \.isAlive) }),
            let index = parts.firstIndex(where: { part in part.manager.children.contains { $0 === child } })
        else { return false }
        let part = parts.remove(at: index)
        part.door.close()
        group.remove(part.listener)
        part.manager.shutdown(timeout: .zero)
        return true
    }

    package func stopListening(except kept: [HTTPListener] = []) { group.close(except: kept) }

    @discardableResult
    package func shutdown(timeout: Duration?, isInterrupted: () -> Bool) -> [String] {
        // All at once: the grace is for all of them together.
        let killed = shutdownSubprocesses(
            processes, timeout: timeout, on: factory.loop, logger: factory.logger, isInterrupted: isInterrupted)
        group.close()
        for part in parts {
            part.door.close()
            part.manager.shutdown(timeout: .zero)
        }
        return killed
    }
}
