import EngineProtocol
import JSONBytes

/// Which frontend answers HTTP.
package enum FrontendKind: Equatable, Sendable {
    /// Our own `vllm-swift frontend`.
    case swift
    /// vLLM's `vllm-rs frontend`.
    case rust
    /// vLLM's Python API server.
    case python
    /// Any other program with the command line of `vllm-rs frontend`.
    case program(String)

    package init(_ text: String) {
        switch text {
        case "swift": self = .swift
        case "rust": self = .rust
        case "python": self = .python
        default: self = .program(text)
        }
    }

    /// Name of the process in logs, as vLLM would call it.
    package var processName: String {
        switch self {
        case .swift: "SwiftFrontend"
        case .rust: "RustFrontend"
        case .python: "ApiServer"
        case .program: "Frontend"
        }
    }
}

/// What a frontend's command line understands; it grew from release to release.
package struct FrontendContract: Equatable, Sendable {
    /// 0.32 and later adopt listening descriptors, earlier ones bind the addresses themselves.
    package var adoptsListeners = true
    /// 0.25 and later.
    package var knowsStartIndex = true
    /// 0.28 and later.
    package var knowsDataParallelSize = true
    /// The releases whose wire formats the frontend speaks: what the engine is told.
    package var family: ProtocolFamily

    package static let current = FrontendContract(family: .newest)

    /// The contract of a family of releases.
    package init(family: ProtocolFamily) {
        adoptsListeners = family >= .v0_32
        knowsStartIndex = family >= .v0_25
        knowsDataParallelSize = family >= .v0_28
        self.family = family
    }

    /// From what `PROGRAM --version` and `PROGRAM frontend --help` print. The options shown say what may be passed; the
    /// version, told from 0.30 on, tells releases apart that share their options. Nil if this is no frontend.
    package init?(versionText: String, helpText: String) {
        guard helpText.contains("--listen-fd") else { return nil }
        adoptsListeners = helpText.contains("--input-listener-fd")
        knowsStartIndex = helpText.contains("--engine-start-index")
        knowsDataParallelSize = helpText.contains("--data-parallel-size")
        let told = versionText.split(whereSeparator: { $0 == " " || $0 == "\n" }).lazy
            .compactMap { ProtocolFamily(vllmVersion: String($0)) }.first
        switch (adoptsListeners, knowsDataParallelSize, knowsStartIndex) {
        case (true, _, _): family = max(told ?? .newest, .v0_32)
        case (_, true, _): family = min(max(told ?? .v0_28, .v0_28), .v0_30)
        case (_, _, true): family = .v0_25
        default: family = .v0_22
        }
    }
}

/// The engine side of one frontend: its ROUTER (input) and PULL (output).
package enum FrontendTransport {
    /// Bound and listening here; the frontend adopts the descriptors.
    case listeners(input: ZMQListener, output: ZMQListener)
    /// The frontend binds these itself.
    case addresses(input: String, output: String)

    /// What engines connect to.
    package var inputAddress: String {
        switch self {
        case .listeners(let input, _): input.address
        case .addresses(let input, _): input
        }
    }

    package var outputAddress: String {
        switch self {
        case .listeners(_, let output): output.address
        case .addresses(_, let output): output
        }
    }

    /// Port 0: only the frontend knows what it got.
    package var isChosenByTheFrontend: Bool {
        guard case .addresses(let input, let output) = self else { return false }
        return [input, output].contains { $0.hasPrefix("tcp://") && $0.hasSuffix(":0") }
    }

    /// Closes our copies of the descriptors.
    package func close() {
        guard case .listeners(let input, let output) = self else { return }
        input.close()
        output.close()
    }
}

/// Everything that a frontend process is started with, apart from descriptors.
package struct FrontendLaunch {
    package var kind: FrontendKind
    /// The frontend's program, or the Python interpreter.
    package var executable: String
    package var contract: FrontendContract
    package var engineStartIndex = 0
    package var engineCount = 1
    package var dataParallelSize = 1
    package var coordinatorAddress: String?
    /// Which of `clientCount` frontends this is.
    package var clientIndex = 0
    package var clientCount = 1
    /// Which of several different frontends this is; nil = there is one kind.
    package var shareIndex: Int?
    /// Where several frontends keep their metrics, so that each can show the sums.
    package var metricsDirectory: String?
    /// The HTTP address, for the Python server's log.
    package var servedAddress = ""
    /// Non-default arguments under vLLM's attribute names, plus `model_tag` and the timeouts.
    package var arguments: FrontendArguments
    package var environment: [String: String]
    /// What was done before the first process of this launch; its successors start for other reasons.
    package var startupReport: String?
    /// Where engines of this machine note how far they are with loading.
    package var progress: LoadProgress?

    package init(
        kind: FrontendKind, executable: String, contract: FrontendContract, arguments: FrontendArguments,
        environment: [String: String]
    ) {
        self.kind = kind
        self.executable = executable
        self.contract = contract
        self.arguments = arguments
        self.environment = environment
    }

    /// What `ps` shows in place of the program's path. Python gives itself vLLM's title; its interpreter needs the path.
    var processTitle: String? {
        switch kind {
        case .swift, .rust: "VLLM::APIServer\(suffix)"
        case .python, .program: nil
        }
    }

    /// Name of the process in logs.
    var processName: String { kind.processName + suffix }

    /// Tells several frontends apart.
    private var suffix: String {
        if let shareIndex { return "_\(shareIndex)" }
        return clientCount > 1 ? "_\(clientIndex)" : ""
    }

    /// The words after the program, in vLLM's order.
    package func commandLine(listenDescriptor: Int32, transport: [String], argumentsJSON: String) -> [String] {
        var words = ["frontend", "--listen-fd", String(listenDescriptor)] + transport
        if contract.knowsStartIndex { words += ["--engine-start-index", String(engineStartIndex)] }
        words += ["--engine-count", String(engineCount)]
        if contract.knowsDataParallelSize { words += ["--data-parallel-size", String(dataParallelSize)] }
        if let coordinatorAddress { words += ["--coordinator-address", coordinatorAddress] }
        if clientCount > 1 {
            words += ["--client-index", String(clientIndex), "--client-count", String(clientCount)]
            if let metricsDirectory { words += ["--metrics-directory", metricsDirectory] }
        }
        return words + ["--args-json", argumentsJSON]
    }
}

/// The object behind `--args-json`: what the user gave, under the names of vLLM's `vllm serve` namespace.
package struct FrontendArguments: Equatable, Sendable {
    private var values: [String: JSONValue] = [:]

    package init() {}

    /// A nil value is left out: the frontend's default applies.
    package subscript(name: String) -> JSONValue? {
        get { values[name] }
        set { values[name] = newValue }
    }

    package var names: [String] { values.keys.sorted() }

    /// Compact JSON with sorted keys.
    package var json: String { Self.serialize(values) }

    /// The same with every secret replaced, for the log.
    package var redactedJSON: String {
        var shown = values
        for name in Self.secrets where shown[name] != nil { shown[name] = .string("***") }
        return Self.serialize(shown)
    }

    private static let secrets = ["api_key", "hf_token", "ssl_keyfile_password"]

    private static func serialize(_ values: [String: JSONValue]) -> String {
        let object = JSONObject(values.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
        return JSONValue.object(object).serialized()
    }
}
