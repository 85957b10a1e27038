import Glibc
import Supervision

/// What is compared: a frontend, with a supervisor and an engine of its own.
struct ArmSpecification: Sendable {
    /// Unique within the run.
    var name: String
    /// As `vllm-engine serve --frontend` takes it.
    var frontend: String
    /// Program or interpreter; nil = where `serve` looks.
    var binary: String?

    /// - Throws: if there is no such program.
    var program: String { get throws { try Binaries.frontend(FrontendKind(frontend), explicit: binary) } }
}

/// One running service: `vllm-engine serve` as a child, with its log in a private folder.
final class Arm {
    let specification: ArmSpecification
    let target: LoadTarget
    let frontendPids: [pid_t]
    let enginePids: [pid_t]
    let startSeconds: Double
    let stamps: StampReader
    private let process: SubprocessWrapper

    var pid: pid_t { process.pid }

    /// Starting is split from waiting, so that all arms start at the same time.
    struct Starting {
        let specification: ArmSpecification
        let process: SubprocessWrapper
        let log: String
        let stamps: String
        let began: Nanoseconds
    }

    /// - Parameters:
    ///   - service: options of `vllm-engine serve` that are the same for every arm.
    ///   - engine: options of the engine.
    ///   - folder: for the log and the stamps.
    static func start(
        _ specification: ArmSpecification, model: String?, service: [String], engine: [String], folder: String
    ) throws -> Starting {
        let log = "\(folder)/\(specification.name).log"
        let stamps = "\(folder)/\(specification.name).stamps"
        var arguments = ["serve"]
        if let model { arguments.append(model) }
        arguments += ["--host", "127.0.0.1", "--port", "0", "--frontend", specification.frontend]
        if let binary = specification.binary {
            arguments += [specification.frontend == "python" ? "--python" : "--frontend-binary", binary]
        }
        arguments += ["--restart", "never"] + service + ["--", "--stamps", stamps] + engine
        let output = FileDescriptor(owning: open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600))
        guard output.isOpen else { throw SupervisionError(.failure, "cannot write \(log): \(describeErrno(errno))") }
        var environment = ProcessInfo.environment()
        // The mock takes longer prompts than the model whose tokenizer it has; vLLM's Python frontend asks to be told so.
        environment["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
        let process = try SubprocessWrapper(
            SpawnRequest(
                name: specification.name, executable: "\(Binaries.ownDirectory)/vllm-engine", arguments: arguments,
                environment: environment, standardOutput: output.rawValue, standardError: output.rawValue))
        return Starting(
            specification: specification, process: process, log: log, stamps: stamps, began: monotonicNanoseconds())
    }

    /// Waits until the service answers.
    /// - Throws: the end of its log if it fails; an interruption.
    init(
        _ starting: Starting, patience: Duration, headers: [(name: String, value: String)], _ interruption: Interruption
    )
        throws
    {
        specification = starting.specification
        process = starting.process
        stamps = StampReader(path: starting.stamps)
        let deadline = ContinuousClock.now + patience
        while true {
            if !process.isAlive {
                throw SupervisionError(
                    .startupFailure,
                    "\(specification.name) did not start (\(process.exitDescription)):\n\(Self.tail(starting.log))")
            }
            if let status = Self.status(of: process.pid), status.state == "serving" {
                guard let colon = status.address.lastIndex(of: ":"),
                    let port = Int(status.address[status.address.index(after: colon)...])
                else { throw SupervisionError(.failure, "\(specification.name) tells no address: \(status.address)") }
                target = LoadTarget(address: .tcp(host: "127.0.0.1", port: port), headers: headers)
                frontendPids = status.frontends.map(\.pid)
                enginePids = status.enginePids
                break
            }
            guard ContinuousClock.now < deadline else {
                throw SupervisionError(
                    .startupFailure, "\(specification.name) was not ready in time:\n\(Self.tail(starting.log))")
            }
            try interruption.sleep(.milliseconds(5))
        }
        startSeconds = Double(monotonicNanoseconds() - starting.began) * 1e-9
    }

    /// Nil as long as it cannot be asked.
    private static func status(of pid: pid_t) -> ServiceStatus? {
        (try? ControlClient.find(port: nil, pid: pid)).flatMap { try? ServiceStatus($0) }
    }

    private static func tail(_ path: String) -> String {
        (ProcessInfo.readFile(path) ?? "").split(separator: "\n").suffix(12).map { "  \($0)" }.joined(separator: "\n")
    }

    var contestant: Contestant {
        Contestant(
            name: specification.name, target: target, frontendPids: frontendPids, enginePids: enginePids,
            stamps: stamps,
            checkAlive: checkAlive)
    }

    /// The service's end is a failure of the run.
    func checkAlive() throws {
        if !process.isAlive {
            throw SupervisionError(.failure, "\(specification.name) ended during the run: \(process.exitDescription)")
        }
    }

    func stop() { Self.stop([process]) }

    /// Stops services in parallel, first kindly; nothing is left afterwards.
    static func stop(_ processes: [SubprocessWrapper]) {
        for process in processes { process.terminate() }
        let deadline = ContinuousClock.now + .seconds(8)
        for process in processes where !process.join(timeout: max(.zero, deadline - .now)) {
            // A second signal ends a supervisor and its children at once.
            process.terminate()
            process.join(timeout: .seconds(3))
        }
        for process in processes { process.close() }
    }
}
