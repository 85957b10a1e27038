import Glibc
import Supervision

/// A progress bar on standard error; nothing at all where that is no terminal.
final class Progress {
    private let isVisible: Bool
    private var steps = 0
    private var done = 0
    private var started: Nanoseconds = 0
    private static let width = 28

    /// - Parameter quiet: no bar on a terminal either.
    init(quiet: Bool) { isVisible = !quiet && isatty(STDERR_FILENO) == 1 }

    func begin(steps: Int) {
        self.steps = steps
        started = monotonicNanoseconds()
        draw("")
    }

    func step(_ label: String) {
        done += 1
        draw(label)
    }

    /// A line above the bar, where people see it.
    func note(_ text: String) {
        guard isVisible else { return }
        write("\r\u{1B}[K\(text)\n")
    }

    func finish() {
        if isVisible, steps > 0 { write("\r\u{1B}[K") }
        steps = 0
    }

    private func draw(_ label: String) {
        guard isVisible, steps > 0 else { return }
        let filled = min(Self.width, Self.width * done / steps)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: Self.width - filled)
        var line = "\(bar) \(done)/\(steps)"
        if done > 0, done < steps {
            let elapsed = Double(monotonicNanoseconds() - started) * 1e-9
            line += "  \(Int((elapsed / Double(done) * Double(steps - done)).rounded(.up))) s left"
        }
        write("\r\u{1B}[K\(line)  \(label)")
    }

    private func write(_ text: String) { LogOutput.standardError.write(Array(text.utf8)) }
}
