import Glibc
import Supervision

/// A progress bar on standard error; nothing at all where that is no terminal.
final class Progress {
    private let isVisible: Bool
    private var steps = 0
    private var done = 0
    private var started: Nanoseconds = 0
    private var label = ""
    private static let width = 28

    /// - Parameter quiet: no bar on a terminal either.
    init(quiet: Bool) { isVisible = !quiet && isatty(STDERR_FILENO) == 1 }

    func begin(steps: Int) {
        self.steps = steps
        done = 0
        started = monotonicNanoseconds()
        draw()
    }

    /// Something has to be done again.
    func add(steps: Int) { self.steps += steps }

    /// What is being done now.
    func work(on label: String) {
        self.label = label
        draw()
    }

    /// The step under way has got this far: 0 to 1.
    func advance(to fraction: Double) { draw(fraction) }

    /// A step is done.
    func step() {
        done += 1
        draw()
    }

    /// A line above the bar, where people see it.
    func note(_ text: String) {
        guard isVisible else { return }
        write("\r\u{1B}[K\(text)\n")
        draw()
    }

    func finish() {
        if isVisible, steps > 0 { write("\r\u{1B}[K") }
        steps = 0
    }

    private func draw(_ fraction: Double = 0) {
        guard isVisible, steps > 0 else { return }
        let part = min(1, (Double(done) + fraction) / Double(steps))
        let eighths = Int(part * Double(Self.width * 8))
        var bar = String(repeating: "█", count: eighths / 8)
        if eighths % 8 > 0 { bar += ["▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8 - 1] }
        bar += String(repeating: "░", count: Self.width - bar.count)
        var line = "\(bar) \(done)/\(steps)"
        // Before that, one slow start would be taken for the speed of all.
        if part > 0.03, part < 1 {
            let elapsed = Double(monotonicNanoseconds() - started) * 1e-9
            line += "  \(Int((elapsed / part * (1 - part)).rounded(.up))) s left"
        }
        line += "  \(label)"
        // A line that wraps could not be taken back.
        write("\r\u{1B}[K\(line.prefix(TerminalSize.columns(of: STDERR_FILENO).map { $0 - 1 } ?? 79))")
    }

    private func write(_ text: String) { LogOutput.standardError.write(Array(text.utf8)) }
}

enum TerminalSize {
    /// Nil for what is no terminal, or one that does not tell.
    static func columns(of descriptor: Int32) -> Int? {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
        return Int(size.ws_col)
    }
}
