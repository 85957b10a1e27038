import CProcessShims
import Glibc
import Supervision

/// Counts every system call of some processes from now on, with the kernel's tracepoint for them. /proc tells none of those that
/// write to sockets.
final class SystemCallCounter {
    private let counters: [Supervision.FileDescriptor]

    /// - Parameter pids: processes of which all threads are counted, also those that they start later.
    /// - Throws: if the kernel does not let us.
    init(of pids: [pid_t]) throws {
        counters = try pids.flatMap { pid in
            try ProcessInfo.directoryEntries("/proc/\(pid)/task").compactMap { thread in
                let descriptor = cps_count_system_calls(pid_t(thread) ?? pid)
                if descriptor >= 0 { return Supervision.FileDescriptor(owning: descriptor) }
                // A thread that has ended meanwhile calls nothing.
                let reason = errno
                if reason == ESRCH { return nil }
                throw SupervisionError(
                    .usage,
                    "--system-calls: the kernel does not let us count them (\(describeErrno(reason))); it needs tracefs and "
                        + "CAP_PERFMON")
            }
        }
    }

    var count: Int {
        counters.reduce(0) { sum, counter in
            var value: UInt64 = 0
            return read(counter.rawValue, &value, 8) == 8 ? sum + Int(clamping: value) : sum
        }
    }
}
