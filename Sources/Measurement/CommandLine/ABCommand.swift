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
              vllm-engine ab --frontends swift,rust --frontend-binary rust=/path/to/vllm-rs
              vllm-engine ab --frontends swift,rust --workload chat-max --max-concurrency 64,256    a sweep
              vllm-engine ab --frontends swift,swift --request-rate 100 --mock-itl-ms 5             what noise looks like
              vllm-engine ab --frontends swift,rust --fail-if 'p99_ttft_added > +5%'                for CI

            WORKLOADS
            \(Workload.presets.map { "  \($0.name)\(String(repeating: " ", count: 12 - $0.name.count))\($0.summary)" }
                .joined(separator: "\n"))

            With --engine mock, `--mock-ttft-ms`, `--mock-itl-ms`, `--mock-tokens-per-step` and the other --mock- options \
            of `blas-engine` set what the engine does; other options of the engine follow `--`.

            EXIT CODES
              0  the run is valid and no --fail-if rule holds
              1  a rule holds or cannot be decided, the client was too slow (void), every round was dropped, or something broke
              2  wrong command line
              4  a service did not start
              128 + the signal's number, such as 130 after ^C
            """)

    @Option(
        help: ArgumentHelp(
            "Two or three of swift, rust, python or a program, by commas; the first is compared.", valueName: "list"))
    var frontends = "swift,rust"

    @Option(
        help: ArgumentHelp(
            "Program of a frontend (interpreter for python); may be repeated.", valueName: "name=path"))
    var frontendBinary: [String] = []

    @OptionGroup(title: "Services") var service: ServiceOptions
    @OptionGroup(title: "Load") var load: WorkloadOptions
    @OptionGroup(title: "Results") var output: OutputOptions

    @Option(
        help: ArgumentHelp("Rounds of blocks for each load; in each, every frontend has one block.", valueName: "n"))
    var rounds = 6

    @Option(
        help: ArgumentHelp(
            "A/A rounds for each load, for the noise floor; they go through the frontends.", valueName: "n"))
    var aaRounds: Int?

    @Option(help: ArgumentHelp("Quiet time before each block.", valueName: "ms"))
    var idleGapMs = 300

    @Option(help: ArgumentHelp("Prompts whose answers are compared; 0 = none.", valueName: "n"))
    var equivalence = 24

    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("Further options for the engine's own command line.", valueName: "engine-options"))
    var engineArguments: [String] = []

    package init() {}

    package mutating func validate() throws {
        let names = frontends.split(separator: ",")
        guard (2...3).contains(names.count) else { throw ValidationError("--frontends needs two or three names") }
        if rounds < 1 || rounds > 1000 { throw ValidationError("--rounds must be from 1 to 1000") }
        if let aaRounds, !(0...1000).contains(aaRounds) { throw ValidationError("--aa-rounds must be from 0 to 1000") }
        if !(0...60000).contains(idleGapMs) { throw ValidationError("--idle-gap-ms must be from 0 to 60000") }
        if equivalence < 0 { throw ValidationError("--equivalence must not be negative") }
        _ = try specifications()
    }

    private func specifications() throws -> [ArmSpecification] {
        var binaries: [String: String] = [:]
        for entry in frontendBinary {
            guard let equals = entry.firstIndex(of: "="), equals > entry.startIndex else {
                throw ValidationError("--frontend-binary \(entry): write NAME=PATH, such as rust=/path/to/vllm-rs")
            }
            binaries[String(entry[..<equals])] = String(entry[entry.index(after: equals)...])
        }
        var unused = Set(binaries.keys)
        var counts: [String: Int] = [:]
        let arms = frontends.split(separator: ",").map { word in
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
        try Session.run(quiet: output.noProgress) { try command.measure($0) }
    }

    private func measure(_ session: Session) throws {
        let preset = load.preset(fallback: "chat")
        let maker = try PromptMaker(folder: service.tokenizerFolder(load.tokenizer))
        let loads = load.loads(preset)
        let guess = load.requestCounts(preset, loads: loads, items: 0).max() ?? 1
        let workload = try load.makeWorkload(preset, maker: maker, count: guess)
        let counts = load.requestCounts(preset, loads: loads, items: workload.items.count)
        let resolved = try service.resolve(mock: preset.mock, given: engineArguments, maker: maker)
        let specifications = try specifications()
        let programs = try specifications.map { specification in
            try Binaries.frontend(FrontendKind(specification.frontend), explicit: specification.binary)
        }

        let arms = try specifications.map { try session.startArm($0, resolved) }
        let descriptions = zip(arms, programs).map { arm, program in
            let size = ProcessTree(of: arm.frontendPids).size
            return ArmDescription(
                name: arm.specification.name,
                version: arm.specification.frontend == "python" ? nil : session.version(of: program), program: program,
                startSeconds: arm.startSeconds, idleResidentBytes: size.resident,
                idleProportionalBytes: size.proportional)
        }
        let plan = TrialPlan(
            workload: workload, loads: loads, requests: counts, rounds: rounds,
            noiseFloorRounds: aaRounds ?? min(rounds, 2 * arms.count),
            warmup: load.numWarmups ?? min(counts.max() ?? 1, 64),
            equivalence: equivalence, idleGap: .milliseconds(idleGapMs), seed: load.seed, rules: load.rules,
            concurrencyLimit: load.requestRate == nil ? nil : load.maxConcurrency?.values.first, keepsText: false,
            silenceLimit: Nanoseconds(load.silenceTimeout * 1e9), model: resolved.servedName)
        let description = RunDescription(
            command: "ab", plan: plan, arms: descriptions, engine: resolved.summary, preset: preset)
        let trial = try Trial(
            plan: plan,
            contestants: arms.map { arm in
                Contestant(
                    name: arm.specification.name, target: arm.target, frontendPids: arm.frontendPids,
                    enginePids: arm.enginePids, stamps: arm.stamps, checkAlive: arm.checkAlive)
            }, description: description, generator: session.generator, interruption: session.interruption,
            progress: session.progress)
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
                name: plan.workload.name, summary: plan.workload.summary, path: plan.workload.endpoint.path,
                streaming: plan.workload.streaming, requestsPerBlock: plan.requests.max() ?? 0,
                outputTokens: plan.workload.items.map(\.outputTokens).max()),
            loads: plan.loads, engine: engine, seed: plan.seed, machine: .current, rules: plan.rules)
    }
}
