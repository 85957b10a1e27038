import Glibc
import Logging
import Synchronization

/// Where log lines go: a descriptor that must not be able to stop the supervisor.
///
/// A terminal that was stopped with Ctrl-S, or a full pipe, would block a plain write and with it the noticing of exits.
/// So a line waits a short time for room and is then dropped and counted; those after it wait no more until there is room.
package final class LogOutput: Sendable {
    package static let standardError = LogOutput(descriptor: STDERR_FILENO)

    private let descriptor: Int32
    /// Whether colours make sense.
    package let isTerminal: Bool
    private let dropped = Mutex(0)

    package init(descriptor: Int32) {
        self.descriptor = descriptor
        isTerminal = isatty(descriptor) == 1 && ProcessInfo.environmentVariable("NO_COLOR") == nil
    }

    /// Writes a line; the newline is added.
    package func write(line: String) {
        var bytes = Array(line.utf8)
        bytes.append(UInt8(ascii: "\n"))
        write(bytes)
    }

    package func write(_ bytes: [UInt8]) {
        dropped.withLock { dropped in
            if dropped > 0 {
                let notice = "... \(dropped) log lines dropped: the reader was too slow ...\n"
                guard send(Array(notice.utf8), patience: 0) else {
                    dropped += 1
                    return
                }
                dropped = 0
            }
            if !send(bytes, patience: 200) { dropped += 1 }
        }
    }

    /// - Parameter patience: milliseconds to wait for room.
    private func send(_ bytes: [UInt8], patience: Int32) -> Bool {
        var sent = 0
        while sent < bytes.count {
            var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            if poll(&entry, 1, patience) <= 0 { return false }
            // A ready pipe has room for at least PIPE_BUF bytes.
            let size = min(bytes.count - sent, 4096)
            let count = bytes.withUnsafeBytes { raw in
                retryingInterrupts { Glibc.write(descriptor, raw.baseAddress.map { $0 + sent }, size) }
            }
            if count < 0 { return errno != EAGAIN }
            sent += count
        }
        return true
    }
}

/// Log lines in vLLM's shape: `(Supervisor pid=1) INFO 11-21 02:40:07 message key=value`.
package struct SupervisorLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level
    private let output: LogOutput
    private let prefix: String

    package init(name: String = "Supervisor", level: Logger.Level, output: LogOutput = .standardError) {
        logLevel = level
        self.output = output
        prefix = "(\(name) pid=\(getpid()))"
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }
        let pairs = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
        output.write(line: "\(prefix) \(Self.label(event.level)) \(Self.timestamp()) \(event.message)\(pairs)")
    }

    private static func label(_ level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "DEBUG"
        case .info, .notice: "INFO"
        case .warning: "WARNING"
        case .error: "ERROR"
        case .critical: "CRITICAL"
        }
    }

    /// Month, day and local time of day, as vLLM prints it.
    private static func timestamp() -> String {
        var now = time(nil)
        var parts = tm()
        localtime_r(&now, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
    }

    /// `VLLM_LOGGING_LEVEL` as a level; unknown names mean INFO.
    package static func level(named name: String?) -> Logger.Level {
        switch name?.uppercased() {
        case "DEBUG": .debug
        case "WARNING", "WARN": .warning
        case "ERROR": .error
        case "CRITICAL": .critical
        default: .info
        }
    }
}
