import Glibc
import JSONBytes

/// Finds a running supervisor and talks to its control socket.
package struct ControlClient {
    private let socket: FileDescriptor
    private var buffer: [UInt8] = []

    /// Chooses among the supervisors of this user.
    /// - Throws: usage error if none or several fit.
    package static func find(
        port: UInt16?, pid: pid_t?, in bases: [String] = RuntimeDirectory.standardBases()
    ) throws -> RuntimeDirectory.Run {
        let all = RuntimeDirectory.runs(in: bases)
        let fitting = all.filter { run in
            (pid == nil || run.pid == pid) && (port == nil || run.address.hasSuffix(":\(port ?? 0)"))
        }
        if let only = fitting.first, fitting.count == 1 { return only }
        let wanted = [port.map { "port \($0)" }, pid.map { "pid \($0)" }].compactMap { $0 }.joined(separator: ", ")
        if fitting.isEmpty {
            let others = all.isEmpty ? "" : "; running: " + all.map(\.description).joined(separator: ", ")
            throw SupervisionError(
                .failure, "no vllm-engine is running" + (wanted.isEmpty ? "" : " with \(wanted)") + others)
        }
        throw SupervisionError(
            .usage,
            "several are running, choose one with --port or --pid: "
                + fitting.map(\.description).joined(separator: ", "))
    }

    package init(_ run: RuntimeDirectory.Run) throws {
        try self.init(path: run.path + "/" + ControlServer.fileName)
    }

    package init(path: String) throws {
        socket = try makeStreamSocket(AF_UNIX)
        let address = try SocketAddress.unix(path: path)
        guard address.withPointer({ connect(socket.rawValue, $0, $1) }) == 0 else {
            throw SupervisionError(.failure, "\(path): \(describeErrno(errno))")
        }
    }

    package func send(_ request: JSONObject) throws {
        let line = Array((JSONValue.object(request).serialized() + "\n").utf8)
        let count = retryingInterrupts {
            Glibc.send(socket.rawValue, line, line.count, Int32(MSG_NOSIGNAL))
        }
        guard count == line.count else {
            throw SupervisionError(.failure, "the supervisor hung up: \(describeErrno(errno))")
        }
    }

    /// The next line; nil once the supervisor has hung up.
    /// - Throws: the error that the supervisor answered with, or no answer within `timeout` (nil = wait for ever).
    package mutating func receive(timeout: Duration? = .seconds(10)) throws -> JSONObject? {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while true {
            if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: buffer[..<end], as: UTF8.self)
                buffer.removeSubrange(...end)
                guard let reply = (try? JSONValue.parse(line, limits: JSONLimits(maximumDepth: 32)))?.objectValue
                else { throw SupervisionError(.failure, "the supervisor's answer is not JSON") }
                if let error = reply["error"]?.stringValue { throw SupervisionError(.failure, error) }
                return reply
            }
            var entry = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
            let ready = poll(&entry, 1, deadline.map { ($0 - .now).pollMilliseconds } ?? -1)
            if ready < 0, errno == EINTR { continue }
            guard ready > 0 else { throw SupervisionError(.failure, "the supervisor does not answer") }
            var chunk = [UInt8](repeating: 0, count: 16384)
            let count = retryingInterrupts { recv(socket.rawValue, &chunk, chunk.count, 0) }
            if count <= 0 { return nil }
            buffer += chunk[..<count]
        }
    }
}
