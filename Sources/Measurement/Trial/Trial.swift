import Glibc
import Supervision

/// How a run goes about it; fixed before it starts.
package struct TrialPlan: Sendable {
    package var workload: Workload
    package var loads: [LoadPoint]
    /// Requests of a block, by load.
    package var requests: [Int]
    /// Comparison rounds of each load.
    package var rounds: Int
    /// A/A rounds of each load; they go through the arms in turn.
    package var noiseFloorRounds: Int
    /// Requests of the warm-up of each arm.
    package var warmup: Int
    /// Prompts whose answers are compared.
    package var equivalence: Int
    /// Nothing happens for this long before a block.
    package var idleGap: Duration
    package var seed: UInt64
    package var rules: RunRules
    /// Most requests at a time in an open loop; nil = no limit.
    package var concurrencyLimit: Int?
    package var keepsText: Bool
    package var silenceLimit: Nanoseconds
    /// As the servers call the model; nil leaves it out.
    package var model: String?
}

/// What load is offered to, and what is known of its processes.
struct Contestant {
    var name: String
    var target: LoadTarget
    var frontendPids: [pid_t] = []
    var enginePids: [pid_t] = []
    var stamps: StampReader?
    var checkAlive: () throws -> Void = {}
}

/// Runs the blocks of `ab` and `bench`, one at a time, from the main thread.
final class Trial {
    private let plan: TrialPlan
    private let contestants: [Contestant]
    private let templates: [[RequestTemplate]]
    private let generator: LoadGenerator
    private let interruption: Interruption
    private let progress: Progress
    private(set) var run: MeasurementRun

    init(
        plan: TrialPlan, contestants: [Contestant], description: RunDescription, generator: LoadGenerator,
        interruption: Interruption, progress: Progress
    ) throws {
        self.plan = plan
        self.contestants = contestants
        templates = try contestants.map { try plan.workload.templates(for: $0.target, model: plan.model) }
        self.generator = generator
        self.interruption = interruption
        self.progress = progress
        run = MeasurementRun(description: description)
    }

    /// Everything in its order: answers to compare, warm-up, A/A, comparison.
    func perform() throws {
        let blocks = plan.loads.count * (plan.noiseFloorRounds * 2 + plan.rounds * contestants.count)
        progress.begin(steps: blocks + 2 * contestants.count)
        let answers = try contestants.indices.map { try equivalence(arm: $0) }
        // Answers that nobody asked for are not equal answers.
        if contestants.count > 1, plan.equivalence > 0 { run.equivalence = answers }
        for arm in contestants.indices { try warmUp(arm: arm) }
        for load in plan.loads.indices {
            for round in 0..<plan.noiseFloorRounds {
                let seed = seed(load: load, round: 1000 + round)
                for (position, column) in BlockOrder.columns(round: round / contestants.count, count: 2).enumerated() {
                    try block(
                        BlockRecord(
                            purpose: .noiseFloor, round: round, position: position, column: column,
                            arm: round % contestants.count, load: load, seed: seed, start: 0, end: 0))
                }
            }
            for round in 0..<plan.rounds {
                let seed = seed(load: load, round: round)
                let order = BlockOrder.columns(round: round, count: contestants.count)
                for (position, column) in order.enumerated() {
                    try block(
                        BlockRecord(
                            purpose: .comparison, round: round, position: position, column: column, arm: column,
                            load: load, seed: seed, start: 0, end: 0))
                }
            }
        }
        progress.finish()
        run.voidReasons = voidReasons
    }

    /// Both columns of a round get the same requests at the same times.
    private func seed(load: Int, round: Int) -> UInt64 {
        var generator = SeededGenerator(seed: plan.seed &+ UInt64(load) &* 0x1_0001 &+ UInt64(round) &* 0x9E37_79B9)
        return generator.next()
    }

    private var voidReasons: [String] {
        var reasons: [String] = []
        let limit = plan.rules.latenessLimit
        for load in plan.loads.indices where plan.loads[load].isOpenLoop {
            let late = run.blocks.filter { $0.load == load && $0.dropped == nil && $0.lateness.p99 > limit }
            guard let worst = late.map(\.lateness.p99).max() else { continue }
            reasons.append(
                "the client was late: p99 \(milliseconds(worst)) ms in \(late.count) of "
                    + "\(run.blocks.filter { $0.load == load }.count) blocks, the limit is \(milliseconds(limit)) ms")
        }
        return reasons
    }

    private func milliseconds(_ time: Nanoseconds) -> String {
        let tenths = (time + 50_000) / 100_000
        return "\(tenths / 10).\(tenths % 10)"
    }

    // MARK: - Before the blocks

    private func equivalence(arm: Int) throws -> [RequestRecord] {
        guard contestants.count > 1, plan.equivalence > 0 else {
            progress.step("compare answers")
            return []
        }
        let count = min(plan.equivalence, plan.workload.items.count)
        // Not shuffled: the n-th answer of each arm is that to the n-th prompt.
        let requests = (0..<count).map {
            PlannedRequest(
                item: $0, seed: RequestTemplate.firstSeed + UInt64($0),
                expectedTokens: plan.workload.items[$0].outputTokens)
        }
        let load = LoadPlan(
            templates: templates[arm], requests: requests, offsets: nil, concurrency: 4, silenceLimit: plan.silenceLimit
        )
        let answers = try perform(load, arm: arm, block: 0, keepsText: true).requests
        progress.step("\(contestants[arm].name): answers to compare")
        return answers
    }

