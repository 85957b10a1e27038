import CZeroMQ
import Glibc

/// A libzmq context: its I/O threads and the sockets made from it. Thread-safe.
///
/// Sockets keep their context alive; when the last of them is gone the context terminates, which waits at most for the
/// sockets' linger times.
package final class ZMQContext: @unchecked Sendable {
    let handle: UnsafeMutableRawPointer

    /// - Parameter ioThreads: one is enough for about 1 GB/s.
    package init(ioThreads: Int32 = 1) throws(ZMQError) {
        guard let handle = zmq_ctx_new() else { throw .last("zmq_ctx_new") }
        self.handle = handle
        zmq_ctx_set(handle, ZMQ_IO_THREADS, ioThreads)
    }

    deinit {
        // EINTR is the one retryable failure; anything else cannot be helped here.
        while zmq_ctx_term(handle) != 0 && zmq_errno() == EINTR {}
    }
}
