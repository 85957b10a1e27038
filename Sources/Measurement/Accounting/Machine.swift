import Glibc
import Supervision

/// CPU time of the whole machine since it started, in clock ticks.
struct MachineSample: Sendable {
    private let total: Double
    private let busy: Double
    private let stolen: Double
    private let time = monotonicNanoseconds()

    init() {
        let fields = (ProcessInfo.readFile("/proc/stat") ?? "").prefix { $0 != "\n" }.split(separator: " ").dropFirst()
            .prefix(8).compactMap { Double($0) }
        let tick = Double(max(sysconf(Int32(_SC_CLK_TCK)), 1))
        // user nice system idle iowait irq softirq steal
        func sum(_ places: [Int]) -> Double { places.reduce(0) { $0 + (fields.count > $1 ? fields[$1] : 0) } / tick }
        busy = sum([0, 1, 2, 5, 6])
        stolen = sum([7])
        total = sum([0, 1, 2, 3, 4, 5, 6, 7])
    }

    /// - Parameter ours: CPU seconds of everything that belongs to the measurement.
    func noise(since earlier: MachineSample, ours: Double) -> MachineNoise {
        let span = max(total - earlier.total, 1e-3)
        return MachineNoise(
            steal: max(0, stolen - earlier.stolen) / span, otherCPU: max(0, busy - earlier.busy - ours) / span,
            loadAverage: Self.loadAverage, megahertz: Self.megahertz)
    }

    private static var loadAverage: Double {
        (ProcessInfo.readFile("/proc/loadavg") ?? "").split(separator: " ").first.flatMap { Double($0) } ?? 0
    }

    private static var megahertz: Double? {
        let values = cpuinfo("cpu MHz").compactMap { Double($0) }
        return values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
    }

    fileprivate static func cpuinfo(_ name: String) -> [String] {
        (ProcessInfo.readFile("/proc/cpuinfo") ?? "").split(separator: "\n").compactMap { line in
            guard line.hasPrefix(name), let colon = line.firstIndex(of: ":") else { return nil }
            return String(line[line.index(after: colon)...].drop { $0 == " " })
        }
    }
}

extension MachineDescription {
    /// This machine.
    static var current: MachineDescription {
        var name = utsname()
        uname(&name)
        let release = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let pages = sysconf(Int32(_SC_PHYS_PAGES))
        return MachineDescription(
            cpuModel: MachineSample.cpuinfo("model name").first ?? "unknown",
            cpus: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
            kernel: release, memoryBytes: pages * sysconf(Int32(_SC_PAGESIZE)))
    }
}
