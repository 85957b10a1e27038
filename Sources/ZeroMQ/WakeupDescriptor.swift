import CZeroMQ
import Glibc

/// An eventfd that wakes a thread which polls it together with its sockets. Thread-safe.
package final class WakeupDescriptor: Sendable {
    /// Readable after ``signal()`` until ``clear()``.
    package let descriptor: Int32

    package init() throws(ZMQError) {
        descriptor = vllm_eventfd_create()
        if descriptor < 0 { throw ZMQError(code: errno, operation: "eventfd") }
    }

    deinit { close(descriptor) }

    package func signal() {
        var one: UInt64 = 1
        // EAGAIN means that the counter is full, and then the reader is awake anyhow.
        while write(descriptor, &one, 8) < 0 && errno == EINTR {}
    }

    package func clear() {
        var counter: UInt64 = 0
        while read(descriptor, &counter, 8) < 0 && errno == EINTR {}
    }
}
