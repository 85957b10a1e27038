import CProcessShims
import Glibc

/// Nothing we start survives us: what every child carries and who cleans up when this process is killed.
///
/// Layers: the parent-death signal (direct children), the death pipe (children that watch it), and the reaper, a forked
/// process that kills whatever carries our run id in its environment, wherever it was re-parented to, and removes the
/// runtime directory.
package final class OrphanGuard {
    /// Environment variable that marks every descendant of one supervisor.
    package static let runIdentifierVariable = "VLLM_ENGINE_RUN_ID"
    /// Environment variable through which our frontend learns the number of its death descriptor.
    package static let deathDescriptorVariable = "VLLM_ENGINE_DEATH_FD"

    package let runIdentifier: String
    /// The end that children watch: end of file = the supervisor is gone.
    package let deathPipe: FileDescriptor
    private let lifeline: FileDescriptor
    private let directory: String
    private var reaper: SubprocessWrapper?

    /// Forks the reaper; call it before the directory is created and before any child is started.
    package init(directory: String) throws {
        self.directory = directory
        let pid = getpid()
        runIdentifier = "\(pid)-\(ProcessInfo.startTime(of: pid) ?? 0)-\(UInt32.random(in: 0 ... .max))"
        (deathPipe, lifeline) = try FileDescriptor.pipe()
        try startReaper()
    }

    private var marker: String { "\(Self.runIdentifierVariable)=\(runIdentifier)" }

    /// Pid of the cleaning process.
    package var reaperPid: pid_t? { reaper?.pid }

    private func startReaper() throws {
        var spawned = cps_spawned()
        let error = cps_fork_reaper(deathPipe.rawValue, marker, directory, &spawned)
        guard error == 0 else {
            throw SupervisionError(.failure, "cannot start the reaper process: \(describeErrno(error))")
        }
        reaper = SubprocessWrapper(name: "Reaper", pid: spawned.pid, owningPidfd: spawned.pidfd)
    }

    /// Starts a new reaper if somebody killed it. Returns whether that was necessary.
    package func ensureReaper() throws -> Bool {
        guard let reaper, !reaper.isAlive else { return false }
        try startReaper()
        return true
    }

    /// What a child's environment needs so that it can be found.
    package func mark(_ environment: inout [String: String]) {
        environment[Self.runIdentifierVariable] = runIdentifier
    }

    /// Kills every descendant that is still there, wherever it hides. Returns how many were found.
    @discardableResult
    package func killSurvivors() -> Int {
        var total = 0
        for _ in 0..<50 {
            let killed = Int(cps_kill_marked(marker, reaper?.pid ?? 0))
            if killed == 0 { break }
            total += killed
            usleep(10_000)
        }
        return total
    }

    /// What the kernel does when this process is killed: the reaper and the children see the end of the pipe.
    package func dropLifeline() { lifeline.close() }

    /// The orderly end: nothing is left, so the reaper has nothing to do. Idempotent.
    package func finish() {
        killSurvivors()
        _ = cps_remove_directory(directory)
        reaper?.kill()
        reaper?.join(timeout: .seconds(2))
        reaper?.close()
        reaper = nil
        lifeline.close()
        deathPipe.close()
    }
}
