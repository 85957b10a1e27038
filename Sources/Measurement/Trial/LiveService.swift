import Glibc
import Supervision

/// A service that runs anyway, with several frontends before the same engine (`--split`). Nothing of it is started or ended here.
struct LiveService {
    let pid: pid_t
    let status: ServiceStatus

    /// - Throws: if there is none, several fit, or it has no doors to its frontends.
    init(port: UInt16?, pid: pid_t?) throws {
        let run = try ControlClient.find(port: port, pid: pid)
        let status = try ServiceStatus(run)
        guard status.state == "serving" else {
            throw SupervisionError(.failure, "the service of \(run) is \(status.state), not serving")
        }
        guard status.address.hasPrefix("http://") else {
            throw SupervisionError(
                .usage, "--live: \(status.address) is encrypted or a unix socket, which cannot be measured")
        }
        guard (2...3).contains(status.frontends.count), status.frontends.allSatisfy({ $0.door != nil }) else {
            throw SupervisionError(
                .usage,
                "--live needs a service with two or three frontends side by side (serve --frontend A,B --split 50/50); "
                    + "\(run) has \(status.frontends.map(\.name).joined(separator: ", "))")
        }
        self.pid = run.pid
        self.status = status
    }

    /// The engine's own times, if it was started with `-- --stamps FILE` and is alone.
    private var stamps: StampReader? {
        guard status.enginePids.count == 1,
            let words = ProcessInfo.readFile("/proc/\(status.enginePids[0])/cmdline")?.split(separator: "\0"),
            let place = words.firstIndex(of: "--stamps"), place + 1 < words.count
        else { return nil }
        let path = String(words[place + 1])
        return access(path, R_OK) == 0 ? StampReader(path: path) : nil
    }

    func contestants(headers: [(name: String, value: String)]) -> [Contestant] {
        status.frontends.map { frontend in
            Contestant(
                name: frontend.name, target: LoadTarget(address: .door(path: frontend.door ?? ""), headers: headers),
                frontendPids: [frontend.pid], enginePids: status.enginePids, stamps: stamps, servicePid: pid,
                checkAlive: {
                    if kill(frontend.pid, 0) != 0 {
                        throw SupervisionError(.failure, "\(frontend.name) (pid \(frontend.pid)) ended during the run")
                    }
                })
        }
    }

    /// A connected socket, for the caller to close. Waits for the supervisor to hand it over.
    static func connection(throughDoor path: String) throws -> Int32 {
        try FrontendDoor.connection(through: path).release()
    }

    var descriptions: [ArmDescription] {
        status.frontends.map { frontend in
            var buffer = [CChar](repeating: 0, count: 4096)
            let length = readlink("/proc/\(frontend.pid)/exe", &buffer, buffer.count)
            let program =
                length > 0 ? String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self) : nil
            return ArmDescription(name: frontend.name, program: program)
        }
    }

    var summary: String { "live(pid \(pid), \(status.address))" }
}
