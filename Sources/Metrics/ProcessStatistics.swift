import Glibc

/// What `/proc` says about this process; zeros where it cannot be read.
struct ProcessStatistics {
    var virtualBytes = 0.0
    var residentBytes = 0.0
    var cpuSeconds = 0.0
    var openDescriptors = 0
    var maxDescriptors = 0

    static func read() -> ProcessStatistics {
        var result = ProcessStatistics()
        let page = Double(sysconf(Int32(_SC_PAGESIZE)))
        let fields = contents(of: "/proc/self/statm").split(separator: " ")
        if fields.count >= 2 {
            result.virtualBytes = (Double(fields[0]) ?? 0) * page
            result.residentBytes = (Double(fields[1]) ?? 0) * page
        }
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            for time in [usage.ru_utime, usage.ru_stime] {
                result.cpuSeconds += Double(time.tv_sec) + Double(time.tv_usec) / 1e6
            }
        }
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            result.maxDescriptors = Int(clamping: limit.rlim_cur)
        }
        if let directory = opendir("/proc/self/fd") {
            while let entry = readdir(directory) {
                if entry.pointee.d_name.0 != UInt8(ascii: ".") { result.openDescriptors += 1 }
            }
            closedir(directory)
            // The one that was opened for counting.
            result.openDescriptors -= 1
        }
        return result
    }

    private static func contents(of path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 512)
        let count = Glibc.read(descriptor, &buffer, buffer.count)
        return count > 0 ? String(decoding: buffer[..<count], as: UTF8.self) : ""
    }
}
