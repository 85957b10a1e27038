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
    package var countsSystemCalls: Bool
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
    /// Supervisor of a service that is no child of ours.
    var servicePid: pid_t?
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
    private let featureAnswers: [[RequestRecord]]
    private(set) var run: MeasurementRun

    /// - Parameter featureAnswers: by contestant, to the requests that `description` names; compared with the others.
    init(
        plan: TrialPlan, contestants: [Contestant], description: RunDescription, generator: LoadGenerator,
        interruption: Interruption, progress: Progress, featureAnswers: [[RequestRecord]]? = nil
    ) throws {
        self.plan = plan
        self.contestants = contestants
        templates = try contestants.map { try plan.workload.templates(for: $0.target, model: plan.model) }
        self.generator = generator
        self.interruption = interruption
        self.progress = progress
        self.featureAnswers = featureAnswers ?? contestants.map { _ in [] }
        run = MeasurementRun(description: description)
    }

    /// Everything in its order: answers to compare, warm-up, A/A, comparison.
    func perform() throws {
        let blocks = plan.loads.count * (plan.noiseFloorRounds * 2 + plan.rounds * contestants.count)
        progress.begin(steps: blocks + 2 * contestants.count)
        defer { progress.finish() }
        let answers = try contestants.indices.map { try equivalence(arm: $0) }
        // Answers that nobody asked for are not equal answers.
        if contestants.count > 1, plan.equivalence > 0 {
            run.equivalence = zip(answers, featureAnswers).map { $0 + $1 }
        }
        for arm in contestants.indices { try warmUp(arm: arm) }
        for load in plan.loads.indices {
            try rounds(plan.noiseFloorRounds) { round, kept in
                let arm = kept % contestants.count
                return BlockOrder.columns(round: kept / contestants.count, count: 2).enumerated().map {
                    BlockRecord(
                        purpose: .noiseFloor, round: round, position: $0, column: $1, arm: arm, load: load,
                        seed: seed(load: load, round: 1_000_000 + round), start: 0, end: 0)
                }
            }
            try rounds(plan.rounds) { round, kept in
                BlockOrder.columns(round: kept, count: contestants.count).enumerated().map {
                    BlockRecord(
                        purpose: .comparison, round: round, position: $0, column: $1, arm: $1, load: load,
                        seed: seed(load: load, round: round), start: 0, end: 0)
                }
            }
        }
        run.voidReasons = voidReasons
    }

    /// Runs rounds until `count` of them are complete. One with a dropped block ends there and is run again, but no more rounds
    /// than were asked for are given up: a machine that stays busy is not waited for.
    /// - Parameter blocks: of a round, by its number and that of the complete ones before it, which decides the order: so
    ///   the order stays balanced.
    private func rounds(_ count: Int, _ blocks: (_ round: Int, _ kept: Int) -> [BlockRecord]) throws {
        var round = 0
        var kept = 0
        while kept < count, round - kept < count {
            let planned = blocks(round, kept)
            round += 1
            var done = 0
            for blank in planned {
                done += 1
                if try block(blank).dropped != nil { break }
            }
            if run.blocks.last?.dropped == nil {
                kept += 1
            } else {
                progress.add(steps: round - kept < count ? done : done - planned.count * (count - kept))
            }
        }
    }

    /// Both columns of a round get the same requests at the same times.
    private func seed(load: Int, round: Int) -> UInt64 {
        var generator = SeededGenerator(seed: plan.seed &+ UInt64(load) &* 0x1_0001 &+ UInt64(round) &* 0x9E37_79B9)
        return generator.next()
    }

    private var voidReasons: [String] {
        var reasons: [String] = []
        for load in plan.loads.indices where plan.loads[load].isOpenLoop {
            for arm in contestants.indices {
                let blocks = run.blocks.filter {
                    $0.purpose == .comparison && $0.load == load && $0.arm == arm && $0.dropped == nil
                }
                let sends = blocks.reduce(0) { $0 + ($1.lateness.samples ?? 0) }
                let late = blocks.reduce(0) { $0 + ($1.lateness.late ?? 0) }
                // More than one in a hundred above the limit: so is the 99th percentile of them all.
                guard late * 100 > sends else { continue }
                let limit = milliseconds(plan.rules.latenessLimit)
                let place = plan.loads.count > 1 ? " at \(plan.loads[load].title)" : ""
                reasons.append(
                    "the client was late: \(late) of its \(sends) sends to \(contestants[arm].name)\(place) by more than "
                        + "\(limit) ms, which may be 1 % (see --lateness-limit-ms)")
            }
        }
        return reasons
    }

    private func milliseconds(_ time: Nanoseconds) -> String {
        let tenths = (time + 50_000) / 100_000
        return "\(tenths / 10).\(tenths % 10)"
    }

    // MARK: - Before the blocks

    private func equivalence(arm: Int) throws -> [RequestRecord] {
        defer { progress.step() }
        guard contestants.count > 1, plan.equivalence > 0 else { return [] }
        progress.work(on: "\(contestants[arm].name): answers to compare")
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
        return try perform(load, arm: arm).requests
    }

    /// The same requests for every arm.
    private func warmUp(arm: Int) throws {
        progress.work(on: "\(contestants[arm].name): warm-up")
        defer { progress.step() }
        if plan.warmup > 0 {
            let requests = plan.workload.requests(count: plan.warmup, seed: plan.seed ^ 0x77A2)
            let concurrency = plan.loads.compactMap(\.concurrency).max() ?? 8
            let load = LoadPlan(
                templates: templates[arm], requests: requests, offsets: nil, concurrency: min(concurrency, plan.warmup),
                silenceLimit: plan.silenceLimit)
            let answers = try perform(load, arm: arm).requests
            if let failed = answers.first(where: { !$0.succeeded }), !answers.contains(where: \.succeeded) {
                throw SupervisionError(
                    .failure,
                    "\(contestants[arm].name) answers no request of the warm-up: "
                        + (failed.status == 0 || failed.status == 200 ? "" : "HTTP \(failed.status) ")
                        + (failed.errorDetail ?? failed.error?.rawValue ?? ""))
            }
        }
    }

    /// Load that belongs to no block.
    private func perform(_ load: LoadPlan, arm: Int) throws -> BlockOfAnswers {
        let result = try interruption.result(
            of: load, for: contestants[arm].target, from: generator, tick: progress.advance(to:))
        return BlockOfAnswers(result, arm: arm, block: 0, keepsText: true)
    }

    // MARK: - A block

    @discardableResult
    private func block(_ blank: BlockRecord) throws -> BlockRecord {
        var record = blank
        let contestant = contestants[record.arm]
        let place = plan.loads.count > 1 ? "\(plan.loads[record.load].title), " : ""
        progress.work(
            on: "\(place)\(record.purpose == .noiseFloor ? "A/A " : "")round \(record.round + 1): \(contestant.name)")
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
        let calls = try plan.countsSystemCalls ? SystemCallCounter(of: before.frontend.pids) : nil

        let result = try interruption.result(of: prepared, tick: progress.advance(to:))

        let systemCalls = calls?.count
        let after = Accounts(contestant, all: contestants)
        let answers = BlockOfAnswers(
            result, arm: record.arm, block: run.blocks.count, keepsText: plan.keepsText,
            latenessLimit: plan.rules.latenessLimit)
        record.start = answers.start
        record.end = answers.end
        record.lateness = answers.lateness
        record.frontend = after.frontend.usage(since: before.frontend)
        record.frontend.systemCalls = systemCalls
        record.engine = after.engine.usage(since: before.engine)
        record.client = after.client.usage(since: before.client)
        record.noise = after.machine.noise(
            since: before.machine, ours: Double(after.everything - before.everything) * 1e-9)
        record.dropped = dropReason(record)
        run.requests += try withStamps(answers.requests, contestant)
        record.traffic = contestant.stamps.map(\.traffic)
        run.blocks.append(record)
        progress.step()
        return record
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
        everything = ProcessTree(of: [getpid()] + Set(all.compactMap(\.servicePid))).cpu
    }
}

extension LoadPoint {
    /// Whether there is a schedule that the client can be late for.
    var isOpenLoop: Bool { concurrency == nil }
}
