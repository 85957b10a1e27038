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
}
