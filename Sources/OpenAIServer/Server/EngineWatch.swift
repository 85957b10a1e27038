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
/// without a heartbeat are judged by what they send and by the CPU time of the processes beside this one.
package final class EngineWatch: Sendable {
    private struct Engine {
        var turns = -1
        var cpu = 0.0
        var progressAt: Double
    }

    private struct State {
        /// When the heartbeat was sent that has not been answered yet.
        var pendingSince: Double?
        var engines: [Engine] = []
        /// For engines without a heartbeat.
        var messages: UInt64 = 0
        var cpu: Double?
        var progressAt: Double
        var lastTick: Double
        var problem: String?
    }

    private let connection: any EngineConnection
    /// Seconds without a sign of life after which an engine counts as hung.
    private let timeout: Double
    private let logger: Logger
    private let now: @Sendable () -> Double
    private let engineCPU: @Sendable () -> Double?
    private let state: Mutex<State>
    private let hasHung = Atomic(false)

    /// - Parameter now: monotonic seconds.
    /// - Parameter engineCPU: CPU seconds of the processes that may be the engine; nil = not known.
    package init(
        _ connection: any EngineConnection, timeout: Double, logger: Logger,
        now: @escaping @Sendable () -> Double = { MonotonicClock.now() },
        engineCPU: @escaping @Sendable () -> Double? = SiblingProcesses.processorSeconds
    ) {
        self.connection = connection
        self.timeout = timeout
        self.logger = logger
        self.now = now
        self.engineCPU = engineCPU
        state = Mutex(State(progressAt: now(), lastTick: now()))
    }

    /// Why the engine cannot be expected to answer; nil = it can.
    package var problem: String? { state.withLock { $0.problem } }

    /// Seconds since an engine last showed that it gets on; the largest over all engines.
    package var secondsSinceProgress: Double {
        let now = now()
        return state.withLock { max(0, now - Self.progress($0)) }
    }

    private static func progress(_ state: State) -> Double {
        let engines = state.engines.map(\.progressAt).min() ?? state.progressAt
        return min(engines, state.pendingSince ?? .infinity)
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
        // We may have been stopped ourselves: what was due then says nothing about the engine.
        let wasAsleep = state.withLock { state in
            defer { state.lastTick = now }
            return now - state.lastTick > timeout / 2
        }
        if wasAsleep { forgive(now) }
        if information.answersHeartbeat {
            let isFree = state.withLock { state in
                guard state.pendingSince == nil else { return false }
                state.pendingSince = now
                return true
            }
            if isFree {
                connection.callUtility("heartbeat", arguments: [0x90]) { [weak self] in self?.answered($0) }
            }
            judge(now)
        } else {
            judgeByOutputs(now)
        }
    }

    /// No engine to judge, or a new one.
    private func reset(_ now: Double) {
        state.withLock { state in
            state = State(progressAt: now, lastTick: now)
        }
    }

    private func forgive(_ now: Double) {
        state.withLock { state in
            if state.pendingSince != nil { state.pendingSince = now }
            for index in state.engines.indices { state.engines[index].progressAt = now }
            state.progressAt = now
        }
    }

    private func answered(_ result: Result<[UtilityOutput], EngineFailure>) {
        let now = now()
        state.withLock { state in
            state.pendingSince = nil
            guard case .success(let outputs) = result else {
                // One of them has just died: that is for others to notice.
                for index in state.engines.indices { state.engines[index].progressAt = now }
                return
            }
            if state.engines.count != outputs.count {
                state.engines = Array(repeating: Engine(progressAt: now), count: outputs.count)
            }
            for (index, output) in outputs.enumerated() {
                guard let bytes = output.result, let beat = Heartbeat(decoding: bytes) else { continue }
                let elapsed = now - state.engines[index].progressAt
                // A hung process still uses some microseconds for answering.
                let computes = beat.cpuSeconds - state.engines[index].cpu > 0.02 * elapsed
                if beat.busySeconds == 0 || beat.turns != state.engines[index].turns || computes {
                    state.engines[index] = Engine(turns: beat.turns, cpu: beat.cpuSeconds, progressAt: now)
                }
            }
        }
        judge(now)
    }

    private func judge(_ now: Double) {
        let (pendingSince, stuckSince) = state.withLock { ($0.pendingSince, $0.engines.map(\.progressAt).min()) }
        if let pendingSince, now - pendingSince > timeout {
            note("the engine has not answered for \(Self.rounded(now - pendingSince)) s")
        } else if let stuckSince, pendingSince == nil, now - stuckSince > timeout {
            note("the engine stands still in one step for \(Self.rounded(now - stuckSince)) s")
        } else if pendingSince == nil || problem == nil {
            note(nil)
        }
    }

    private func judgeByOutputs(_ now: Double) {
        let messages = connection.messagesReceived
        let isWaited = connection.inFlight > 0
        let silentSince = state.withLock { state in
            if messages != state.messages || !isWaited {
                state.messages = messages
                state.cpu = nil
                state.progressAt = now
            }
            return state.progressAt
        }
        guard now - silentSince > timeout / 2 else { return note(nil) }
        guard let cpu = engineCPU() else { return note(nil) }
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
                state.progressAt = now
            }
            note(nil)
        } else if now - silentSince > timeout {
            note("the engine sends nothing and does not compute for \(Self.rounded(now - silentSince)) s")
        }
    }

    private func note(_ problem: String?) {
        let before = state.withLock { state in
            defer { state.problem = problem }
            return state.problem
        }
        if problem != nil { hasHung.store(true, ordering: .relaxed) }
        if before == nil, let problem { logger.error("engine hangs: \(problem); not ready any more") }
        if before != nil, problem == nil { logger.info("the engine gets on again") }
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
    /// CPU seconds of all of them together; nil if the parent is gone.
    package static let processorSeconds: @Sendable () -> Double? = {
        let parent = getppid()
        guard parent > 1 else { return nil }
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
