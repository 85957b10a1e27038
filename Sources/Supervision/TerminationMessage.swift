import Glibc
import Logging

/// The cause of an end where an orchestrator looks for it: Kubernetes shows the text of `/dev/termination-log` as the reason
/// why a container has ended.
enum TerminationMessage {
    private static let standardPath = "/dev/termination-log"

    /// Only into a file that is there: whoever wants to know has made it.
    static func write(_ text: String) {
        let path = ProcessInfo.environmentVariable("VLLM_ENGINE_TERMINATION_LOG") ?? standardPath
        let file = FileDescriptor(owning: open(path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_CLOEXEC))
        guard file.isOpen else { return }
        // Kubernetes reads as much.
        let bytes = Array(text.utf8.prefix(4096))
        _ = retryingInterrupts { Glibc.write(file.rawValue, bytes, bytes.count) }
    }
}

extension Logger {
    /// The last line: why this process ends with that code.
    func end(_ code: ExitCode, _ cause: String) {
        let text = "\(cause) (exit code \(code.rawValue))"
        TerminationMessage.write(text)
        error("\(text)")
    }
}
