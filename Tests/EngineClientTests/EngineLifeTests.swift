import EngineClient
import EngineProtocol
import Logging
import MessagePack
import Synchronization
import NIOCore
import NIOPosix
import Testing
import ZMTP
import ZeroMQ

/// Registration, death, restart and shutdown.
@Suite(.timeLimit(.minutes(10))) struct EngineLifeTests {
    @Test func limitsAndCapacitiesOfSeveralEngines() async throws {
        let bench = try TestBench {
            $0.engineStartIndex = 2
            $0.engineCount = 2
        }
        #expect(bench.client.state == .waitingForEngines)
        let first = try bench.engine(rank: 3, response: ScriptedEngine.response(rank: 3, maxModelLength: 1024))
        let second = try bench.engine(rank: 2)
        let information = try await bench.client.waitUntilReady()
        #expect(information.maxModelLength == 1024)
        #expect(information.numGPUBlocks == 200)
        #expect(information.engineCount == 2)
        #expect(bench.client.state == .ready(information))
        await bench.client.shutdown()
        await first.stop()
        await second.stop()
    }

    private func startupFailure(_ bench: TestBench) async -> String? {
        do {
            _ = try await bench.client.waitUntilReady()
            return nil
        } catch {
            guard case .engineDead(let reason) = error else { return nil }
            return reason
        }
    }

    @Test func missingEnginesAreATimeout() async throws {
        let bench = try TestBench {
            $0.engineCount = 2
            $0.readyTimeout = .milliseconds(300)
        }
        let engine = try bench.engine(rank: 0)
        let reason = await startupFailure(bench)
        #expect(reason?.contains("engine 1 ") == true || reason?.contains("engine 0, 1 ") == true)
        #expect(bench.client.state.isDead)
        guard case .failed(.engineDead) = await bench.add("r").receiver.finish().last else {
            Issue.record("a dead client took a request")
            return
        }
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func unexpectedRanksEndTheStart() async throws {
        let bench = try TestBench()
        let engine = try bench.engine(rank: 7)
        #expect(await startupFailure(bench)?.contains("7 0") == true)
        // It stays dead, whoever comes later.
        let right = try bench.engine(rank: 0)
        #expect(await startupFailure(bench) != nil)
        await bench.client.shutdown()
        await engine.stop()
        await right.stop()
    }

    @Test func unusableRegistrationsNameTheField() async throws {
        let bench = try TestBench()
        var response = ScriptedEngine.response()
        response.instanceID = nil
        let engine = try bench.engine(response: response)
        #expect(await startupFailure(bench)?.contains("'instance_id'") == true)
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func mixedVersionsAreRefused() async throws {
        let bench = try TestBench { $0.engineCount = 2 }
        let old = try bench.engine(rank: 0, family: .v0_25)
        let new = try bench.engine(rank: 1, family: .v0_33)
        #expect(await startupFailure(bench)?.contains("speaks protocol") == true)
        await bench.client.shutdown()
        await old.stop()
        await new.stop()
    }

    @Test func aConfiguredFamilyNeedsNoVersion() async throws {
        let bench = try TestBench { $0.family = .v0_28 }
        var response = ScriptedEngine.response()
        response.vllmVersion = "dev"
        let engine = try bench.engine(family: .v0_28, response: response)
        _ = try await bench.client.waitUntilReady()
        #expect(bench.client.protocolFamily == .v0_28)
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func requestsBeforeTheEnginesFailAtOnce() async throws {
        let bench = try TestBench()
        guard case .failed(.requestFailed) = await bench.add("r").receiver.finish().last else {
            Issue.record("accepted without an engine")
            return
        }
        await bench.client.shutdown()
    }

    @Test func deathFailsEveryRequestOnceAndRestartHeals() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let requests = (0..<20).map { bench.add("r\($0)") }
        var ids: [String] = []
        for _ in requests { ids.append(try await engine.nextAdd().requestID) }
        engine.send(ids[0], [1])
        // A sentinel counts with further frames, too.
        engine.sendRaw([Array("ENGINE_CORE_DEAD".utf8), [0]])
        for request in requests {
            guard case .failed(.engineDead) = await request.receiver.finish().last else {
                Issue.record("not failed by death")
                continue
            }
        }
        await bench.wait(for: \.isDead)
        #expect(bench.client.state.isDead)
        guard case .failed(.engineDead) = await bench.add("late").receiver.finish().last else {
            Issue.record("a dead engine took a request")
            return
        }
        await engine.stop()

        let restarted = try bench.engine(response: ScriptedEngine.response(instance: "second"))
        await bench.wait(for: \.isReady)
        let again = bench.add("again")
        restarted.send(try await restarted.nextAdd().requestID, [4], finish: .stop)
        #expect(await again.receiver.finish().tokens == [4])
        for request in requests { #expect(request.receiver.lastEvents == 1) }
        await bench.client.shutdown()
        #expect(bench.client.inFlight == 0)
        await restarted.stop()
    }

    @Test func aNamedDeathConcernsOneEngineAndNotItsSuccessor() async throws {
        let bench = try TestBench {
            $0.engineCount = 2
            $0.enginesAreReplaced = true
        }
        let killed = try bench.engine(rank: 0, response: ScriptedEngine.response(instance: "first"))
        let other = try bench.engine(rank: 1)
        _ = try await bench.client.waitUntilReady()
        let lost = bench.add("lost", rank: 0)
        _ = try await killed.nextAdd()
        let kept = bench.add("kept", rank: 1)
        let keptID = try await other.nextAdd().requestID
        // Its own sentinel does not say whose it is; the supervisor's does.
        killed.sendRaw([Array("ENGINE_CORE_DEAD".utf8)])
        await killed.stop()
        other.sendRaw(EngineDeathNotice(rank: 0, instanceID: "first").frames)
        #expect(await lost.receiver.finish().last?.failure == .engineDead(reason: "engine 0 died"))
        #expect(bench.client.state.isReady)

        let restarted = try bench.engine(rank: 0, response: ScriptedEngine.response(instance: "second"))
        let answers = Task {
            for _ in 0..<2 { restarted.send(try await restarted.nextAdd().requestID, [4], finish: .stop) }
        }
        // Refused until it has registered.
        while await bench.add("again", rank: 0).receiver.finish().tokens != [4] {}
        // News that come late are about the dead process.
        other.sendRaw(EngineDeathNotice(rank: 0, instanceID: "first").frames)
        other.send(keptID, [1], finish: .stop)
        #expect(await kept.receiver.finish().tokens == [1])
        #expect(await bench.add("still there", rank: 0).receiver.finish().tokens == [4])
        try await answers.value
        await bench.client.shutdown()
        await restarted.stop()
        await other.stop()
    }

    @Test func deathToldFromOutside() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("r")
        _ = try await engine.nextAdd()
        bench.client.markDead(reason: "killed by signal 9")
        #expect(await request.receiver.finish().last?.failure == .engineDead(reason: "killed by signal 9"))
        #expect(bench.client.state == .dead(reason: "killed by signal 9"))
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func anUnnoticedRestartFailsTheOldRequests() async throws {
        let bench = try TestBench { $0.engineCount = 2 }
        let killed = try bench.engine(rank: 0)
        let other = try bench.engine(rank: 1)
        _ = try await bench.client.waitUntilReady()
        let lost = bench.add("lost", rank: 0)
        _ = try await killed.nextAdd()
        let kept = bench.add("kept", rank: 1)
        let keptID = try await other.nextAdd().requestID
        await killed.stop()
        let restarted = try bench.engine(rank: 0, response: ScriptedEngine.response(instance: "second"))
        guard case .failed(.requestFailed(let reason)) = await lost.receiver.finish().last else {
            Issue.record("the lost request did not fail")
            return
        }
        #expect(reason.contains("engine 0 was restarted"))
        #expect(bench.client.state.isReady)
        let again = bench.add("again", rank: 0)
        restarted.send(try await restarted.nextAdd().requestID, [2], finish: .stop)
        #expect(await again.receiver.finish().tokens == [2])
        other.send(keptID, [3], finish: .stop)
        #expect(await kept.receiver.finish().tokens == [3])
        await bench.client.shutdown()
        await restarted.stop()
        await other.stop()
    }

    @Test func theSameEngineMayRegisterAgain() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("r")
        let id = try await engine.nextAdd().requestID
        engine.register(ScriptedEngine.response())
        // Damaged ones after the start cost a log line only.
        engine.sendOnInput([[0xc1]])
        engine.sendOnInput([[], [1], [2]])
        engine.send(id, [8], finish: .stop)
        #expect(await request.receiver.finish().tokens == [8])
        await bench.client.shutdown()
        await engine.stop()
    }

    // MARK: - Shutdown

    @Test func shutdownDrainsRunningRequests() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let running = bench.add("running")
        let id = try await engine.nextAdd().requestID
        let (closed, continuation) = AsyncStream.makeStream(of: Void.self)
        bench.client.shutdown(drainTimeout: .seconds(30)) { continuation.finish() }
        #expect(await bench.add("late").receiver.finish().last?.failure == .shuttingDown)
        #expect(bench.client.state.isReady)
        engine.send(id, [1])
        engine.send(id, [2], finish: .stop)
        #expect(await running.receiver.finish().tokens == [1, 2])
        for await _ in closed {}
        #expect(bench.client.state == .closed)
        await engine.stop()
    }

    @Test func shutdownWithoutDrainFailsAndAborts() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let running = bench.add("running")
        let id = try await engine.nextAdd().requestID
        await bench.client.shutdown()
        #expect(await running.receiver.finish().last?.failure == .shuttingDown)
        #expect(try await engine.nextAbort() == [id])
        #expect(bench.client.inFlight == 0)
        // A closed client refuses on the spot.
        let late = bench.add("late")
        #expect(late.receiver.events.first?.failure == .shuttingDown)
        #expect(bench.client.inFlight == 0)
        let answer = Mutex<EngineFailure?>(nil)
        bench.client.callUtility("m", arguments: [0x90]) { result in
            if case .failure(let failure) = result { answer.withLock { $0 = failure } }
        }
        #expect(answer.withLock { $0 } == .shuttingDown)
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func impossibleRanksAreRefused() throws {
        for (start, count) in [(0, 0), (-1, 1), (65_535, 2), (Int.max, 1), (0, Int.max)] {
            var configuration = EngineClientConfiguration(input: .bind("ipc://in"), output: .bind("ipc://out"))
            configuration.engineStartIndex = start
            configuration.engineCount = count
            #expect(throws: ZMTPError.self) {
                try EngineClient(
                    configuration: configuration, eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                    logger: Logger(label: "test"))
            }
        }
    }
}
