import ArgumentParser
import Glibc
import JSONBytes

/// `vllm-engine top`
package struct TopCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch a running service: processes, requests, cache, latencies.",
        discussion: """
            Rates and latencies are those of the last interval. Ends with Ctrl-C, or when the service has ended.
            """)

    @OptionGroup package var target: TargetOptions

    @Flag(help: "Print one view and end, for scripts.")
    package var once = false

    @Option(help: ArgumentHelp("Seconds between two views. (default: 2)", valueName: "s"))
    package var interval: SecondsOption?

    package init() {}

    package mutating func validate() throws {
        if let interval, interval.value < 0.1 { throw ValidationError("--interval must be at least 0.1") }
    }

    package mutating func run() throws {
        try reportingErrors {
            let run = try ControlClient.find(port: target.port, pid: target.pid)
            let pause = UInt32((interval?.value ?? (once ? 1 : 2)) * 1e6)
            let isTerminal = isatty(STDOUT_FILENO) == 1
            var before = try ServiceSample(run)
            repeat {
                usleep(pause)
                let now = try ServiceSample(run)
                let text = TopView(now, before: before).text
                // From the top left corner on, and each line and the rest of the screen without what was there before.
                let shown =
                    once || !isTerminal
                    ? text + "\n"
                    : "\u{1B}[H"
                        + text.split(separator: "\n", omittingEmptySubsequences: false)
                        .joined(separator: "\u{1B}[K\n") + "\u{1B}[K\n\u{1B}[J"
                print(shown, terminator: "")
                fflush(nil)
                before = now
            } while !once
        }
    }
}

/// The state of a service at one moment.
package struct ServiceSample {
    package struct Process {
        package var name: String
        package var pid: pid_t
        package var state: String
        package var restarts: String
        /// Seconds of processor time so far; nil once it has ended.
        package var processorSeconds: Double?
        package var residentBytes: Double?
    }

    package var time: Double
    package var state: String
    package var address: String
    package var model: String
    package var uptime: Double
    package var processes: [Process]
    /// Nil where it cannot be read from here, as under TLS.
    package var metrics: MetricsReading?

    package init(
        time: Double, state: String, address: String, model: String, uptime: Double, processes: [Process],
        metrics: MetricsReading?
    ) {
        self.time = time
        self.state = state
        self.address = address
        self.model = model
        self.uptime = uptime
        self.processes = processes
        self.metrics = metrics
    }

    init(_ run: RuntimeDirectory.Run) throws {
        var client = try ControlClient(run)
        try client.send(JSONObject([("command", .string("status"))]))
        guard let status = try client.receive() else {
            throw SupervisionError(.failure, "the supervisor hung up")
        }
        time = ProcessInfo.monotonicSeconds()
        state = status["state"]?.stringValue ?? "-"
        address = status["address"]?.stringValue ?? ""
        model = status["model"]?.stringValue ?? "-"
        uptime = status["uptime_seconds"]?.numberValue?.doubleValue ?? 0
        var doors: [String] = []
        processes = [Process(name: "Supervisor", pid: run.pid, state: "running", restarts: "-")]
        for entry in status["processes"]?.arrayValue ?? [] {
            if let door = entry["socket"]?.stringValue { doors.append(door) }
            processes.append(
                Process(
                    name: entry["name"]?.stringValue ?? "-",
                    pid: pid_t(truncatingIfNeeded: entry["pid"]?.numberValue?.intValue ?? 0),
                    state: entry["state"]?.stringValue ?? "-", restarts: entry["restarts"]?.numberValue?.text ?? "-"))
        }
        for index in processes.indices where processes[index].state == "running" {
            (processes[index].processorSeconds, processes[index].residentBytes) = Self.usage(of: processes[index].pid)
        }
        metrics = Self.readMetrics(address, doors: doors)
    }

    /// Of one page, or the sum of those of several different frontends.
    private static func readMetrics(_ address: String, doors: [String]) -> MetricsReading? {
        var places = doors.compactMap { try? SocketAddress.unix(path: $0) }
        if places.isEmpty, let place = place(of: address) { places = [place] }
        let pages = places.compactMap { PageRequest.get("/metrics", at: $0) }
        guard !pages.isEmpty, pages.count == places.count else { return nil }
        var reading = MetricsReading()
        for page in pages { reading.add(page: page) }
        return reading
    }

    private static func place(of address: String) -> SocketAddress? {
        if address.hasPrefix("unix:") { return try? .unix(path: String(address.dropFirst(5))) }
        guard address.hasPrefix("http://"), let colon = address.lastIndex(of: ":"),
            let port = UInt16(address[address.index(after: colon)...])
        else { return nil }
        return try? SocketAddress.resolve(host: String(address.dropFirst(7)[..<colon]), port: port).reachable
    }

    /// Processor time and memory, from /proc.
    private static func usage(of pid: pid_t) -> (Double?, Double?) {
        guard let fields = ProcessInfo.statFields(of: pid), fields.count > 21, let user = Double(fields[11]),
            let system = Double(fields[12]),
            let pages = Double(fields[21])
        else { return (nil, nil) }
        return ((user + system) / Double(sysconf(Int32(_SC_CLK_TCK))), pages * Double(sysconf(Int32(_SC_PAGESIZE))))
    }
}

