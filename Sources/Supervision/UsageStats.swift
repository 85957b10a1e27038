import Glibc
import JSONBytes
import Logging

/// Records of what was served on which machine (vLLM: `usage_lib`), for those who ask for them with
/// `--report-usage-stats`: one line of JSON per start, in a file of the user. Nothing is ever sent.
package struct UsageStats {
    /// Where records go; nil = the user does not want any.
    package let path: String?

    /// - Parameter environment: `VLLM_NO_USAGE_STATS`, `VLLM_DO_NOT_TRACK` and `DO_NOT_TRACK` with the value 1 forbid
    ///   records, as does the file `do_not_track` in vLLM's configuration folder.
    package init(environment: [String: String]) {
        path = Self.folder(environment).flatMap { folder in
            let isForbidden = ["VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK"].contains {
                environment[$0] == "1" || environment[$0]?.lowercased() == "true"
            }
            return isForbidden || access("\(folder)/do_not_track", F_OK) == 0 ? nil : "\(folder)/usage_stats.json"
        }
    }

    /// vLLM's configuration folder.
    private static func folder(_ environment: [String: String]) -> String? {
        if let root = environment["VLLM_CONFIG_ROOT"], !root.isEmpty { return root }
        if let root = environment["XDG_CONFIG_HOME"], !root.isEmpty { return root + "/vllm" }
        return environment["HOME"].map { $0 + "/.config/vllm" }
    }

    /// Appends a record. Its fields carry vLLM's names where vLLM has one; times are in nanoseconds of Unix time.
    package func append(_ fields: [(String, JSONValue)]) throws {
        guard let path, let slash = path.lastIndex(of: "/") else { return }
        try makeFolder(String(path[..<slash]))
        let line = Array((JSONValue.object(JSONObject(fields)).serialized() + "\n").utf8)
        let file = FileDescriptor(owning: open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600))
        guard file.isOpen, retryingInterrupts({ write(file.rawValue, line, line.count) }) == line.count else {
            throw SupervisionError(.failure, "\(path): \(describeErrno(errno))")
        }
    }

    private func makeFolder(_ path: String) throws {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
            throw SupervisionError(.failure, "\(path): \(describeErrno(errno))")
        }
        try makeFolder(String(path[..<slash]))
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw SupervisionError(.failure, "\(path): \(describeErrno(errno))")
        }
    }

    /// What is told about a service and its machine.
    static func record(_ configuration: ServeConfiguration) -> [(String, JSONValue)] {
        var system = utsname()
        uname(&system)
        func text<Field>(_ field: Field) -> String {
            withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let pages = Int(sysconf(Int32(_SC_PHYS_PAGES)))
        let config = ProcessInfo.readFile("\(configuration.model)/config.json").flatMap { try? JSONValue.parse($0) }
        let architecture = config?.objectValue?["architectures"]?.arrayValue?.first?.stringValue
        return [
            ("log_time", .number(now.tv_sec * 1_000_000_000 + now.tv_nsec)),
            ("source", .string(ProcessInfo.environmentVariable("VLLM_USAGE_SOURCE") ?? "production")),
            ("context", .string("OPENAI_API_SERVER")),
            ("model_architecture", .string(architecture ?? (configuration.model == "mock" ? "mock" : "unknown"))),
            ("frontend", .string(configuration.frontend.processName)),
            ("num_cpu", .number(Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))),
            ("total_memory", .number(pages * Int(sysconf(Int32(_SC_PAGESIZE))))),
            ("architecture", .string(text(system.machine))),
            ("platform", .string("\(text(system.sysname))-\(text(system.release))")),
            ("data_parallel_size", .number(configuration.dataParallel.size)),
        ]
    }
}

extension Supervisor {
    /// vLLM: `report_usage_stats`, once the service is ready.
    func reportUsageStats() {
        guard configuration.reportsUsageStats else { return }
        let usage = UsageStats(environment: ProcessInfo.environment())
        guard let path = usage.path else {
            return logger.info("No usage statistics are kept: the environment or a do_not_track file forbids it")
        }
        if ProcessInfo.environmentVariable("VLLM_USAGE_STATS_SERVER") != nil {
            logger.warning("VLLM_USAGE_STATS_SERVER is not used: usage statistics stay in \(path)")
        }
        do { try usage.append(UsageStats.record(configuration)) } catch {
            logger.warning("No usage statistics are kept: \(error)")
        }
    }
}
