import Glibc
import Supervision
import Testing

@Suite struct ShutdownTests {
    private let loop = EventLoop()

    /// A child that says when its signal handling is set up.
    private func stubborn(_ line: String = "trap '' TERM") throws -> SubprocessWrapper {
        let (read, write) = try FileDescriptor.pipe()
        let child = try shell("\(line); echo up; exec >&-; while :; do sleep 100 & wait; done", output: write.rawValue)
        write.close()
        var byte: UInt8 = 0
        _ = Glibc.read(read.rawValue, &byte, 1)
        return child
    }

    @Test func obedientChildrenEndWithoutBeingKilled() throws {
        let children = try (0..<5).map { try shell("sleep 100", name: "c\($0)") }
        let killed = shutdown(children, timeout: nil, on: loop, logger: quiet)
        #expect(killed.isEmpty)
        #expect(children.allSatisfy { $0.exitCode == -SIGTERM })
    }

    @Test func stubbornChildIsKilledWithItsTreeAfterTheTimeout() throws {
        let (read, write) = try FileDescriptor.pipe()
        let child = try shell("trap '' TERM; setsid sleep 100 & echo up; wait; sleep 100", output: write.rawValue)
        write.close()
        var bytes = [UInt8](repeating: 0, count: 3)
        _ = Glibc.read(read.rawValue, &bytes, 3)
        let tree = ProcessInfo.descendants(of: child.pid)
        #expect(tree.count == 1)
        let start = ContinuousClock.now
        let killed = shutdown([child], timeout: .milliseconds(100), on: loop, logger: quiet)
        #expect(killed == ["child"])
        #expect(ContinuousClock.now - start >= .milliseconds(100))
        #expect(child.exitCode == -SIGKILL)
        #expect(eventually { !tree.contains(where: isRunning) })
    }

    @Test func secondSignalCutsTheGraceShort() throws {
        let child = try stubborn()
        var interrupted = false
        loop.schedule(after: .milliseconds(20)) { interrupted = true }
        let start = ContinuousClock.now
        #expect(shutdown([child], timeout: .seconds(60), on: loop, logger: quiet) { interrupted } == ["child"])
        #expect(ContinuousClock.now - start < .seconds(60))
    }

    @Test func subprocessesHaveFiveSecondsAtLeast() throws {
        let child = try stubborn("trap 'sleep 0.3; exit 0' TERM")
        #expect(shutdownSubprocesses([child], timeout: .zero, on: loop, logger: quiet).isEmpty)
        #expect(child.exitCode == 0)
    }

    @Test func repeatingItIsHarmless() throws {
        let child = try shell("sleep 100")
        shutdown([child], timeout: nil, on: loop, logger: quiet)
        #expect(shutdown([child], timeout: nil, on: loop, logger: quiet).isEmpty)
        child.close()
        #expect(shutdown([child], timeout: nil, on: loop, logger: quiet).isEmpty)
        #expect(shutdown([], timeout: nil, on: loop, logger: quiet).isEmpty)
    }
}

@Suite struct EventLoopTests {
    @Test func timersRunInOrderAndCancelledOnesDoNot() {
        let loop = EventLoop()
        var order: [Int] = []
        loop.schedule(after: .milliseconds(20)) { order.append(2) }
        loop.schedule(after: .milliseconds(5)) { order.append(1) }
        let cancelled = loop.schedule(after: .milliseconds(10)) { order.append(99) }
        loop.schedule(after: .milliseconds(30)) { order.append(3) }
        loop.cancel(cancelled)
        #expect(loop.run(until: .now + .seconds(10)) { order.count < 3 })
        #expect(order == [1, 2, 3])
    }

    @Test func deadlineEndsTheWait() {
        let start = ContinuousClock.now
        #expect(!EventLoop().run(until: start + .milliseconds(30)) { true })
        #expect(ContinuousClock.now - start >= .milliseconds(30))
    }

    @Test func handlerMayRemoveAnotherWatch() throws {
        let loop = EventLoop()
        let pipes = try (0..<2).map { _ in try FileDescriptor.pipe() }
        var calls = 0
        for pipe in pipes {
            var byte: UInt8 = 1
            _ = write(pipe.write.rawValue, &byte, 1)
            loop.watch(pipe.read.rawValue) {
                calls += 1
                for pipe in pipes { loop.unwatch(pipe.read.rawValue) }
            }
        }
        loop.runOnce(until: .now + .milliseconds(50))
        loop.runOnce(until: .now)
        #expect(calls == 1)
    }
}

@Suite struct ChildLogTests {
    /// Runs a line of shell with its output on a child log; returns what the log passed on and remembers.
    private func run(_ line: String, name: String = "EngineCore") throws -> (
        passedOn: String, log: ChildLog, pid: pid_t
    ) {
        let loop = EventLoop()
        let (read, write) = try FileDescriptor.pipe()
        let log = try ChildLog(name: name, loop: loop, output: LogOutput(descriptor: write.rawValue))
        let child = try shell(line, output: log.childEnd)
        log.spawned(pid: child.pid)
        child.join()
        log.close()
        write.close()
        return (readAll(read.rawValue), log, child.pid)
    }

    @Test func linesGetAPrefixUnlessTheyHaveOne() throws {
        let (text, _, pid) = try run(
            #"printf 'plain\n(RustFrontend pid=12) INFO x\n\033[0;36m(RustFrontend pid=3)\033[0m y\n(pid=) z\nlast'"#)
        let name = "(EngineCore pid=\(pid))"
        #expect(
            text == """
                \(name) plain
                (RustFrontend pid=12) INFO x
                (RustFrontend pid=3) y
                \(name) (pid=) z
                \(name) last

                """)
    }

    @Test func lastTwoHundredLinesAreRemembered() throws {
        let log = try run("seq 1 1000").log
        #expect(log.lastLines == (801...1000).map(String.init))
    }

    @Test func endlessLineIsCut() throws {
        let log = try run("head -c 40000 /dev/zero | tr '\\0' x").log
        #expect(log.lastLines.map(\.count) == [16384, 16384, 7232])
    }

    @Test func errorBlockStartsAtTheErrors() throws {
        let log = try run("echo fine; echo ERROR one; echo ERROR two; echo '  detail'").log
        #expect(log.errorBlock == ["ERROR one", "ERROR two", "  detail"])
        let python = try run("seq 1 50; echo 'Traceback (most recent call last):'; echo ' at x'; echo 'ValueError: y'")
            .log
        #expect(python.errorBlock == ["Traceback (most recent call last):", " at x", "ValueError: y"])
        #expect(try run("seq 1 50").log.errorBlock == ["46", "47", "48", "49", "50"])
        #expect(try run("true").log.errorBlock.isEmpty)
    }

    @Test func slowReaderDoesNotStopTheWriter() throws {
        let (read, write) = try FileDescriptor.pipe()
        let output = LogOutput(descriptor: write.rawValue)
        // More than a pipe holds, and nobody reads.
        for _ in 0..<20 { output.write(line: String(repeating: "x", count: 8000)) }
        _ = fcntl(read.rawValue, F_SETFL, O_NONBLOCK)
        #expect(readAll(read.rawValue).count >= 4096)
        output.write(line: "again")
        #expect(readAll(read.rawValue).contains("log lines dropped"))
    }
}
