import Glibc
import Supervision

/// Running totals of some processes and all their descendants, from /proc.
///
/// CPU times are exact and include threads that have ended; a whole process that ends between two samples takes its counts
/// with it, which shows as a smaller difference, never as a negative one.
struct ProcessTree: Sendable {
    struct Counters: Sendable {
        var cpu: Nanoseconds = 0
        var user: Nanoseconds = 0
        var system: Nanoseconds = 0
        var voluntarySwitches = 0
        var involuntarySwitches = 0
    }

    let pids: [pid_t]
    private let counters: [pid_t: Counters]

    /// - Parameter includesDescendants: false for this process, whose children are the arms.
    init(of roots: [pid_t], includesDescendants: Bool = true) {
        pids = includesDescendants ? roots.flatMap { [$0] + ProcessInfo.descendants(of: $0) } : roots
        var counters: [pid_t: Counters] = [:]
        for pid in pids { counters[pid] = Self.read(pid) }
        self.counters = counters
    }

    /// So that the highest resident size is that of the block. Not every kernel allows it.
    func resetPeaks() {
        for pid in pids {
            let descriptor = open("/proc/\(pid)/clear_refs", O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            _ = write(descriptor, "5", 1)
            close(descriptor)
        }
    }

    var cpu: Nanoseconds { counters.values.reduce(0) { $0 + $1.cpu } }

    /// What was used since the earlier sample, with the sizes of now.
    func usage(since earlier: ProcessTree) -> ProcessTreeUsage {
        var usage = ProcessTreeUsage()
        for (pid, now) in counters {
            let before = earlier.counters[pid] ?? Counters()
            usage.cpu += now.cpu - before.cpu
            usage.user += now.user - before.user
            usage.system += now.system - before.system
            usage.voluntarySwitches += max(0, now.voluntarySwitches - before.voluntarySwitches)
            usage.involuntarySwitches += max(0, now.involuntarySwitches - before.involuntarySwitches)
            let sizes = Self.sizes(pid)
            usage.residentBytes += sizes.resident
            usage.peakResidentBytes += sizes.peak
            usage.threads += sizes.threads
            usage.processes += 1
            if let proportional = Self.proportional(pid) {
                usage.proportionalBytes = (usage.proportionalBytes ?? 0) + proportional
            }
        }
        return usage
    }

    // MARK: - /proc

    private static func read(_ pid: pid_t) -> Counters? {
        var counters = Counters()
        // The kernel's encoding of a process's CPU clock: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
        var time = timespec()
        guard clock_gettime(clockid_t(bitPattern: UInt32(bitPattern: ~pid) << 3 | 2), &time) == 0,
            let fields = ProcessInfo.statFields(of: pid)
        else { return nil }
        counters.cpu = Nanoseconds(time.tv_sec) * 1_000_000_000 + Nanoseconds(time.tv_nsec)
        if fields.count > 12 {
            let tick = 1_000_000_000 / Nanoseconds(max(sysconf(Int32(_SC_CLK_TCK)), 1))
            counters.user = (Nanoseconds(fields[11]) ?? 0) * tick
            counters.system = (Nanoseconds(fields[12]) ?? 0) * tick
        }
        for thread in ProcessInfo.directoryEntries("/proc/\(pid)/task") {
            let status = numbers("/proc/\(pid)/task/\(thread)/status")
            counters.voluntarySwitches += status["voluntary_ctxt_switches"] ?? 0
            counters.involuntarySwitches += status["nonvoluntary_ctxt_switches"] ?? 0
        }
        return counters
    }

    private static func sizes(_ pid: pid_t) -> (resident: Int, peak: Int, threads: Int) {
        let status = numbers("/proc/\(pid)/status")
        return ((status["VmRSS"] ?? 0) << 10, (status["VmHWM"] ?? 0) << 10, status["Threads"] ?? 0)
    }

    private static func proportional(_ pid: pid_t) -> Int? {
        numbers("/proc/\(pid)/smaps_rollup")["Pss"].map { $0 << 10 }
    }

    /// Lines of `name: number [kB]`.
    private static func numbers(_ path: String) -> [Substring: Int] {
        guard let text = ProcessInfo.readFile(path) else { return [:] }
        var result: [Substring: Int] = [:]
        for line in text.split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }.prefix { $0.isNumber }
            if let number = Int(value) { result[line[..<colon]] = number }
        }
        return result
    }

    /// Resident and proportional size of the tree now.
    var size: (resident: Int, proportional: Int?) {
        var resident = 0
        var proportional: Int?
        for pid in pids {
            resident += Self.sizes(pid).resident
            if let share = Self.proportional(pid) { proportional = (proportional ?? 0) + share }
        }
        return (resident, proportional)
    }
}
