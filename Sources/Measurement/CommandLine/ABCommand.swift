import ArgumentParser
import Glibc
import Supervision

/// `vllm-engine ab`
package struct ABCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "ab",
        abstract: "Compare frontends on the same engine: latency, CPU, memory and answers.",
        discussion: """
            Starts a service for each frontend, each with its own copy of the same engine, and sends all of them \
            the same requests in interleaved blocks (A B B A). Differences are printed with their intervals, what the \
            machine's noise is (A against A) and whether the answers are equal. "added" is what remains when the engine's \
            own time is subtracted. The first frontend is compared with each of the others.

            EXAMPLES
              with vLLM's        vllm-engine ab --frontend-binary rust=/path/to/vllm-rs
              a sweep            vllm-engine ab --request-rate 20,40,80,160
              closed loop        vllm-engine ab --workload chat-max --max-concurrency 64
              what noise is      vllm-engine ab --frontends swift,swift
              for CI             vllm-engine ab --fail-if 'p99_ttft_added > +5% at 95%'
              running --split    vllm-engine ab --live

            WORKLOADS
            \(Workload.presets.map { "  \($0.name)\(String(repeating: " ", count: 12 - $0.name.count))\($0.summary)" }
                .joined(separator: "\n"))

            With --engine mock, `--mock-ttft-ms`, `--mock-itl-ms`, `--mock-tokens-per-step` and the other --mock- options \
            of `blas-engine` set what the engine does; other options of the engine follow `--`.

            EXIT CODES
              0  the run is valid and no --fail-if rule holds
              1  a rule holds or cannot be decided, the client was too slow (void),
                 every round was dropped, or something broke
              2  wrong command line
              4  a service did not start
              128 + the signal's number, such as 130 after ^C
            """)

    @Option(
        help: ArgumentHelp(
            "Two or three of swift, rust, python or a program, by commas; the first is compared. (default: swift,rust)",
            valueName: "list"))
    var frontends: String?

    @Option(
        help: ArgumentHelp(
            "Program of a frontend (interpreter for python); may be repeated.", valueName: "name=path"))
    var frontendBinary: [String] = []

    @Flag(
        help: ArgumentHelp(
            "Measure the frontends of a running service (serve --frontend A,B --split 50/50) instead of starting any."))
    var live = false

    @Option(
        help: ArgumentHelp("With --live: port of the service; needed only if several are running.", valueName: "port"))
    var port: UInt16?

    @Option(help: ArgumentHelp("With --live: process id of its supervisor.", valueName: "pid"))
    var pid: Int32?

    @OptionGroup(title: "Services") var service: ServiceOptions
    @OptionGroup(title: "Load") var load: WorkloadOptions
    @OptionGroup(title: "Results") var output: OutputOptions

    @Option(
        help: ArgumentHelp(
            "Rounds of blocks for each load; in each, every frontend has one block. A round with a dropped block is run "
                + "again, as long as no more are dropped than were asked for.", valueName: "n"))
    var rounds = 6

    @Option(
        help: ArgumentHelp(
            "A/A rounds for each load, for the noise floor; they go through the frontends. Default: two for each.",
            valueName: "n"))
    var aaRounds: Int?

    @Option(
        help: ArgumentHelp(
            "Differences that lie within this, with their whole interval, are called equal; 0 = none are.",
            valueName: "percent"))
    var equalWithin = RunRules.usualEqualWithin * 100

    @Option(help: ArgumentHelp("Quiet time before each block.", valueName: "ms"))
    var idleGapMs = 300

    @Option(help: ArgumentHelp("Prompts whose answers are compared; 0 = none.", valueName: "n"))
    var equivalence = 24

    @Flag(
        inversion: .prefixedNo,
        help: ArgumentHelp(
            "Compare answers with tool calls, log-probabilities, n > 1 and stop strings too, on scripted tokens, before the run."
        ))
    var featureCheck = true

    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("Further options for the engine's own command line.", valueName: "engine-options"))
    var engineArguments: [String] = []

    package init() {}

    package mutating func validate() throws {
        if live {
            try validateLive()
        } else if port != nil || pid != nil {
            throw ValidationError("--port and --pid belong to --live")
        }
        guard (2...3).contains(names.count) else { throw ValidationError("--frontends needs two or three names") }
        if rounds < 1 || rounds > 1000 { throw ValidationError("--rounds must be from 1 to 1000") }
        if let aaRounds, !(0...1000).contains(aaRounds) { throw ValidationError("--aa-rounds must be from 0 to 1000") }
        if !(0...60000).contains(idleGapMs) { throw ValidationError("--idle-gap-ms must be from 0 to 60000") }
        if !(0...50).contains(equalWithin) { throw ValidationError("--equal-within must be from 0 to 50 (percent)") }
        if equivalence < 0 { throw ValidationError("--equivalence must not be negative") }
        _ = try specifications()
    }

    private var names: [Substring] { (frontends ?? "swift,rust").split(separator: ",") }

    private func specifications() throws -> [ArmSpecification] {
        var binaries: [String: String] = [:]
        for entry in frontendBinary {
            let pair = try NamedValue("--frontend-binary", entry, example: "rust=/path/to/vllm-rs")
            binaries[pair.name] = pair.value
        }
        var unused = Set(binaries.keys)
        var counts: [String: Int] = [:]
        let arms = names.map { word in
            let kind = String(word)
            let short = kind.split(separator: "/").last.map(String.init) ?? kind
            counts[short, default: 0] += 1
            let name = counts[short] == 1 ? short : "\(short)-\(counts[short] ?? 0)"
            unused.remove(name)
            unused.remove(kind)
            return ArmSpecification(name: name, frontend: kind, binary: binaries[name] ?? binaries[kind])
        }
        if let name = unused.min() {
            throw ValidationError("--frontend-binary \(name): no such frontend in --frontends")
        }
        return arms
    }

    package mutating func run() throws {
        let command = self
        try Session.run(quiet: output.noProgress) { session in
            try command.live ? command.measureLive(session) : command.measure(session)
        }
    }

    private func measure(_ session: Session) throws {
        let preset = load.preset(fallback: "chat")
        let maker = try PromptMaker(folder: service.tokenizerFolder(load.tokenizer))
        let resolved = try service.resolve(mock: preset.mock, given: engineArguments, maker: maker)
        let specifications = try specifications()
        // A program that is not there is found before anything starts.
        let programs = try specifications.map { try $0.program }
        let check =
            equivalence > 0 && featureCheck
            ? FeatureCheck(model: resolved.servedName, reasons: maker.knowsReasoning) : nil
        let featureAnswers = try check.map { try session.answers(to: $0, from: specifications, service, maker: maker) }
        let arms = try specifications.map { try session.startArm($0, resolved) }
        try compare(
            session, arms.map(\.contestant), zip(arms, programs).map { session.description(of: $0, program: $1) },
            preset: preset, maker: maker, engine: resolved.summary, model: resolved.servedName, check: check,
            featureAnswers: featureAnswers)
    }

    /// - Parameter featureAnswers: by contestant, to what is in `check`.
    func compare(
        _ session: Session, _ contestants: [Contestant], _ arms: [ArmDescription], preset: Workload.Preset,
        maker: PromptMaker, engine: String, model: String, check: FeatureCheck?, featureAnswers: [[RequestRecord]]?
    ) throws {
        let loads = load.loads(preset)
        let guess = load.requestCounts(preset, loads: loads, items: 0).max() ?? 1
        let workload = try load.makeWorkload(preset, maker: maker, count: guess)
        let counts = load.requestCounts(preset, loads: loads, items: workload.items.count)
        var rules = load.rules(noise: 0.25)
        rules.equalWithin = equalWithin / 100
        let plan = TrialPlan(
            workload: workload, loads: loads, requests: counts, rounds: rounds,
            noiseFloorRounds: aaRounds ?? (rounds > 1 ? 2 * arms.count : 0),
            warmup: load.numWarmups ?? min(counts.max() ?? 1, 64),
            equivalence: equivalence, idleGap: .milliseconds(idleGapMs), seed: load.seed, rules: rules,
            concurrencyLimit: load.requestRate == nil ? nil : load.maxConcurrency?.values.first,
            keepsText: false, countsSystemCalls: load.systemCalls, silenceLimit: Nanoseconds(load.silenceTimeout * 1e9),
            model: model)
        var description = RunDescription(command: "ab", plan: plan, arms: arms, engine: engine, preset: preset)
        description.features = check?.features.map(\.name)
        let trial = try Trial(
            plan: plan, contestants: contestants, description: description, generator: session.generator,
            interruption: session.interruption, progress: session.progress, featureAnswers: featureAnswers)
        try trial.perform()
        try output.deliver(trial.run)
    }
}

extension RunDescription {
    init(command: String, plan: TrialPlan, arms: [ArmDescription], engine: String, preset: Workload.Preset) {
        self.init(
            command: command, arguments: Array(CommandLine.arguments.dropFirst()),
            version: VLLMEngineCommand.configuration.version, startedAt: Double(time(nil)), arms: arms,
            workload: WorkloadDescription(
                name: plan.workload.name, summary: plan.workload.summary, path: plan.workload.path,
                streaming: plan.workload.streaming, requestsPerBlock: plan.requests.max() ?? 0,
                outputTokens: plan.workload.items.map(\.outputTokens).max()),
            loads: plan.loads, engine: engine, seed: plan.seed, machine: .current, rules: plan.rules)
    }
}
