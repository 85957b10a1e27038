import Glibc
import Logging
import Metrics
import NIOCore
import NIOPosix

/// `vllm-swift refuse`: answers every request with 503 and Retry-After until it is told to stop, for a supervisor whose
/// frontend does not accept any more while it finishes its requests.
package struct RefusalProgram {
    /// What the words ask for.
    package enum Parsed {
        case help
        case run(RefusalProgram)
    }

    package static let help = """
        usage: vllm-swift refuse --listen-fd N [--listen-fd N …] --args-json JSON [--message TEXT]

        Answers every request with 503 and Retry-After. It is started by `vllm-engine` where a frontend of vLLM
        behind TLS finishes its requests and accepts no more, or is started anew with its engine.

          --listen-fd N      inherited stream socket that is bound
          --args-json JSON   arguments of `vllm serve`, as for `vllm-swift frontend`; those about TLS count
          --message TEXT     the reason that clients are told; default: the server is shutting down

        exit codes
          0 after SIGTERM or SIGINT, 1 when something fails, 2 for unusable arguments

        """
    private static let mostListeners = 64
    /// Seconds for the last answers.
    private static let patience = 0.5

    private let descriptors: [Int32]
    private let configuration: ServerConfiguration
    private let message: String

    /// - Parameter words: what follows `refuse`.
    package static func parse(_ words: [String]) throws(UsageError) -> Parsed {
        var descriptors: [Int32] = []
        var json: String?
        var message = "The server is shutting down."
        var words = words[...]
        while let word = words.popFirst() {
            if word == "--help" || word == "-h" { return .help }
            guard let value = words.popFirst() else {
                throw UsageError("\(ExchangeRecord.printable(word)) needs a value")
            }
            switch word {
            case "--listen-fd":
                guard let descriptor = Int32(value), descriptor >= 0, descriptors.count < mostListeners else {
                    throw UsageError("--listen-fd must be the number of a descriptor, at most \(mostListeners) times")
                }
                descriptors.append(descriptor)
            case "--args-json": json = value
            case "--message": message = value
            default: throw UsageError("unknown option '\(ExchangeRecord.printable(word))'")
            }
        }
        guard !descriptors.isEmpty, let json else { throw UsageError("--listen-fd and --args-json are needed") }
        return .run(
            RefusalProgram(
                descriptors: descriptors, configuration: try ArgumentsJSON(json).configuration, message: message))
    }

    /// - Returns: the exit code.
    package func run(environment: ServerEnvironment, logger: Logger) -> Int32 {
        do {
            try serve(environment, logger)
            return 0
        } catch {
            logger.error("\(error)")
            return 1
        }
    }

    private func serve(_ environment: ServerEnvironment, _ logger: Logger) throws {
        let events = try SignalPipe()
        events.catchSignals()
        if let descriptor = environment.deathDescriptor { try DeathPipe.watch(descriptor) }
        let tls = try configuration.tls.map { TLSContextBox(try $0.makeContext()) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let startTime = WallClock.now()
        let context = ServerContext(
            configuration: configuration, engine: NoEngine(maxModelLength: nil),
            metrics: FrontendMetrics(modelName: "none", engineCount: 1, startTime: startTime, memory: MetricMemory()),
            group: group, startTime: startTime)
        context.startDraining()
        let service = HTTPService(context: context, router: Router(), logger: logger, refusal: message)
        let listeners = try descriptors.map {
            try HTTPListener.start(on: .descriptor($0), service: service, group: group, tls: tls)
        }
        while events.next(milliseconds: -1) != .stop {}
        for listener in listeners { try listener.close().wait() }
        // Who has been accepted gets the answer.
        let deadline = MonotonicClock.now() + Self.patience
        while context.openConnections() > 0, MonotonicClock.now() < deadline { poll(nil, 0, 10) }
    }
}
