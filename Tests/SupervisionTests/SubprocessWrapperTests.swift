import Glibc
import Supervision
import Testing

@Suite struct SubprocessWrapperTests {
    @Test(arguments: [0, 1, 7, 255])
    func exitStatusIsReported(status: Int32) throws {
        let child = try shell("exit \(status)")
        #expect(child.join(timeout: .seconds(10)))
        #expect(child.exitCode == status)
        #expect(!child.isAlive)
    }

    @Test(arguments: [SIGTERM, SIGKILL, SIGUSR1])
    func deathBySignalIsNegative(signal: Int32) throws {
        let child = try shell("kill -\(signal) $$; sleep 100")
        #expect(child.join(timeout: .seconds(10)))
        #expect(child.exitCode == -signal)
    }

    @Test func exitsAreDescribed() throws {
        let killed = try shell("sleep 100")
        #expect(killed.exitDescription == "still running")
        killed.kill()
        killed.join()
        #expect(killed.exitDescription == "signal 9 (SIGKILL)")
        let failed = try shell("exit 3")
        failed.join()
        #expect(failed.exitDescription == "exit status 3")
    }

    @Test func sentinelIsReadableExactlyWhenTheChildHasEnded() throws {
        let child = try shell("read line", name: "reader")
        var entry = pollfd(fd: child.sentinel, events: Int16(POLLIN), revents: 0)
        // Standard input is /dev/null, so it ends by itself.
        #expect(poll(&entry, 1, 10_000) == 1)
        #expect(child.exitCode == 1)
        let sleeper = try shell("sleep 100")
        entry.fd = sleeper.sentinel
        #expect(poll(&entry, 1, 0) == 0)
        sleeper.terminate()
        #expect(poll(&entry, 1, 10_000) == 1)
    }

    @Test func joinGivesUpAfterItsTimeout() throws {
        let child = try shell("sleep 100")
        let start = ContinuousClock.now
        #expect(!child.join(timeout: .milliseconds(50)))
        #expect(ContinuousClock.now - start >= .milliseconds(50))
        #expect(child.isAlive && child.exitCode == nil)
    }

    @Test func missingProgramIsAnErrorWithItsReason() {
        #expect {
            _ = try SubprocessWrapper(SpawnRequest(name: "X", executable: "/no/such/program", arguments: []))
        } throws: { error in
            "\(error)" == "cannot start X: /no/such/program: No such file or directory"
        }
    }

    @Test func missingWorkingDirectoryIsAnError() {
        #expect {
            _ = try SubprocessWrapper(
                SpawnRequest(name: "X", executable: "/bin/true", arguments: [], directory: "/no/such/folder"))
        } throws: { error in
            "\(error)".contains("working directory /no/such/folder")
        }
    }

    @Test func environmentAndWorkingDirectoryAreThoseAskedFor() throws {
        var request = SpawnRequest(
            name: "X", executable: "/usr/bin/env", arguments: [], environment: ["A": "1 2\t3", "B": ""],
            directory: "/usr")
        #expect(try outputOf(request) == "A=1 2\t3\nB=\n")
        request.executable = "/bin/pwd"
        #expect(try outputOf(request) == "/usr\n")
    }

    @Test func childHasExactlyTheDescriptorsOfItsTable() throws {
        // Descriptors that are open here without close-on-exec must not get through.
        var request = SpawnRequest(name: "X", executable: "/bin/sleep", arguments: ["100"])
        let leak = dup(0)
        defer { close(leak) }
        let (read, write) = try FileDescriptor.pipe()
        #expect(request.inherit(read.rawValue) == 3)
        #expect(request.inherit(write.rawValue) == 4)
        let child = try SubprocessWrapper(request)
        // Its dynamic loader opens and closes files of its own at first.
        let expected = ["0", "1", "2", "3", "4"]
        #expect(eventually { ProcessInfo.directoryEntries("/proc/\(child.pid)/fd").sorted() == expected })
    }

    /// Every way in which sources and targets can overlap: each file must arrive under its number.
    @Test func descriptorTableSurvivesOverlaps() throws {
        let scratch = Scratch()
        var generator = SeededGenerator(seed: 1)
        for round in 0..<30 {
            let count = Int.random(in: 2...6, using: &generator)
            let files = (0..<count).map { index in
                let path = scratch.script("content \(index)", name: "f\(index)")
                return FileDescriptor(owning: open(path, O_RDONLY | O_CLOEXEC))
            }
            // Targets out of the range where the sources are, so that they collide.
            let targets = (3..<files.map(\.rawValue).max()! + 2).shuffled(using: &generator).prefix(count)
            var request = SpawnRequest(name: "X", executable: "/bin/sh", arguments: ["-c"])
            request.descriptors = zip(files, targets).map { ($0.rawValue, $1) }
            let line = targets.map { "tail -n 1 /proc/self/fd/\($0)" }.joined(separator: "; ")
            request.arguments.append(line)
            let expected = (0..<count).map { "content \($0)\n" }.joined()
            #expect(try outputOf(request) == expected, "round \(round): \(request.descriptors)")
        }
    }

    @Test func childLeadsItsOwnGroupWithUnblockedDefaultSignals() throws {
        signal(SIGPIPE, SIG_IGN)
        let child = try SubprocessWrapper(SpawnRequest(name: "X", executable: "/bin/sleep", arguments: ["100"]))
        #expect(getpgid(child.pid) == child.pid)
        let status = try #require(ProcessInfo.readFile("/proc/\(child.pid)/status"))
        for line in status.split(separator: "\n") where line.hasPrefix("SigBlk:") || line.hasPrefix("SigIgn:") {
            let mask = try #require(UInt64(line.dropFirst(8), radix: 16))
            // Signals 32 and 33 belong to the C library.
            #expect(mask & ~0x1_8000_0000 == 0, "\(line)")
        }
    }

    @Test func restOfTheGroupEndsWithItsLeader() throws {
        let (read, write) = try FileDescriptor.pipe()
        let child = try shell("sleep 100 & echo $!", output: write.rawValue)
        write.close()
        #expect(child.join(timeout: .seconds(10)))
        // The grandchild holds the pipe: end of file means that it is gone too.
        let pid = try #require(pid_t(readAll(read.rawValue).filter(\.isNumber)))
        #expect(eventually { !isRunning(pid) })
    }

    @Test func closeEndsARunningChild() throws {
        let child = try shell("exec sleep 100")
        let pid = child.pid
        child.close()
        #expect(!isRunning(pid))
        #expect(child.exitCode == -SIGKILL)
        #expect(child.sentinel == -1)
        child.close()
        child.terminate()
    }

    @Test func manyThreadsCanSpawnAtOnce() async {
        await withTaskGroup(of: Int32?.self) { group in
            for status in 0..<32 {
                group.addTask {
                    let child = try? shell("exit \(status)")
                    child?.join()
                    return child?.exitCode
                }
            }
            var codes: [Int32] = []
            for await code in group { codes.append(code ?? -999) }
            #expect(codes.sorted() == Array(0..<32))
        }
    }
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
