import CProcessShims
import Glibc

/// How to start a child.
package struct SpawnRequest {
    /// Shown in logs and errors, for example `EngineCore` or `SwiftFrontend`.
    package var name: String
    /// Absolute path; PATH is not searched.
    package var executable: String
    /// Shown by `ps` in place of the program's path, such as `VLLM::EngineCore`: argv[0]. Not for programs that find
    /// themselves or their interpreter by it.
    package var title: String?
    /// Without argv[0].
    package var arguments: [String]
    /// Complete environment of the child.
    package var environment: [String: String]
    /// Working directory; nil keeps ours.
    package var directory: String?
    /// Standard streams; nil means /dev/null.
    package var standardOutput: Int32?
    package var standardError: Int32?
    /// Further descriptors by the number they get in the child (3 and up).
    package var descriptors: [(source: Int32, target: Int32)]

    package init(
        name: String, executable: String, arguments: [String],
        environment: [String: String] = ProcessInfo.environment(),
        directory: String? = nil, standardOutput: Int32? = nil, standardError: Int32? = nil,
        descriptors: [(source: Int32, target: Int32)] = []
    ) {
        self.name = name
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.directory = directory
        self.standardOutput = standardOutput
        self.standardError = standardError
        self.descriptors = descriptors
    }

    /// Gives the child a descriptor under the next free number and returns that number.
    package mutating func inherit(_ source: Int32) -> Int32 {
        let target = (descriptors.map(\.target).max() ?? 2) + 1
        descriptors.append((source, target))
        return target
    }
}

