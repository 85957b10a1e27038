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
              vllm-engine bench --request-rate 20 --num-prompts 400             our frontend on the mock engine
              vllm-engine bench --engine blas --max-concurrency 4               our frontend on the real engine
              vllm-engine bench --base-url http://host:8000 --model name --request-rate 10 --burstiness 0.5
              vllm-engine bench --base-url http://host:8000 --dataset-name sharegpt --dataset-path file.json
            """)

    @Option(help: ArgumentHelp("Server to measure; default: a service that is started for the run.", valueName: "url"))
    var baseUrl: String?

    @Option(help: ArgumentHelp("As --base-url http://HOST:PORT.", valueName: "host"))
    var host: String?

    @Option(help: ArgumentHelp("As --base-url http://HOST:PORT.", valueName: "port"))
    var port: Int?

    @Option(help: ArgumentHelp("Header to send with every request; may be repeated.", valueName: "name=value"))
    var header: [String] = []

    @Option(help: ArgumentHelp("Name of the model in requests; default: --model.", valueName: "name"))
    var servedModelName: String?

    @Option(help: ArgumentHelp("The frontend of the own service.", valueName: "swift|rust|python|PATH"))
    var frontend = "swift"

    @Option(help: ArgumentHelp("Its program.", valueName: "path"))
    var frontendBinary: String?

    @Flag(help: "Let answers go on to their wanted length.")
    var ignoreEos = false

    @OptionGroup(title: "Own service") var service: ServiceOptions
    @OptionGroup(title: "Load") var load: WorkloadOptions
    @OptionGroup(title: "Results") var output: OutputOptions

    @Option(
        help: ArgumentHelp(
            "Write the result with the keys of `vllm bench serve`; - for standard output.", valueName: "path"))
    var resultFilename: String?

    @Flag(help: "With the lists of every request's values in that file.")
    var saveDetailed = false

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
        if (host == nil) != (port == nil) { throw ValidationError("--host and --port belong together") }
        if !(1...1000).contains(numRuns) { throw ValidationError("--num-runs must be from 1 to 1000") }
        if resultFilename == "-", output.isForPrograms {
            throw ValidationError("only one of --result-filename, --json and --records can be -")
        }
        let loads = load.loads(load.preset(fallback: "chat"))
        if resultFilename != nil, loads.count > 1 {
            throw ValidationError("--result-filename holds one load; use --json for a sweep")
        }
        if let baseUrl { _ = try Self.target(baseUrl, headers: []) }
        _ = try headers()
    }

    private func headers() throws -> [(name: String, value: String)] {
        var headers = try header.map { entry -> (name: String, value: String) in
            guard let equals = entry.firstIndex(of: "="), equals > entry.startIndex,
                entry.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F })
            else { throw ValidationError("--header \(entry): write NAME=VALUE") }
            return (String(entry[..<equals]), String(entry[entry.index(after: equals)...]))
        }
        if let key = ProcessInfo.environmentVariable("OPENAI_API_KEY"), !key.isEmpty,
            key.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        {
            headers.append(("Authorization", "Bearer \(key)"))
        }
        return headers
    }

    /// - Throws: for anything but `http://host[:port][/prefix]`.
    static func target(_ url: String, headers: [(name: String, value: String)]) throws -> LoadTarget {
        guard !url.hasPrefix("https://") else {
            throw ValidationError("--base-url: https is not supported; put a proxy in front or measure without TLS")
        }
        guard url.hasPrefix("http://"), url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw ValidationError("--base-url: \(url) is not an http:// URL")
        }
        let rest = url.dropFirst(7)
        var authority = rest.prefix { $0 != "/" }
        var prefix = String(rest.dropFirst(authority.count))
        while prefix.hasSuffix("/") { prefix.removeLast() }
        if prefix.hasSuffix("/v1") { prefix.removeLast(3) }
        var port = 80
        if let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") {
            guard let number = Int(authority[authority.index(after: colon)...]), (1...65535).contains(number) else {
                throw ValidationError("--base-url: \(url) has no valid port")
            }
            port = number
            authority = authority[..<colon]
        }
        let host = authority.hasPrefix("[") && authority.hasSuffix("]") ? authority.dropFirst().dropLast() : authority
        guard !host.isEmpty else { throw ValidationError("--base-url: \(url) has no host") }
        return LoadTarget(address: .tcp(host: String(host), port: port), pathPrefix: prefix, headers: headers)
    }

    package mutating func run() throws {
        let command = self
        try Session.run(quiet: output.noProgress) { try command.measure($0) }
    }

    private func measure(_ session: Session) throws {
        let preset = load.preset(fallback: "chat")
        let url = baseUrl ?? host.map { "http://\($0.contains(":") ? "[\($0)]" : $0):\(port ?? 8000)" }
        // A model that only the other machine has brings no tokenizer; lengths are then near what was asked for.
        let local = url == nil || service.model.map { access("\($0)/tokenizer.json", R_OK) == 0 } == true
        let folder = try load.tokenizer ?? (local ? service.tokenizerFolder(nil) : Binaries.defaultModel(explicit: nil))
        let maker = try PromptMaker(folder: folder)
        let loads = load.loads(preset)
        let guess = load.requestCounts(preset, loads: loads, items: 0).max() ?? 1
        var workload = try load.makeWorkload(preset, maker: maker, count: guess)
        if url != nil { workload.ignoresEOS = ignoreEos }
        let counts = load.requestCounts(preset, loads: loads, items: workload.items.count)

        var contestant: Contestant
        var description: ArmDescription
        var engine = "?"
        var model = servedModelName ?? service.model
        if let url {
            contestant = Contestant(name: url, target: try Self.target(url, headers: try headers()))
            description = ArmDescription(name: url)
        } else {
            let resolved = try service.resolve(mock: preset.mock, given: engineArguments, maker: maker)
            let specification = ArmSpecification(
                name: frontend.split(separator: "/").last.map(String.init) ?? frontend, frontend: frontend,
                binary: frontendBinary)
            let program = try Binaries.frontend(FrontendKind(frontend), explicit: frontendBinary)
            let arm = try session.startArm(specification, resolved)
            let size = ProcessTree(of: arm.frontendPids).size
            contestant = Contestant(
                name: specification.name, target: arm.target, frontendPids: arm.frontendPids,
                enginePids: arm.enginePids,
                stamps: arm.stamps, checkAlive: arm.checkAlive)
            description = ArmDescription(
                name: specification.name, version: frontend == "python" ? nil : session.version(of: program),
                program: program, startSeconds: arm.startSeconds, idleResidentBytes: size.resident,
                idleProportionalBytes: size.proportional)
            engine = resolved.summary
            model = resolved.servedName
        }
        let plan = TrialPlan(
            workload: workload, loads: loads, requests: counts, rounds: numRuns, noiseFloorRounds: 0,
            warmup: load.numWarmups ?? 0, equivalence: 0, idleGap: .milliseconds(100), seed: load.seed,
            rules: load.rules,
            concurrencyLimit: load.requestRate == nil ? nil : load.maxConcurrency?.values.first,
            keepsText: saveDetailed,
            silenceLimit: Nanoseconds(load.silenceTimeout * 1e9), model: model)
        let trial = try Trial(
            plan: plan, contestants: [contestant],
            description: RunDescription(
                command: "bench", plan: plan, arms: [description], engine: engine, preset: preset),
            generator: session.generator, interruption: session.interruption, progress: session.progress)
        try trial.perform()
        if let resultFilename { try writeResult(trial.run, to: resultFilename, tokenizer: folder, model: model ?? "") }
        if resultFilename == "-" { return }
        try output.deliver(trial.run)
    }

    private func writeResult(_ run: MeasurementRun, to path: String, tokenizer: String, model: String) throws {
        let report = Report(run)
        guard let load = report.loads.first else {
            throw SupervisionError(.failure, "every block was dropped, there is no result (see --noise-limit)")
        }
        var now = time(nil)
        var parts = tm()
        gmtime_r(&now, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let date =
            "\(parts.tm_year + 1900)\(two(parts.tm_mon + 1))\(two(parts.tm_mday))-"
            + two(parts.tm_hour) + two(parts.tm_min) + two(parts.tm_sec)
        let backend = run.description.workload.path.contains("chat") ? "openai-chat" : "openai"
        let summary = ServeSummary(
            report, load: load, arm: 0,
            labels: ServeSummary.Labels(backend: backend, model: model, tokenizer: tokenizer, date: date),
            detailed: saveDetailed)
        try writeFile(path) { try $0(Array(summary.text.utf8)) }
    }
}
