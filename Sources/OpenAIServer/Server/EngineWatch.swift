import EngineClient
import EngineProtocol
import Glibc
import Logging
import MessagePack
import Metrics
import NIOCore
import Synchronization

/// Notices engines that are alive and do nothing (stopped, deadlocked), which no exit tells.
///
/// Our engine answers a heartbeat from its I/O thread, also while a step takes a minute: silence means that the whole
/// process stands still. A busy loop that stays at one turn without using the processor stands still, too. Engines
/// without a heartbeat are judged together: by what they send, and when they are silent by whether they answer a question
/// (paused ones do) and by the CPU time of the processes beside this one.
///
/// New requests go to the engines that do not hang, and are refused when all do. Those that wait for a hung engine go on
/// waiting, because it may go on, unless the operator has set a deadline.
package final class EngineWatch: Sendable {
    private struct Engine {
        let rank: Int
        /// When the heartbeat was sent that has not been answered yet.
        var pendingSince: Double?
        var turns = -1
        var cpu = 0.0
        var progressAt: Double
        var problem: String?

        /// When it last showed that it gets on.
        var lastSign: Double { min(progressAt, pendingSince ?? .infinity) }
    }

    private struct State {
        /// Empty while there is no engine to judge.
        var engines: [Engine] = []
        /// For engines without a heartbeat.
        var messages: UInt64 = 0
        var isAsked = false
        var cpu: Double?
        var progressAt: Double
        var lastTick: Double

        var lastSign: Double { engines.map(\.lastSign).min() ?? progressAt }
        var hungRanks: Set<Int> { Set(engines.filter { $0.problem != nil }.map(\.rank)) }
    }

    private let connection: any EngineConnection
    /// Seconds without a sign of life after which an engine counts as hung.
    private let timeout: Double
    /// Seconds without a sign of life after which the requests that wait for a hung engine fail; nil = never.
    private let requestDeadline: Double?
    private let logger: Logger
    private let now: @Sendable () -> Double
    private let engineCPU: @Sendable () -> Double?
    private let state: Mutex<State>
    private let hasHung = Atomic(false)

    /// - Parameter now: monotonic seconds.
    /// - Parameter engineCPU: CPU seconds of the processes that may be the engine; nil = not known.
    package init(
        _ connection: any EngineConnection, timeout: Double, requestDeadline: Double? = nil, logger: Logger,
        now: @escaping @Sendable () -> Double = { MonotonicClock.now() },
        engineCPU: @escaping @Sendable () -> Double? = SiblingProcesses.processorSeconds
    ) {
        self.connection = connection
        self.timeout = timeout
        self.requestDeadline = requestDeadline
        self.logger = logger
        self.now = now
        self.engineCPU = engineCPU
        state = Mutex(State(progressAt: now(), lastTick: now()))
    }

    /// Why one of the engines cannot be expected to answer; nil = all can.
    package var problem: String? { state.withLock { $0.engines.lazy.compactMap(\.problem).first } }

    /// Why a new request cannot be expected to be answered: all engines hang, or the one of `rank`.
    package func refusal(rank: Int? = nil) -> String? {
        guard hasHung.load(ordering: .relaxed) else { return nil }
        return state.withLock { state in
            if let rank { return state.engines.first { $0.rank == rank }?.problem }
            return state.engines.allSatisfy { $0.problem != nil } ? state.engines.first?.problem : nil
        }
    }

    /// Seconds since an engine last showed that it gets on; the largest over all engines.
    package var secondsSinceProgress: Double {
        let now = now()
        return state.withLock { max(0, now - $0.lastSign) }
    }

    /// For the metrics page; nil until an engine has hung for the first time.
    package var health: EngineHealth? {
        guard hasHung.load(ordering: .relaxed) else { return nil }
        return EngineHealth(isHung: problem != nil, secondsSinceProgress: secondsSinceProgress)
    }

    /// Ticks four times per timeout until the loop ends.
    package func start(on loop: any EventLoop) {
        let interval = TimeAmount.milliseconds(Int64(max(0.05, min(1, timeout / 4)) * 1000))
        loop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { [self] _ in tick() }
    }

    package func tick() {
        let now = now()
        guard case .ready(let information) = connection.state else { return reset(now) }
        state.withLock { state in
            if state.engines.map(\.rank) != Array(information.ranks) {
                state.engines = information.ranks.map { Engine(rank: $0, progressAt: now) }
            }
            // We may have been stopped ourselves: what was due then says nothing about the engine.
            if now - state.lastTick > timeout / 2 { Self.forgive(&state, now) }
            state.lastTick = now
        }
        if information.answersHeartbeat {
            askForHeartbeats(now)
            for rank in information.ranks { judge(rank, now) }
        } else {
            judgeByOutputs(now)
        }
        endWaitingRequests(now)
    }

    /// No engine to judge, or new ones.
    private func reset(_ now: Double) {
        let before = state.withLock { state in
            defer { state = State(progressAt: now, lastTick: now) }
            return state.hungRanks
        }
        if !before.isEmpty { connection.markHung([]) }
    }

    private static func forgive(_ state: inout State, _ now: Double) {
        for index in state.engines.indices {
            if state.engines[index].pendingSince != nil { state.engines[index].pendingSince = now }
            state.engines[index].progressAt = now
        }
        state.progressAt = now
    }

    private func change(_ rank: Int, _ body: (inout Engine) -> Void) {
        state.withLock { state in
            guard let index = state.engines.firstIndex(where: { $0.rank == rank }) else { return }
            body(&state.engines[index])
        }
    }

    private func askForHeartbeats(_ now: Double) {
        let free = state.withLock { state in
            let free = state.engines.indices.filter { state.engines[$0].pendingSince == nil }
            for index in free { state.engines[index].pendingSince = now }
            return free.map { state.engines[$0].rank }
        }
        for rank in free {
            connection.callUtility("heartbeat", arguments: [0x90], rank: rank) { [weak self] in
                self?.answered(rank, $0)
            }
        }
    }

    private func answered(_ rank: Int, _ result: Result<[UtilityOutput], EngineFailure>) {
        let now = now()
        change(rank) { engine in
            engine.pendingSince = nil
            guard case .success(let outputs) = result else {
                // It has just died: that is for others to notice.
                engine.progressAt = now
                return
            }
            guard let bytes = outputs.first?.result, let beat = Heartbeat(decoding: bytes) else { return }
            // A hung process still uses some microseconds for answering.
            let computes = beat.cpuSeconds - engine.cpu > 0.02 * (now - engine.progressAt)
            if beat.busySeconds == 0 || beat.turns != engine.turns || computes {
                (engine.turns, engine.cpu, engine.progressAt) = (beat.turns, beat.cpuSeconds, now)
            }
        }
        judge(rank, now)
    }

    private func judge(_ rank: Int, _ now: Double) {
        guard let engine = state.withLock({ $0.engines.first { $0.rank == rank } }) else { return }
        if let pendingSince = engine.pendingSince, now - pendingSince > timeout {
            note("has not answered for \(Self.rounded(now - pendingSince)) s", [rank])
        } else if engine.pendingSince == nil, now - engine.progressAt > timeout {
            note("stands still in one step for \(Self.rounded(now - engine.progressAt)) s", [rank])
        } else if engine.pendingSince == nil {
            note(nil, [rank])
        }
    }

    private func judgeByOutputs(_ now: Double) {
        let messages = connection.messagesReceived
        let isWaited = connection.inFlight > 0
        let (silentSince, ranks) = state.withLock { state in
            if messages != state.messages || !isWaited {
                state.messages = messages
                state.cpu = nil
                Self.forgive(&state, now)
            }
            return (state.progressAt, state.engines.map(\.rank))
        }
        guard now - silentSince > timeout / 2 else { return note(nil, ranks) }
        ask()
        guard let cpu = engineCPU() else { return note(nil, ranks) }
        let computed = state.withLock { state -> Double? in
            guard let before = state.cpu else {
                state.cpu = cpu
                return nil
            }
            return cpu - before
        }
        guard let computed else { return }
        if computed > 0.02 * (now - silentSince) {
            state.withLock { state in
                state.cpu = nil
                Self.forgive(&state, now)
            }
            note(nil, ranks)
        } else if now - silentSince > timeout {
            note("sends nothing and does not compute for \(Self.rounded(now - silentSince)) s", ranks)
        }
    }

    /// Between two steps an engine answers calls, also while it is paused or asleep with requests waiting. The answer, even
    /// that it does not know the call, counts as a message.
    private func ask() {
        let isFree = state.withLock { state in
            defer { state.isAsked = true }
            return !state.isAsked
        }
        guard isFree else { return }
        connection.callUtility("is_scheduler_paused", arguments: [0x90]) { [weak self] _ in
            self?.state.withLock { $0.isAsked = false }
        }
    }

    /// Says once what has become of these engines.
    private func note(_ problem: String?, _ ranks: [Int]) {
        let (before, after, text) = state.withLock { state in
            let before = state.hungRanks
            let name = state.engines.count > ranks.count ? "engine \(ranks[0])" : "the engine"
            let text = problem.map { "\(name) \($0)" }
            for index in state.engines.indices where ranks.contains(state.engines[index].rank) {
                state.engines[index].problem = text
            }
            return (before, state.hungRanks, text ?? name)
        }
        guard before != after else { return }
        if problem != nil {
            hasHung.store(true, ordering: .relaxed)
            logger.error("engine hangs: \(text); not ready any more")
        } else {
            logger.info("\(text) gets on again")
        }
        connection.markHung(after)
    }

    /// In every tick after the deadline: a request may have been on its way when the engine was found to hang.
    private func endWaitingRequests(_ now: Double) {
        guard let requestDeadline else { return }
        let late = state.withLock { state in
            state.engines.filter { $0.problem != nil && now - $0.lastSign > requestDeadline }
        }
        for engine in late {
            connection.failRequests(rank: engine.rank, .engineHung(reason: engine.problem ?? ""))
        }
    }

    private static func rounded(_ seconds: Double) -> Int { Int(min(seconds, 1e9).rounded()) }
}

