import ArgumentParser
import Glibc
import JSONBytes

/// Which of the running supervisors is meant.
package struct TargetOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Port that it serves; needed only if several are running.", valueName: "port"))
    package var port: UInt16?

    @Option(help: ArgumentHelp("Process id of the supervisor.", valueName: "pid"))
    package var pid: Int32?

    package init() {}

    func connect() throws -> ControlClient {
        try ControlClient(try ControlClient.find(port: port, pid: pid))
    }
}

extension ParsableCommand {
    /// Errors go to standard error with the exit code of their kind.
    func reportingErrors(_ body: () throws -> Void) throws {
        do {
            try body()
        } catch let error as SupervisionError {
            LogOutput.standardError.write(line: "vllm-engine: \(error.message)")
            throw ArgumentParser.ExitCode(error.code.rawValue)
        }
    }
}

/// `vllm-engine status`
package struct StatusCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the state of a running service and its processes.")

    @OptionGroup package var target: TargetOptions

    @Flag(help: "Print one JSON object instead of a table.")
    package var json = false

    package init() {}

    package mutating func run() throws {
        try reportingErrors {
            var client = try target.connect()
            try client.send(JSONObject([("command", .string("status"))]))
            guard let reply = try client.receive() else {
                throw SupervisionError(.failure, "the supervisor hung up")
            }
            print(json ? JSONValue.object(reply).serialized() : StatusTable(reply).text)
        }
    }
}

/// `vllm-engine drain`
package struct DrainCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Finish the open requests, then stop the service.",
        discussion: """
            New requests are refused, open ones may finish for --timeout seconds, then everything stops. Returns once the \
            service is gone: 0 if it ended by itself, else its exit code.
            """)

    @OptionGroup package var target: TargetOptions

    @Option(help: ArgumentHelp("Seconds for open requests; default: the service's --shutdown-timeout.", valueName: "s"))
    package var timeout: SecondsOption?

    package init() {}

    package mutating func run() throws {
        try reportingErrors {
            var client = try target.connect()
            var request = JSONObject([("command", .string("drain"))])
            if let timeout { request["timeout"] = .number(timeout.value) }
            try client.send(request)
            var code: Int?
            while let reply = try client.receive(timeout: nil) {
                if let warning = reply["warning"]?.stringValue {
                    LogOutput.standardError.write(line: "vllm-engine: \(warning)")
                }
                if let state = reply["state"]?.stringValue { print(state) }
                code = reply["exit_code"]?.numberValue?.intValue ?? code
            }
            guard let code else { throw SupervisionError(.failure, "the supervisor died while draining") }
            if code != 0 { throw ArgumentParser.ExitCode(Int32(truncatingIfNeeded: code)) }
        }
    }
}

/// `vllm-engine swap`
package struct SwapCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "swap",
        abstract: "Put another frontend in place of the running one, without a failed request.",
        discussion: """
            The new frontend starts beside the old one on the same port. Once it is ready the old one takes no more \
            requests, finishes those it has, and ends. If the new one fails, the old one stays. Returns when the old one \
            is gone. vLLM's own frontends finish their requests only within the service's --shutdown-timeout.
            """)

    @OptionGroup package var target: TargetOptions

    @Option(help: ArgumentHelp("The new frontend.", valueName: "swift|rust|PATH"))
    package var frontend: String

    @Option(help: ArgumentHelp("Its program, if it is not where `serve` would look.", valueName: "path"))
    package var frontendBinary: String?

    @Option(help: ArgumentHelp("Seconds for the old one's open requests. (default: 600)", valueName: "s"))
    package var timeout: SecondsOption?

    package init() {}

    package mutating func run() throws {
        try reportingErrors {
            var client = try target.connect()
            var request = JSONObject([("command", .string("swap"))])
            // The supervisor's working directory may be another one.
            request["frontend"] = .string(frontend.contains("/") ? Self.absolute(frontend) : frontend)
            if let frontendBinary { request["binary"] = .string(Self.absolute(frontendBinary)) }
            if let timeout { request["timeout"] = .number(timeout.value) }
            try client.send(request)
            var state: String?
            while let reply = try client.receive(timeout: nil) {
                state = reply["state"]?.stringValue ?? state
                let after = reply["after_ms"]?.numberValue.map { " after \($0.text) ms" } ?? ""
                print((state ?? "") + after)
            }
            guard state == "done" else { throw SupervisionError(.failure, "the service ended during the swap") }
        }
    }

    private static func absolute(_ path: String) -> String {
        guard !path.hasPrefix("/"), let directory = getcwd(nil, 0) else { return path }
        defer { free(directory) }
        return "\(String(cString: directory))/\(path)"
    }
}

/// A status reply for people.
package struct StatusTable {
    package let text: String

    package init(_ status: JSONObject) {
        func string(_ value: JSONValue?) -> String {
            switch value {
            case .string(let text)?: text
            case .number(let number)?: number.text
            default: "-"
            }
        }
        var lines = [
            "\(string(status["state"])) at \(string(status["address"])) since "
                + "\(string(status["uptime_seconds"])) s (supervisor pid \(string(status["pid"])))",
            "model \(string(status["model"]))",
        ]
        var rows = [["NAME", "PID", "STATE", "UPTIME", "RESTARTS"]]
        for process in status["processes"]?.arrayValue ?? [] {
            rows.append(
                [string(process["name"]), string(process["pid"]), string(process["state"])]
                    + ["\(string(process["uptime_seconds"])) s", string(process["restarts"])])
        }
        let widths = (0..<5).map { column in rows.map { $0[column].count }.max() ?? 0 }
        for row in rows {
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            var line = cells.joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            lines.append(line)
        }
        for process in status["processes"]?.arrayValue ?? [] where process["socket"] != nil {
            lines.append(
                "\(string(process["name"])) has share \(string(process["share"])) of new connections; its own pages: "
                    + "curl --unix-socket \(string(process["socket"])) http://localhost/metrics")
        }
        text = lines.joined(separator: "\n")
    }
}
