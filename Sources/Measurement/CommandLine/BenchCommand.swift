import ArgumentParser
import Glibc
import Supervision

/// `vllm-engine bench`
package struct BenchCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure one server: a service of our own, or any URL with the OpenAI API.",
        discussion: """
            Options are those of `vllm bench serve` where it has them, and so are the result keys of --result-filename, so \
            that what reads its files reads ours.

            EXAMPLES
              mock engine      vllm-engine bench --request-rate 20 --num-prompts 400
              real engine      vllm-engine bench --engine blas --max-concurrency 4
              any server       vllm-engine bench --base-url https://host --request-rate 10
              a data set       vllm-engine bench --dataset-name custom --dataset-path F
              service level    vllm-engine bench --request-rate 20 --goodput ttft:200
            """)

    @Option(help: ArgumentHelp("Server to measure; default: a service that is started for the run.", valueName: "url"))
    var baseUrl: String?

    @Option(help: ArgumentHelp("As --base-url http://HOST:PORT, with port 8000 if there is none.", valueName: "host"))
    var host: String?

    @Option(help: ArgumentHelp("The same, with 127.0.0.1 if there is no host.", valueName: "port"))
    var port: Int?

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Headers to send with every request.", valueName: "name=value"))
    var header: [String] = []

    @Flag(help: "Take any certificate of an https server.")
    var insecure = false

    @Option(
        help: ArgumentHelp(
            "Ask a server that may still be starting until it answers, for at most this long. (default: not at all)",
            valueName: "s"))
    var readyCheckTimeoutSec: Double?

    @Option(help: ArgumentHelp("PEM file of the authorities to trust, in place of the system's.", valueName: "path"))
    var cacert: String?

    @Option(
        help: ArgumentHelp(
            "Name of the model in requests; default: --model, else the server's first.", valueName: "name"))
    var servedModelName: String?

    @Option(help: ArgumentHelp("The frontend of the own service.", valueName: "swift|rust|python|PATH"))
    var frontend = "swift"

    @Option(help: ArgumentHelp("Its program.", valueName: "path"))
    var frontendBinary: String?

    @Flag(
        inversion: .prefixedNo,
        help: "Let answers go on to their wanted length; default: those to made-up prompts and of traces.")
    var ignoreEos: Bool?

    @OptionGroup(title: "Own service") var service: ServiceOptions
    @OptionGroup(title: "Load") var load: WorkloadOptions
    @OptionGroup(title: "Results") var output: OutputOptions

    @OptionGroup(title: "Result file") var result: ServeResultOptions

    @Option(help: ArgumentHelp("How often the load is repeated.", valueName: "n"))
    var numRuns = 1

    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("Further options for the engine's own command line.", valueName: "engine-options"))
    var engineArguments: [String] = []

    package init() {}

    package mutating func validate() throws {
        if baseUrl != nil, host != nil || port != nil {
            throw ValidationError("--base-url takes the place of --host and --port")
        }
        if let port, !(1...65535).contains(port) { throw ValidationError("--port must be from 1 to 65535") }
        if !(1...1000).contains(numRuns) { throw ValidationError("--num-runs must be from 1 to 1000") }
        if result.resultFilename == "-", output.isForPrograms {
            throw ValidationError("only one of --result-filename, --json and --records can be -")
        }
        let loads = load.loads(load.preset(fallback: "chat"))
        if result.isWanted, loads.count > 1 {
            throw ValidationError("--result-filename holds one load; use --json for a sweep")
        }
        if let baseUrl {
            _ = try ServerURL(baseUrl)
            if !baseUrl.hasPrefix("https:"), insecure || cacert != nil {
                throw ValidationError("--insecure and --cacert need an https:// URL")
            }
        } else if insecure || cacert != nil {
            throw ValidationError("--insecure and --cacert need --base-url")
        }
        if let readyCheckTimeoutSec {
            if !(0...1e6).contains(readyCheckTimeoutSec) {
                throw ValidationError("--ready-check-timeout-sec must not be negative")
            }
            if url == nil { throw ValidationError("--ready-check-timeout-sec needs --base-url, --host or --port") }
        }
        if load.systemCalls, url != nil {
            throw ValidationError("--system-calls needs a service that is started for the run")
        }
        _ = try headers()
    }

    /// Of a server that runs anyway.
    private var url: String? {
        if baseUrl != nil || (host == nil && port == nil) { return baseUrl }
        let host = host ?? "127.0.0.1"
        return "http://\(host.contains(":") ? "[\(host)]" : host):\(port ?? 8000)"
    }

    private func headers() throws -> [(name: String, value: String)] {
        let headers = try header.map { entry -> (name: String, value: String) in
            guard entry.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
                throw ValidationError("--header \(entry): control characters are not allowed")
            }
            let pair = try NamedValue("--header", entry, example: "x-tenant=a")
            return (pair.name, pair.value)
        }
        return headers + Self.authorization
    }

    /// From OPENAI_API_KEY.
    static var authorization: [(name: String, value: String)] {
        guard let key = ProcessInfo.environmentVariable("OPENAI_API_KEY"), !key.isEmpty,
            key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { return [] }
        return [("Authorization", "Bearer \(key)")]
    }

    package mutating func run() throws {
        let command = self
        try Session.run(quiet: output.noProgress) { try command.measure($0) }
    }

    private func measure(_ session: Session) throws {
        let preset = load.preset(fallback: "chat")
        let url = url
        // A model that only the other machine has brings no tokenizer; lengths are then near what was asked for.
        let local = url == nil || service.model.map { access("\($0)/tokenizer.json", R_OK) == 0 } == true
        let folder = try load.tokenizer ?? (local ? service.tokenizerFolder(nil) : Binaries.defaultModel(explicit: nil))
        let maker = try PromptMaker(folder: folder)
        let loads = load.loads(preset)
        let guess = load.requestCounts(preset, loads: loads, items: 0).max() ?? 1
        var workload = try load.makeWorkload(preset, maker: maker, count: guess)
        if let ignoreEos { workload.ignoresEOS = ignoreEos }
        let counts = load.requestCounts(preset, loads: loads, items: workload.items.count)

        var contestant: Contestant
        var description: ArmDescription
        var engine = "?"
        var model = servedModelName ?? service.model
        if let url {
            let target = try ServerURL(url).target(headers: headers(), insecure: insecure, authorities: cacert)
            contestant = Contestant(name: url, target: target)
            description = ArmDescription(name: url)
            model = try session.readyModel(
                of: target, named: model, workload, patience: .seconds(readyCheckTimeoutSec ?? 0))
        } else {
            let resolved = try service.resolve(mock: preset.mock, given: engineArguments, maker: maker)
            let specification = ArmSpecification(
                name: frontend.split(separator: "/").last.map(String.init) ?? frontend, frontend: frontend,
                binary: frontendBinary)
            let program = try specification.program
            let arm = try session.startArm(specification, resolved)
            contestant = arm.contestant
            description = session.description(of: arm, program: program)
            engine = resolved.summary
            model = resolved.servedName
        }
        let plan = TrialPlan(
            workload: workload, loads: loads, requests: counts, rounds: numRuns, noiseFloorRounds: 0,
            warmup: load.numWarmups ?? 0, equivalence: 0, idleGap: .milliseconds(100), seed: load.seed,
            // What others do is no reason to throw the only block away; and a server behind a URL is one of the others.
            rules: load.rules(noise: 1),
            concurrencyLimit: load.requestRate == nil ? nil : load.maxConcurrency?.values.first,
            keepsText: result.saveDetailed, countsSystemCalls: load.systemCalls,
            silenceLimit: Nanoseconds(load.silenceTimeout * 1e9), model: model)
        let trial = try Trial(
            plan: plan, contestants: [contestant],
            description: RunDescription(
                command: "bench", plan: plan, arms: [description], engine: engine, preset: preset),
            generator: session.generator, interruption: session.interruption, progress: session.progress)
        try trial.perform()
        if result.isWanted {
            try result.write(
                trial.run,
                backend: load.endpoint.backend?.rawValue ?? (workload.endpoint == .chat ? "openai-chat" : "openai"),
                model: service.model ?? model ?? "", tokenizer: folder, concurrency: load.maxConcurrency?.values.first)
        }
        if result.resultFilename == "-" { return }
        try output.deliver(trial.run)
    }
}
