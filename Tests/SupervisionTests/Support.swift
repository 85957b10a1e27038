import Glibc
import Logging
import Supervision

/// A directory of one test, removed with it.
final class Scratch {
    let path: String

    init() {
        var template = Array("/tmp/supervision-test-XXXXXX".utf8CString)
        path = String(cString: mkdtemp(&template))
    }

    deinit { RuntimeDirectory.removeForTest(path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// An executable shell script.
    func script(_ text: String, name: String = "script") -> String {
        let path = file(name)
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o755)
        let bytes = Array("#!/bin/sh\n\(text)\n".utf8)
        _ = write(descriptor, bytes, bytes.count)
        close(descriptor)
        return path
    }
}

extension RuntimeDirectory {
    static func removeForTest(_ path: String) {
        guard let directory = opendir(path) else { return }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name == "." || name == ".." { continue }
            if unlink("\(path)/\(name)") != 0 { removeForTest("\(path)/\(name)") }
        }
        closedir(directory)
        rmdir(path)
    }
}

let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A child that runs a line of shell. Its output goes to `output` if given.
func shell(_ line: String, name: String = "child", output: Int32? = nil) throws -> SubprocessWrapper {
    try SubprocessWrapper(
        SpawnRequest(
            name: name, executable: "/bin/sh", arguments: ["-c", line], standardOutput: output, standardError: output))
}

/// Reads until end of file.
func readAll(_ descriptor: Int32) -> String {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
        let count = read(descriptor, &chunk, chunk.count)
        if count < 0, errno == EINTR { continue }
        if count <= 0 { break }
        bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// Standard output of a line of shell.
func outputOf(_ request: SpawnRequest) throws -> String {
    let (read, write) = try FileDescriptor.pipe()
    var request = request
    request.standardOutput = write.rawValue
    let child = try SubprocessWrapper(request)
    write.close()
    let text = readAll(read.rawValue)
    child.join()
    return text
}

/// Waits for a condition that another process brings about; the deadline only bounds a failure.
func eventually(within limit: Duration = .seconds(60), _ condition: () -> Bool) -> Bool {
    let deadline = ContinuousClock.now + limit
    while !condition() {
        if ContinuousClock.now > deadline { return false }
        usleep(2000)
    }
    return true
}

/// Running, and not a zombie.
func isRunning(_ pid: pid_t) -> Bool {
    guard let text = ProcessInfo.readFile("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return false }
    return text[end...].dropFirst(2).first != "Z"
}
