import CProcessShims
import Glibc

/// Facts about other processes, read from /proc.
package enum ProcessInfo {
    /// Whether /proc shows our own pid namespace. Otherwise its numbers are those of other processes.
    package static let isComplete = cps_proc_is_ours()

    /// When the process started, in clock ticks since boot. Together with the pid it names a process for good, since
    /// pids are reused. Nil when there is no such process.
    package static func startTime(of pid: pid_t) -> UInt64? {
        guard let fields = statFields(of: pid), fields.count > 19 else { return nil }
        return UInt64(fields[19])
    }

    /// `/proc/PID/stat` from its third field, the state, on: the second is the name in parentheses, which may hold
    /// anything. So proc(5)'s field N is at N - 3.
    package static func statFields(of pid: pid_t) -> [Substring]? {
        guard let text = readFile("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
        return text[text.index(after: end)...].split(separator: " ")
    }

    /// Argument vector, or the kernel's short name in brackets when there is none.
    package static func commandLine(of pid: pid_t) -> String? {
        guard let bytes = readBytes("/proc/\(pid)/cmdline", limit: 4096) else { return nil }
        let words = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        if !words.isEmpty { return words.joined(separator: " ") }
        return readFile("/proc/\(pid)/comm").map { "[\($0.filter { $0 != "\n" })]" }
    }

    /// Every pid that is visible.
    package static func allPids() -> [pid_t] {
        isComplete ? directoryEntries("/proc").compactMap { pid_t($0) } : []
    }

    /// Which process has a socket with one of these inodes open; the lowest pid wins.
    package static func owner(ofSocketInodes inodes: Set<UInt64>) -> pid_t? {
        guard !inodes.isEmpty else { return nil }
        let names = Set(inodes.map { "socket:[\($0)]" })
        for pid in allPids().sorted() {
            for entry in directoryEntries("/proc/\(pid)/fd") {
                if let target = readLink("/proc/\(pid)/fd/\(entry)"), names.contains(target) { return pid }
            }
        }
        return nil
    }

    package static func socketInodes(of pid: pid_t) -> [UInt64] {
        directoryEntries("/proc/\(pid)/fd").compactMap { entry in
            guard let target = readLink("/proc/\(pid)/fd/\(entry)"), target.hasPrefix("socket:[") else { return nil }
            return UInt64(target.dropFirst("socket:[".count).dropLast())
        }
    }

    /// Pids of all descendants, children before grandchildren.
    package static func descendants(of root: pid_t) -> [pid_t] {
        var children: [pid_t: [pid_t]] = [:]
        for pid in allPids() {
            if let parent = parent(of: pid) { children[parent, default: []].append(pid) }
        }
        var found: [pid_t] = []
        var queue = [root]
        while let next = queue.popLast() {
            for child in children[next] ?? [] where !found.contains(child) {
                found.append(child)
                queue.append(child)
            }
        }
        return found
    }

    static func parent(of pid: pid_t) -> pid_t? {
        guard let fields = statFields(of: pid), fields.count > 1 else { return nil }
        return pid_t(fields[1])
    }

    /// Processors that this process may run on.
    package static let usableProcessors: Int = {
        let line = (readFile("/proc/self/status") ?? "").split(separator: "\n").first { $0.hasPrefix("Cpus_allowed:") }
        // A mask in hexadecimal digits, with commas.
        let bits = line?.dropFirst("Cpus_allowed:".count).compactMap(\.hexDigitValue).map(\.nonzeroBitCount)
        return max(1, bits?.reduce(0, +) ?? 1)
    }()

    package static func readFile(_ path: String, limit: Int = 1 << 20) -> String? {
        readBytes(path, limit: limit).map { String(decoding: $0, as: UTF8.self) }
    }

    static func readBytes(_ path: String, limit: Int) -> [UInt8]? {
        let descriptor = FileDescriptor(owning: open(path, O_RDONLY | O_CLOEXEC))
        guard descriptor.isOpen else { return nil }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while bytes.count < limit {
            let count = retryingInterrupts { read(descriptor.rawValue, &chunk, chunk.count) }
            if count <= 0 { break }
            bytes.append(contentsOf: chunk[..<count])
        }
        return bytes
    }

    static func readLink(_ path: String) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4096) { buffer in
            guard let base = buffer.baseAddress else { return nil }
            let count = readlink(path, base, buffer.count)
            guard count > 0, count < buffer.count else { return nil }
            return String(decoding: UnsafeRawBufferPointer(start: base, count: count), as: UTF8.self)
        }
    }

    package static func directoryEntries(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// CLOCK_MONOTONIC in seconds, the same in every process of the machine.
    static func monotonicSeconds() -> Double {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
    }

    /// The environment of this process.
    package static func environment() -> [String: String] {
        var result: [String: String] = [:]
        var cursor = environ
        while let entry = cursor.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                result[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            cursor += 1
        }
        return result
    }

    package static func environmentVariable(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        let text = String(cString: value)
        return text.isEmpty ? nil : text
    }
}
