import CZeroMQ
import Glibc

/// A failed libzmq (or socket) call.
package struct ZMQError: Error, Equatable, CustomStringConvertible {
    /// `errno` as libzmq left it.
    package let code: Int32
    /// What was tried, e.g. `bind ipc:///run/x`.
    package let operation: String

    package init(code: Int32, operation: String) {
        self.code = code
        self.operation = operation
    }

    /// The error of the last libzmq call of this thread.
    static func last(_ operation: String) -> ZMQError {
        ZMQError(code: zmq_errno(), operation: operation)
    }

    package var description: String {
        "\(operation): \(zmq_strerror(code).map { String(cString: $0) } ?? "error \(code)")"
    }

    /// A ROUTER with ``ZMQSocket/setRouterMandatory(_:)`` has no connection of that identity.
    package var isHostUnreachable: Bool { code == EHOSTUNREACH }
    package var isWouldBlock: Bool { code == EAGAIN }
    /// The context was terminated.
    package var isTerminated: Bool { code == ETERM }
}

/// Not imported from the header because it is an expression macro there.
private let ETERM: Int32 = ZMQ_HAUSNUMERO + 53
