import Glibc
import Supervision
import Testing

@Suite struct OrphanGuardTests {
    private func pids(from text: String) -> [pid_t] {
        text.split(separator: "\n").compactMap { pid_t($0) }
    }

    /// Starts a child that starts a grandchild in a session of its own and an orphan; returns the pids of all three.
    private func startTree(_ orphanGuard: OrphanGuard) throws -> (child: SubprocessWrapper, pids: [pid_t]) {
        let (read, write) = try FileDescriptor.pipe()
        var request = SpawnRequest(
            name: "tree", executable: "/bin/sh",
            arguments: [
                "-c",
                """
                exec 3>&1 >/dev/null
                setsid sh -c 'echo $$ >&3; exec 3>&-; exec sleep 100' &
                sh -c 'sleep 100 3>&- & echo $! >&3'
                echo $$ >&3; exec 3>&-
                exec sleep 100
                """,
            ], standardOutput: write.rawValue)
        orphanGuard.mark(&request.environment)
        let child = try SubprocessWrapper(request)
        write.close()
        let pids = pids(from: readAll(read.rawValue))
        return (child, pids)
    }

    @Test func reaperKillsTheWholeTreeAndRemovesTheDirectoryWhenTheSupervisorIsGone() throws {
        let scratch = Scratch()
        let directory = scratch.file("runtime")
        let orphanGuard = try OrphanGuard(directory: directory)
        mkdir(directory, 0o700)
        _ = scratch.script("", name: "runtime/file")
        mkdir("\(directory)/nested", 0o700)
        let tree = try startTree(orphanGuard)
        #expect(tree.pids.count == 3)
        #expect(tree.pids.allSatisfy(isRunning))

        orphanGuard.dropLifeline()
        #expect(eventually { !tree.pids.contains(where: isRunning) && access(directory, F_OK) != 0 })
        orphanGuard.finish()
    }

    @Test func reaperDoesNothingAsLongAsTheSupervisorLives() throws {
        let scratch = Scratch()
        let directory = scratch.file("runtime")
        let orphanGuard = try OrphanGuard(directory: directory)
        mkdir(directory, 0o700)
        let tree = try startTree(orphanGuard)
        let reaper = try #require(orphanGuard.reaperPid)
        // Neither signals of a terminal nor a termination request end it.
        for signal in [SIGINT, SIGTERM, SIGHUP] { kill(reaper, signal) }
        #expect(isRunning(reaper))
        #expect(tree.pids.allSatisfy(isRunning))
        #expect(access(directory, F_OK) == 0)

        // The orderly end takes survivors along too.
        orphanGuard.finish()
        #expect(!isRunning(reaper))
        #expect(eventually { !tree.pids.contains(where: isRunning) })
        #expect(access(directory, F_OK) != 0)
        orphanGuard.finish()
    }

    @Test func killedReaperIsReplaced() throws {
        let scratch = Scratch()
        let orphanGuard = try OrphanGuard(directory: scratch.file("runtime"))
        let first = try #require(orphanGuard.reaperPid)
        #expect(try !orphanGuard.ensureReaper())
        kill(first, SIGKILL)
        #expect(eventually { !isRunning(first) })
        #expect(try orphanGuard.ensureReaper())
        let second = try #require(orphanGuard.reaperPid)
        #expect(second != first && isRunning(second))
        orphanGuard.finish()
    }

    @Test func processesOfOthersAreLeftAlone() throws {
        let scratch = Scratch()
        let mine = try OrphanGuard(directory: scratch.file("mine"))
        let other = try OrphanGuard(directory: scratch.file("other"))
        let tree = try startTree(other)
        let unmarked = try shell("sleep 100")
        #expect(mine.killSurvivors() == 0)
        mine.finish()
        #expect(tree.pids.allSatisfy(isRunning) && unmarked.isAlive)
        #expect(other.killSurvivors() >= 3)
        other.finish()
        #expect(eventually { !tree.pids.contains(where: isRunning) })
        #expect(unmarked.isAlive)
    }
}