    /// The same requests for every arm.
    private func warmUp(arm: Int) throws {
        if plan.warmup > 0 {
            let requests = plan.workload.requests(count: plan.warmup, seed: plan.seed ^ 0x77A2)
            let concurrency = plan.loads.compactMap(\.concurrency).max() ?? 8
            let load = LoadPlan(
                templates: templates[arm], requests: requests, offsets: nil, concurrency: min(concurrency, plan.warmup),
                silenceLimit: plan.silenceLimit)
            let answers = try perform(load, arm: arm, block: 0, keepsText: false).requests
            if let failed = answers.first(where: { !$0.succeeded }), !answers.contains(where: \.succeeded) {
                throw SupervisionError(
                    .failure,
                    "\(contestants[arm].name) answers no request of the warm-up: "
                        + (failed.status == 0 || failed.status == 200 ? "" : "HTTP \(failed.status) ")
                        + (failed.errorDetail ?? failed.error?.rawValue ?? ""))
            }
        }
        progress.step("\(contestants[arm].name): warm-up")
    }

    private func perform(_ load: LoadPlan, arm: Int, block: Int, keepsText: Bool) throws -> BlockOfAnswers {
        let prepared = try interruption.wait(for: generator.prepare(load, for: contestants[arm].target))
        prepared.start()
        let result = try interruption.wait(for: prepared.result)
        return BlockOfAnswers(result, arm: arm, block: block, keepsText: keepsText)
    }

    // MARK: - A block

    private func block(_ blank: BlockRecord) throws {
        var record = blank
        let contestant = contestants[record.arm]
        try contestant.checkAlive()
        try interruption.sleep(plan.idleGap)
        let point = plan.loads[record.load]
        let count = plan.requests[record.load]
        let requests = plan.workload.requests(count: count, seed: record.seed, isTrace: point == .trace)
        let load = LoadPlan(
            templates: templates[record.arm], requests: requests, offsets: offsets(point, requests, seed: record.seed),
            concurrency: point.concurrency ?? plan.concurrencyLimit, silenceLimit: plan.silenceLimit,
            openedBefore: min(point.concurrency ?? 0, count))
        let prepared = try interruption.wait(for: generator.prepare(load, for: contestant.target))
        contestant.stamps?.skip()
        let before = Accounts(contestant, all: contestants)
        before.frontend.resetPeaks()
        before.engine.resetPeaks()

        prepared.start()
        let result = try interruption.wait(for: prepared.result)

        let after = Accounts(contestant, all: contestants)
        let answers = BlockOfAnswers(result, arm: record.arm, block: run.blocks.count, keepsText: plan.keepsText)
        record.start = answers.start
        record.end = answers.end
        record.lateness = answers.lateness
        record.frontend = after.frontend.usage(since: before.frontend)
        record.engine = after.engine.usage(since: before.engine)
        record.client = after.client.usage(since: before.client)
        record.noise = after.machine.noise(
            since: before.machine, ours: Double(after.everything - before.everything) * 1e-9)
        record.dropped = dropReason(record)
        run.blocks.append(record)
        run.requests += try withStamps(answers.requests, contestant)
        progress.step("\(contestant.name): \(record.purpose == .noiseFloor ? "A/A" : "round \(record.round + 1)")")
    }

    private func offsets(_ point: LoadPoint, _ requests: [PlannedRequest], seed: UInt64) -> [Nanoseconds]? {
        if point == .trace { return requests.map { plan.workload.items[$0.item].arrival ?? 0 } }
        return ArrivalSchedule.offsets(point, count: requests.count, seed: seed)
    }

    private func dropReason(_ block: BlockRecord) -> String? {
        let limit = plan.rules.noiseLimit
        func percent(_ part: Double) -> String { "\(Int((part * 100).rounded())) %" }
        if block.noise.steal > limit { return "\(percent(limit)) of the CPU or more stolen by the hypervisor" }
        if block.noise.otherCPU > limit { return "\(percent(limit)) of the CPU or more used by other processes" }
        return nil
    }

    /// The engine writes its stamps when it has run empty, which may be a moment after the last answer.
    private func withStamps(_ requests: [RequestRecord], _ contestant: Contestant) throws -> [RequestRecord] {
        guard let reader = contestant.stamps else { return requests }
        var stamps = reader.read()
        let expected = requests.filter(\.succeeded).count
        for _ in 0..<50 where stamps.count < expected {
            try interruption.sleep(.milliseconds(10))
            stamps.merge(reader.read()) { old, _ in old }
        }
        return requests.map { request in
            var request = request
            request.engine = stamps[request.seed]
            return request
        }
    }
}

/// Totals at one moment.
private struct Accounts {
    let frontend: ProcessTree
    let engine: ProcessTree
    let client: ProcessTree
    let machine: MachineSample
    /// CPU of all that belongs to the measurement, idle arms and supervisors included.
    let everything: Nanoseconds

    init(_ contestant: Contestant, all: [Contestant]) {
        machine = MachineSample()
        frontend = ProcessTree(of: contestant.frontendPids)
        engine = ProcessTree(of: contestant.enginePids)
        client = ProcessTree(of: [getpid()], includesDescendants: false)
        everything = ProcessTree(of: [getpid()]).cpu
    }
}

extension LoadPoint {
    /// Whether there is a schedule that the client can be late for.
    var isOpenLoop: Bool { concurrency == nil }
}
