import CProcessShims
import Glibc

/// Text for an errno value.
package func describeErrno(_ code: Int32) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
        guard let base = buffer.baseAddress else { return "error \(code)" }
        cps_describe_error(code, base, buffer.count)
        return String(cString: base)
    }
}

/// Repeats a system call that a signal interrupted.
@discardableResult
func retryingInterrupts<Result: SignedInteger>(_ call: () -> Result) -> Result {
    while true {
        let result = call()
        if result != -1 || errno != EINTR { return result }
    }
}

/// A descriptor that is closed with its owner. Everything here is created close-on-exec; only the spawn shim lets a
/// child have one.
package final class FileDescriptor {
    package private(set) var rawValue: Int32

    package init(owning rawValue: Int32) {
        self.rawValue = rawValue
    }

    deinit { close() }

    package var isOpen: Bool { rawValue >= 0 }

    /// Idempotent.
    package func close() {
        guard rawValue >= 0 else { return }
        Glibc.close(rawValue)
        rawValue = -1
    }

    /// Gives it away: who has the number closes it.
    package func release() -> Int32 {
        defer { rawValue = -1 }
        return rawValue
    }

    /// A close-on-exec pipe.
    /// - Parameter readsWithoutBlocking: only for the end that is read: a child's blocking writes must stay blocking.
    package static func pipe(
        readsWithoutBlocking: Bool = false
    ) throws -> (read: FileDescriptor, write: FileDescriptor) {
        var ends: [Int32] = [-1, -1]
        let error = cps_pipe(&ends)
        guard error == 0 else {
            throw SupervisionError(.failure, "cannot create a pipe: \(describeErrno(error))")
        }
        if readsWithoutBlocking { _ = fcntl(ends[0], F_SETFL, fcntl(ends[0], F_GETFL) | O_NONBLOCK) }
        return (FileDescriptor(owning: ends[0]), FileDescriptor(owning: ends[1]))
    }
}