/// Two samples as a page of text.
package struct TopView {
    package let text: String

    package init(_ now: ServiceSample, before: ServiceSample) {
        let seconds = max(now.time - before.time, 1e-3)
        var lines = ["\(now.state) at \(now.address), up \(Self.number(now.uptime, 0)) s, model \(now.model)", ""]
        var rows = [["NAME", "PID", "STATE", "CPU%", "RSS MiB", "RESTARTS"]]
        for process in now.processes {
            let earlier = before.processes.first { $0.pid == process.pid }?.processorSeconds
            let load = process.processorSeconds.flatMap { time in earlier.map { 100 * max(0, time - $0) / seconds } }
            rows.append([
                process.name, "\(process.pid)", process.state, Self.number(load, 1),
                Self.number(process.residentBytes.map { $0 / 1_048_576 }, 1), process.restarts,
            ])
        }
        lines += Self.table(rows) + [""]
        guard let metrics = now.metrics else {
            text = (lines + ["The metrics cannot be read from here."]).joined(separator: "\n")
            return
        }
        func rate(_ name: String) -> String {
            guard let value = metrics.value(name), let earlier = before.metrics?.value(name) else { return "-" }
            return Self.number(max(0, value - earlier) / seconds, 1)
        }
        func value(_ name: String, _ factor: Double = 1, _ digits: Int = 0) -> String {
            Self.number(metrics.value(name).map { $0 * factor }, digits)
        }
        lines += [
            "Requests  running \(value("vllm:num_requests_running"))  waiting \(value("vllm:num_requests_waiting"))  "
                + "finished \(value("vllm:request_success_total"))  finished/s \(rate("vllm:request_success_total"))",
            "Tokens    prompt/s \(rate("vllm:prompt_tokens_total"))  generated/s \(rate("vllm:generation_tokens_total"))",
            "KV cache  used \(value("vllm:kv_cache_usage_perc", 100, 1))%", "",
        ]
        var latencies = [["LATENCY (ms)", "P50", "P95", "P99"]]
        for (label, name) in [
            ("first token", "vllm:time_to_first_token_seconds"),
            ("between tokens", "vllm:inter_token_latency_seconds"),
            ("whole request", "vllm:e2e_request_latency_seconds"),
        ] {
            latencies.append(
                [label]
                    + [0.5, 0.95, 0.99].map { part in
                        Self.number(metrics.quantile(part, of: name, since: before.metrics).map { $0 * 1000 }, 1)
                    })
        }
        text = (lines + Self.table(latencies)).joined(separator: "\n")
    }

    private static func table(_ rows: [[String]]) -> [String] {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (index, cell) in row.enumerated() {
                let gap = String(repeating: " ", count: widths[index] - cell.count)
                line += index == 0 ? cell + gap : "  " + gap + cell
            }
            return line
        }
    }

    /// `-` for what is not known.
    private static func number(_ value: Double?, _ digits: Int) -> String {
        guard let value, value.isFinite, abs(value) < 1e15 else { return "-" }
        if digits == 0 { return "\(Int(value.rounded()))" }
        let scaled = Int((abs(value) * 10).rounded())
        return "\(value < 0 ? "-" : "")\(scaled / 10).\(scaled % 10)"
    }
}