/// What our engine says about itself: `[turns, seconds in the present turn, CPU seconds]`.
private struct Heartbeat {
    let turns: Int
    let busySeconds: Double
    let cpuSeconds: Double

    init?(decoding bytes: [UInt8]) {
        guard case .array(let values)? = try? MessagePackValue(decoding: bytes), values.count >= 3,
            case .int(let turns) = values[0], case .double(let busy) = values[1], case .double(let cpu) = values[2]
        else { return nil }
        (self.turns, busySeconds, cpuSeconds) = (turns, busy, cpu)
    }
}

/// The processes that our parent has started besides us: under any supervisor the engines are among them.
package enum SiblingProcesses {
    /// The one that has started us; in a container it may well be process 1.
    private static let firstParent = getppid()

    /// CPU seconds of all of them together; nil if the parent is gone, or /proc shows another pid namespace than ours.
    package static let processorSeconds: @Sendable () -> Double? = {
        let parent = firstParent
        guard getppid() == parent, procIsOurs else { return nil }
        var processes: [pid_t: (parent: pid_t, ticks: UInt64)] = [:]
        for pid in numbers(in: "/proc") {
            if let facts = facts(of: pid) { processes[pid] = facts }
        }
        var total: UInt64 = 0
        for (pid, facts) in processes where pid != parent {
            var ancestor = pid
            while ancestor > 1, ancestor != parent, ancestor != getpid() { ancestor = processes[ancestor]?.parent ?? 0 }
            if ancestor == parent { total &+= facts.ticks }
        }
        return Double(total) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    private static let procIsOurs: Bool = {
        var text = [CChar](repeating: 0, count: 16)
        return readlink("/proc/self", &text, text.count - 1) > 0 && atoi(text) == getpid()
    }()

    private static func facts(of pid: pid_t) -> (parent: pid_t, ticks: UInt64)? {
        guard let file = fopen("/proc/\(pid)/stat", "r") else { return nil }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 1024)
        let count = fread(&buffer, 1, buffer.count, file)
        // The name, in parentheses, may hold anything.
        guard count > 0, let end = buffer[..<count].lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = String(decoding: buffer[(end + 1)..<count], as: UTF8.self).split(separator: " ")
        guard fields.count > 12, let parent = pid_t(fields[1]), let user = UInt64(fields[11]),
            let system = UInt64(fields[12])
        else { return nil }
        return (parent, user &+ system)
    }

    private static func numbers(in path: String) -> [pid_t] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var numbers: [pid_t] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let number = pid_t(name) { numbers.append(number) }
        }
        return numbers
    }
}
