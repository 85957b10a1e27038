import Glibc

/// Reads what a child prints, passes it on line by line under `(Name pid=N)`, and remembers the end of it.
package final class ChildLog {
    private static let rememberedLines = 200
    /// Longer lines are cut into pieces.
    private static let longestLine = 16 * 1024

    private let name: String
    private let loop: EventLoop
    private let output: LogOutput
    private let readEnd: FileDescriptor
    private var writeEnd: FileDescriptor?
    private var pending: [UInt8] = []
    private var lines: [String] = []
    private var oldest = 0
    /// Shown in the prefix; known after the spawn.
    package var pid: pid_t?

    package init(name: String, loop: EventLoop, output: LogOutput = .standardError) throws {
        self.name = name
        self.loop = loop
        self.output = output
        (readEnd, writeEnd) = try FileDescriptor.pipe(readsWithoutBlocking: true)
        loop.watch(readEnd.rawValue) { [unowned self] in drain() }
    }

    deinit { close() }

    /// The end for the child's standard output and error.
    package var childEnd: Int32 { writeEnd?.rawValue ?? -1 }

    /// To be called after the spawn: without it the end of the child would not close the pipe.
    package func spawned(pid: pid_t) {
        self.pid = pid
        writeEnd = nil
    }

    /// Reads what is there now. Whoever asks for the last lines of a child that has ended calls this first: its exit
    /// may be noticed before its output.
    package func drain() {
        if readAvailable() { stop() }
    }

    /// - Returns: whether nothing more can come.
    private func readAvailable() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 64 * 1024)
        // Bounded, so that a child that prints without end cannot keep the loop from everything else.
        for _ in 0..<16 {
            guard readEnd.isOpen else { return false }
            let count = retryingInterrupts { read(readEnd.rawValue, &chunk, chunk.count) }
            if count > 0 {
                append(chunk[..<count])
            } else {
                return count == 0 || errno != EAGAIN
            }
        }
        return false
    }

    /// Takes what the child printed last and stops reading.
    package func close() {
        _ = readAvailable()
        stop()
    }

    private func stop() {
        guard readEnd.isOpen else { return }
        loop.unwatch(readEnd.rawValue)
        readEnd.close()
        if !pending.isEmpty { finishLine() }
    }

    private func append(_ bytes: ArraySlice<UInt8>) {
        for byte in bytes {
            if byte == UInt8(ascii: "\n") {
                finishLine()
            } else {
                pending.append(byte)
                if pending.count >= Self.longestLine { finishLine() }
            }
        }
    }

    private func finishLine() {
        if pending.last == UInt8(ascii: "\r") { pending.removeLast() }
        var text = String(decoding: pending, as: UTF8.self)
        if !output.isTerminal { text = Self.withoutEscapes(text) }
        pending.removeAll(keepingCapacity: true)
        if lines.count < Self.rememberedLines {
            lines.append(text)
        } else {
            lines[oldest] = text
            oldest = (oldest + 1) % Self.rememberedLines
        }
        output.write(line: Self.carriesPrefix(text) ? text : "(\(name) pid=\(pid ?? 0)) \(text)")
    }

    /// The last lines that were printed, oldest first.
    package var lastLines: [String] { Array(lines[oldest...] + lines[..<oldest]) }

    /// The block of lines that tells why the child failed: from the last line that starts an error on, without the
    /// colours. Empty if the child printed nothing.
    package var errorBlock: [String] {
        let recent = lastLines.suffix(60).map(Self.withoutEscapes)
        let markers = [
            "ERROR", "CRITICAL", "FATAL", "Traceback (most recent", "panicked at", "terminate called", "error:",
        ]
        // A block of several error lines starts at the first one of an unbroken run; look back from the last.
        guard let last = recent.lastIndex(where: { line in markers.contains { line.contains($0) } }) else {
            return Array(recent.suffix(5))
        }
        var first = last
        while first > recent.startIndex, recent.endIndex - first < 20,
            markers.contains(where: { recent[first - 1].contains($0) })
        {
            first -= 1
        }
        return Array(recent[first...].prefix(20))
    }

    /// Repeats the child's own last words, if there are any, for whoever reads why the service ended.
    package func writeErrorBlock() {
        drain()
        let block = errorBlock
        guard !block.isEmpty else { return }
        output.write(line: "--- last output of \(name) (pid \(pid ?? 0)) ---")
        for line in block { output.write(line: line) }
        output.write(line: "---")
    }

    /// Whether the line already says who printed it, as vLLM's processes do: `(RustFrontend pid=12) ...`.
    static func carriesPrefix(_ line: String) -> Bool {
        let plain = withoutEscapes(line).utf8
        guard plain.first == UInt8(ascii: "("), let end = plain.firstIndex(of: UInt8(ascii: ")")) else { return false }
        let inside = String(Substring(plain[..<end]))
        guard let equals = inside.index(afterASCII: " pid=") else { return false }
        let digits = inside[equals...]
        return !digits.isEmpty && digits.allSatisfy(\.isNumber)
    }

    /// Without terminal colour sequences (`ESC [ ... letter`).
    static func withoutEscapes(_ line: String) -> String {
        guard line.utf8.contains(0x1b) else { return line }
        var result: [UInt8] = []
        var escape = false
        for byte in line.utf8 {
            if byte == 0x1b {
                escape = true
            } else if !escape {
                result.append(byte)
            } else if (0x40...0x7e).contains(byte), byte != UInt8(ascii: "[") {
                escape = false
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

extension StringProtocol {
    /// Index after the first occurrence of an ASCII text.
    func index(afterASCII text: String) -> Index? {
        let pattern = Array(text.utf8)
        var index = utf8.startIndex
        while let end = utf8.index(index, offsetBy: pattern.count, limitedBy: utf8.endIndex) {
            if utf8[index..<end].elementsEqual(pattern) { return end }
            index = utf8.index(after: index)
        }
        return nil
    }
}