/// One child process with the interface of Python's `BaseProcess`, as in vLLM's `_SubprocessWrapper`.
///
/// The child leads its own process group, dies with us (parent-death signal), and has exactly the descriptors of its
/// `SpawnRequest`. Confined to one thread.
package final class SubprocessWrapper {
    package let name: String
    package let pid: pid_t
    private let pidfd: FileDescriptor
    private var recordedExitCode: Int32?

    /// Starts the child; returns after its exec succeeded.
    package init(_ request: SpawnRequest) throws {
        let null = FileDescriptor(owning: open("/dev/null", O_RDWR | O_CLOEXEC))
        guard null.isOpen else {
            throw SupervisionError(.failure, "cannot open /dev/null: \(describeErrno(errno))")
        }
        var table = [
            cps_descriptor(source: null.rawValue, target: 0),
            cps_descriptor(source: request.standardOutput ?? null.rawValue, target: 1),
            cps_descriptor(source: request.standardError ?? null.rawValue, target: 2),
        ]
        table += request.descriptors.map { cps_descriptor(source: $0.source, target: $0.target) }

        var spawned = cps_spawned()
        var stage = CPS_STAGE_NONE
        let environment = request.environment.map { "\($0.key)=\($0.value)" }.sorted()
        let error = withCStrings([request.title ?? request.executable] + request.arguments) { argv in
            withCStrings(environment) { envp in
                request.executable.withCString { path in
                    withOptionalCString(request.directory) { directory in
                        table.withUnsafeBufferPointer { descriptors in
                            var options = cps_spawn_options(
                                path: path, argv: argv, envp: envp, directory: directory,
                                descriptors: descriptors.baseAddress, descriptor_count: descriptors.count)
                            return cps_spawn(&options, &spawned, &stage)
                        }
                    }
                }
            }
        }
        guard error == 0 else {
            throw SupervisionError(
                .startupFailure,
                "cannot start \(request.name): \(Self.describe(stage, request)): \(describeErrno(error))")
        }
        name = request.name
        pid = spawned.pid
        pidfd = FileDescriptor(owning: spawned.pidfd)
    }

    /// Adopts a child of this process that was started elsewhere.
    init(name: String, pid: pid_t, owningPidfd: Int32) {
        self.name = name
        self.pid = pid
        pidfd = FileDescriptor(owning: owningPidfd)
    }

    private static func describe(_ stage: cps_stage, _ request: SpawnRequest) -> String {
        switch stage {
        case CPS_STAGE_EXEC: request.executable
        case CPS_STAGE_DIRECTORY: "working directory \(request.directory ?? "")"
        case CPS_STAGE_DESCRIPTORS: "descriptor table"
        case CPS_STAGE_PARENT_GONE: "parent is gone"
        default: "fork"
        }
    }

    deinit { close() }

    /// Readable once the child has ended; what `poll` waits for. -1 after `close()`.
    package var sentinel: Int32 { pidfd.rawValue }

    /// Nil while it runs; the exit status, or the negated signal number, as in Python.
    package var exitCode: Int32? {
        if recordedExitCode == nil { reap() }
        return recordedExitCode
    }

    package var isAlive: Bool { exitCode == nil }

    private func reap() {
        guard pidfd.isOpen, sentinelIsReadable(timeout: .zero) else { return }
        // The child is a zombie and so keeps the id of its group: what is left of the group ends with its leader.
        Glibc.kill(-pid, SIGKILL)
        var exit = cps_exit()
        let error = cps_pidfd_reap(pidfd.rawValue, &exit)
        guard error == 0 else {
            // Somebody else reaped it; the status is lost.
            if error == ECHILD { recordedExitCode = 255 }
            return
        }
        switch exit.kind {
        case CPS_EXITED: recordedExitCode = exit.code
        case CPS_SIGNALED: recordedExitCode = -exit.code
        default: break
        }
    }

    private func sentinelIsReadable(timeout: Duration) -> Bool {
        var entry = pollfd(fd: pidfd.rawValue, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, timeout.pollMilliseconds) > 0
    }

    /// Waits for the end of the child, nil = for ever. Returns whether it has ended.
    @discardableResult
    package func join(timeout: Duration? = nil) -> Bool {
        let deadline = timeout.map { ContinuousClock.now + $0 }
        while isAlive {
            guard pidfd.isOpen else { return false }
            let remaining = deadline.map { $0 - ContinuousClock.now }
            if let remaining, remaining <= .zero { return false }
            _ = sentinelIsReadable(timeout: remaining ?? .seconds(3600))
        }
        return true
    }

    package func send(signal: Int32) {
        guard pidfd.isOpen, recordedExitCode == nil else { return }
        _ = cps_pidfd_signal(pidfd.rawValue, signal)
    }

    /// SIGTERM to the process itself; its own children are its own business.
    package func terminate() { send(signal: SIGTERM) }

    /// SIGKILL to the process itself.
    package func kill() { send(signal: SIGKILL) }

    /// SIGKILL to all descendants, then to the process and its group.
    package func killTree() {
        guard pidfd.isOpen, recordedExitCode == nil else { return }
        for descendant in ProcessInfo.descendants(of: pid) { Glibc.kill(descendant, SIGKILL) }
        Glibc.kill(-pid, SIGKILL)
        kill()
    }

    /// Releases the sentinel. A child that is still running is killed first: nobody could reap it afterwards.
    package func close() {
        guard pidfd.isOpen else { return }
        if isAlive {
            killTree()
            join(timeout: .seconds(2))
        }
        pidfd.close()
    }

    /// `exit status 3` or `signal 9 (SIGKILL)`.
    package var exitDescription: String {
        guard let exitCode else { return "still running" }
        return exitCode < 0 ? "signal \(-exitCode) (\(signalName(-exitCode)))" : "exit status \(exitCode)"
    }
}

/// The upper-case name of a signal.
package func signalName(_ signal: Int32) -> String {
    guard let name = cps_signal_abbreviation(signal) else { return "SIG\(signal)" }
    return "SIG" + String(cString: name)
}

extension Duration {
    /// For `poll`: rounded up, so that a positive duration never becomes a busy wait.
    var pollMilliseconds: Int32 {
        if self <= .zero { return 0 }
        let (seconds, attoseconds) = components
        if seconds >= 2_000_000 { return 2_000_000_000 }
        return Int32(seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }

    package var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}

/// Calls `body` with a null-terminated array of C strings.
private func withCStrings<Result>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
    defer { for pointer in pointers { free(pointer) } }
    pointers.append(nil)
    return pointers.withUnsafeBufferPointer { buffer in
        guard let base = buffer.baseAddress else { fatalError("an array with a terminator has an address") }
        return body(base)
    }
}

private func withOptionalCString<Result>(_ string: String?, _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
    guard let string else { return body(nil) }
    return string.withCString { body($0) }
}
