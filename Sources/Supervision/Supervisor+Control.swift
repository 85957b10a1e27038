import Glibc
import JSONBytes

/// What `vllm-engine status`, `drain` and `swap` ask of a running supervisor.
extension Supervisor {
    func handle(_ request: JSONObject, _ exchange: ControlServer.Exchange, signals: SignalSource) {
        switch request["command"]?.stringValue {
        case "status": exchange.finish(status)
        case "drain": drain(request, exchange, signals: signals)
        case "swap": beginSwap(request, exchange)
        case let command?: exchange.fail("unknown command '\(command)'; this is an older vllm-engine than yours?")
        case nil: exchange.fail("the request has no command")
        }
    }

    // MARK: - Status

    /// Times in seconds; a process that has ended shows how.
    private var status: JSONObject {
        var result = JSONObject([
            ("state", .string(state)), ("pid", .number(Int(getpid()))),
            ("address", .string(listener?.displayAddress ?? "")), ("model", .string(configuration.model)),
            ("uptime_seconds", Self.seconds(.now - start)),
        ])
        var processes: [JSONValue] = []
        func add(_ children: [SupervisedProcess], role: String, restarts: Int) {
            for child in children {
                var entry = JSONObject([
                    ("name", .string(child.name)), ("role", .string(role)),
                    ("pid", .number(Int(child.process.pid))),
                    ("state", .string(child.process.isAlive ? "running" : child.process.exitDescription)),
                    ("uptime_seconds", Self.seconds(.now - child.startedAt)), ("restarts", .number(restarts)),
                ])
                if let part = (frontends as? SplitFrontendManager)?.part(of: child) {
                    entry["restarts"] = .number(part.manager.restarts)
                    entry["share"] = .number(part.weight)
                    entry["socket"] = .string(part.door.path)
                }
                processes.append(.object(entry))
            }
        }
        add(frontends?.children ?? [], role: "frontend", restarts: frontends?.restarts ?? 0)
        if let swap {
            let role = swap.phase == .starting ? "frontend, starting" : "frontend, draining"
            add(swap.idle.children, role: role, restarts: 0)
        }
        add(engines?.children ?? [], role: "engine", restarts: engines?.restarts ?? 0)
        add(coordinator.map { [$0.child] } ?? [], role: "coordinator", restarts: 0)
        result["processes"] = .array(processes)
        return result
    }

    /// With one decimal.
    private static func seconds(_ duration: Duration) -> JSONValue {
        .number(Double(milliseconds(duration) / 100) / 10)
    }

    // MARK: - Drain

    private func drain(_ request: JSONObject, _ exchange: ControlServer.Exchange, signals: SignalSource) {
        let seconds = request["timeout"]?.numberValue?.doubleValue
        if let seconds, !(0...1e6).contains(seconds) { return exchange.fail("timeout must be 0 to 1000000 seconds") }
        if !signals.stopRequested {
            let patience = seconds.map { Duration.milliseconds(Int64($0 * 1000)) } ?? configuration.shutdownTimeout
            drainTimeout = patience
            if frontends?.kind != .swift, patience > configuration.shutdownTimeout {
                exchange.send(
                    JSONObject([
                        (
                            "warning",
                            .string(
                                "this frontend keeps to the --shutdown-timeout it was started with, "
                                    + "\(configuration.shutdownTimeout.inSeconds) s")
                        )
                    ]))
            }
            signals.requestStop()
        }
        drainObservers.append(exchange)
        exchange.send(JSONObject([("state", .string("draining"))]))
    }

    /// To be called when everything has ended.
    func tellDrainObservers(_ code: ExitCode) {
        for exchange in drainObservers {
            exchange.finish(
                JSONObject([("state", .string("stopped")), ("exit_code", .number(Int(code.rawValue)))]))
        }
        drainObservers = []
    }
}
