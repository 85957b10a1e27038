import Glibc

/// Tells a service manager how we are (systemd's `sd_notify` protocol): one datagram per change to `NOTIFY_SOCKET`.
package struct ServiceNotifier {
    private let address: SocketAddress?

    /// - Parameter path: a path, or `@name` for an abstract socket; nil or anything else = nobody wants to know.
    package init(path: String? = ProcessInfo.environmentVariable("NOTIFY_SOCKET")) {
        guard let path, path.hasPrefix("/") || path.hasPrefix("@") else {
            address = nil
            return
        }
        address = path.hasPrefix("@") ? try? .abstract(name: String(path.dropFirst())) : try? .unix(path: path)
    }

    /// How often the manager wants to hear that the supervisor's loop turns (`WATCHDOG_USEC`), halved as it recommends;
    /// nil = it does not.
    package static func watchdogInterval(
        microseconds: String? = ProcessInfo.environmentVariable("WATCHDOG_USEC"),
        pid: String? = ProcessInfo.environmentVariable("WATCHDOG_PID")
    ) -> Duration? {
        guard let microseconds = microseconds.flatMap({ Int64($0) }), microseconds > 0,
            pid.map({ pid_t($0) == getpid() }) ?? true
        else { return nil }
        return .microseconds(max(1000, microseconds / 2))
    }

    package func alive() { send("WATCHDOG=1") }

    /// The service answers requests.
    package func ready(_ status: String) { send("READY=1\nSTATUS=\(status)") }

    package func stopping() { send("STOPPING=1") }

    package func status(_ text: String) { send("STATUS=\(text)") }

    private func send(_ message: String) {
        guard let address else { return }
        let kind = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = FileDescriptor(owning: socket(AF_UNIX, kind, 0))
        guard descriptor.isOpen else { return }
        let bytes = Array(message.utf8)
        // Nothing depends on it: a manager that does not listen must not stop the service.
        _ = address.withPointer { sendto(descriptor.rawValue, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, $1) }
    }
}
