import Glibc
import JSONBytes
import Supervision

/// What a running `vllm-engine` tells about itself.
struct ServiceStatus {
    struct Frontend {
        let name: String
        let pid: pid_t
        /// Of one among several: the socket that leads to it alone.
        let door: String?
    }

    let state: String
    /// `http://host:port` or `unix:path`.
    let address: String
    let model: String
    let frontends: [Frontend]
    let enginePids: [pid_t]

    /// - Throws: if the supervisor cannot be asked.
    init(_ run: RuntimeDirectory.Run) throws {
        var client = try ControlClient(run)
        try client.send(JSONObject([("command", .string("status"))]))
        guard let status = try client.receive() else { throw SupervisionError(.failure, "the supervisor hung up") }
        state = status["state"]?.stringValue ?? ""
        address = status["address"]?.stringValue ?? ""
        model = status["model"]?.stringValue ?? ""
        func processes(_ role: String) -> [(JSONValue, pid_t)] {
            (status["processes"]?.arrayValue ?? []).filter { $0["role"]?.stringValue == role }.compactMap { entry in
                entry["pid"]?.numberValue?.intValue.flatMap { pid_t(exactly: $0) }.map { (entry, $0) }
            }
        }
        frontends = processes("frontend").map { entry, pid in
            Frontend(
                name: entry["name"]?.stringValue ?? "frontend \(pid)", pid: pid, door: entry["socket"]?.stringValue)
        }
        enginePids = processes("engine").map(\.1)
    }
}
