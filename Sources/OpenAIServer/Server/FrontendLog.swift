import Glibc
import Logging
import Synchronization

/// Log lines on stderr in the shape of vLLM's frontends:
/// `(SwiftFrontend pid=7) INFO 11-21 02:40:07 [file.swift:12] message key=value`.
package struct FrontendLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level
    package var metadataProvider: Logger.MetadataProvider?
    private let prefix: String
    private let useColors: Bool
    private let clock = LogClock()

    package init(name: String, level: Logger.Level, useColors: Bool) {
        logLevel = level
        self.useColors = useColors
        prefix = "(\(name) pid=\(getpid()))"
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let metadata = event.metadata.map { self.metadata.merging($0) { $1 } } ?? self.metadata
        var line = line(
            level: event.level, message: event.message.description, metadata: metadata, file: event.file,
            line: event.line, second: time(nil))
        line += "\n"
        TextOutput.write(line, to: STDERR_FILENO)
    }

    package func line(
        level: Logger.Level, message: String, metadata: Logger.Metadata, file: String, line: UInt, second: time_t
    ) -> String {
        // Not by characters: every request has a line.
        let name = file.utf8.lastIndex(of: UInt8(ascii: "/")).map { file[file.utf8.index(after: $0)...] } ?? file[...]
        var text = ""
        text.reserveCapacity(prefix.utf8.count + message.utf8.count + 80)
        text += prefix
        text += " "
        text += Self.label(level, colored: useColors)
        text += " "
        text += clock.text(of: second)
        text += " ["
        text += name
        text += ":\(line)] "
        text += message
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) { text += " \(key)=\(value)" }
        return text
    }

    private static func label(_ level: Logger.Level, colored: Bool) -> String {
        let (name, color) =
            switch level {
            case .trace, .debug: ("DEBUG", "37")
            case .info, .notice: ("INFO", "32")
            case .warning: ("WARNING", "33")
            case .error: ("ERROR", "31")
            case .critical: ("CRITICAL", "35")
            }
        return colored ? "\u{1B}[\(color)m\(name)\u{1B}[0m" : name
    }

    /// `VLLM_LOGGING_LEVEL`; unknown names mean INFO.
    package static func level(named name: String?) -> Logger.Level {
        switch name?.uppercased() {
        case "TRACE": .trace
        case "DEBUG": .debug
        case "WARNING", "WARN": .warning
        case "ERROR": .error
        case "CRITICAL": .critical
        default: .info
        }
    }
}

/// `11-21 02:40:07`, put together once per second.
private final class LogClock: Sendable {
    private let last = Mutex<(second: time_t, text: String)>((.min, ""))

    func text(of second: time_t) -> String {
        last.withLock { last in
            if last.second != second { last = (second, Self.makeText(second)) }
            return last.text
        }
    }

    private static func makeText(_ second: time_t) -> String {
        var second = second
        var parts = tm()
        localtime_r(&second, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return
            "\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) \(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
    }
}

/// Unbuffered text output; stdio's globals are not for concurrent Swift.
package enum TextOutput {
    /// One system call as a rule, so that lines of several processes do not mix. Errors are ignored: nobody is left to
    /// tell.
    package static func write(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
                if count < 0 {
                    if errno == EINTR { continue }
                    return
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
        }
    }
}
