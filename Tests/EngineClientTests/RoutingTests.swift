import EngineClient
import EngineProtocol
import MessagePack
import Synchronization
import Testing
import ZMTP
import ZeroMQ

/// Several engines: who gets a request, utility calls to all, and the coordinator.
@Suite(.timeLimit(.minutes(10))) struct RoutingTests {
    private func pair(_ family: ProtocolFamily = .v0_33) async throws -> (TestBench, [ScriptedEngine]) {
        let bench = try TestBench { $0.engineCount = 2 }
        let engines = try [0, 1].map { try bench.engine(rank: $0, family: family) }
        _ = try await bench.client.waitUntilReady()
        return (bench, engines)
    }

    private func stop(_ bench: TestBench, _ engines: [ScriptedEngine]) async {
        await bench.client.shutdown()
        for engine in engines { await engine.stop() }
    }

    /// Waits until the client has seen an engine's stats.
    private func publish(_ bench: TestBench, _ engine: ScriptedEngine, running: Int, waiting: Int) async {
        let (seen, continuation) = AsyncStream.makeStream(of: Int.self)
        bench.client.onSchedulerStats { rank, stats in
            if stats.numRunningReqs == running && stats.numWaitingReqs == waiting { continuation.yield(rank) }
        }
        // The observer and the stats come by different ways: repeat until one was seen.
        var iterator = seen.makeAsyncIterator()
        let probe = AsyncStream.makeStream(of: Void.self)
        bench.client.onStateChange { _ in probe.continuation.finish() }
        for await _ in probe.stream {}
        engine.send(ScriptedEngine.stats(running, waiting, engine: engine.rank))
        #expect(await iterator.next() == engine.rank)
    }

    @Test func concurrentRequestsAlternateAndSequentialOnesDoNot() async throws {
        let (bench, engines) = try await pair()
        for index in 0..<6 {
            _ = bench.add("r\(index)")
            #expect(try await engines[index % 2].nextAdd().requestID.hasPrefix("r\(index)-"))
        }
        await stop(bench, engines)

        let (second, others) = try await pair()
        for index in 0..<4 {
            let request = second.add("s\(index)")
            others[0].send(try await others[0].nextAdd().requestID, [1], finish: .stop)
            _ = await request.receiver.finish()
        }
        await stop(second, others)
    }

    @Test(arguments: [ProtocolFamily.v0_22, .v0_25, .v0_28, .v0_30, .v0_32, .v0_33])
    func publishedLoadCounts(family: ProtocolFamily) async throws {
        let (bench, engines) = try await pair(family)
        await publish(bench, engines[0], running: 3, waiting: 0)
        await publish(bench, engines[1], running: 1, waiting: 1)
        // 0.22 and 0.25 weigh waiting requests: 3 against 2 + 3. Later ones: 3 against 2.
        let chosen = family <= .v0_25 ? 0 : 1
        _ = bench.add("a")
        _ = try await engines[chosen].nextAdd()
        if family >= .v0_32 {
            // Requests since the stats count: 3 against 2 + 1 is a tie, which the lower rank wins.
            _ = bench.add("b")
            #expect(try await engines[0].nextAdd().requestID.hasPrefix("b-"))
        } else if family >= .v0_28 {
            _ = bench.add("b")
            #expect(try await engines[1].nextAdd().requestID.hasPrefix("b-"))
        }
        await stop(bench, engines)
    }

    @Test func anExplicitRankWins() async throws {
        let (bench, engines) = try await pair()
        for index in 0..<3 {
            _ = bench.add("r\(index)", rank: 1)
            #expect(try await engines[1].nextAdd().dataParallelRank == 1)
        }
        guard case .failed(.requestFailed(let reason)) = await bench.add("r", rank: 2).receiver.finish().last else {
            Issue.record("rank 2 does not exist")
            return
        }
        #expect(reason == "data parallel rank 2 is not connected")
        await stop(bench, engines)
    }

    @Test func anEngineThatWentAwayFailsTheRequestOnly() async throws {
        let (bench, engines) = try await pair()
        await engines[1].stop()
        // The connection's end is noticed some time after the engine's; until then requests are queued for it.
        while true {
            let request = bench.add("r", rank: 1)
            let probe = bench.add("probe", rank: 0)
            engines[0].send(try await engines[0].nextAdd().requestID, [], finish: .stop)
            _ = await probe.receiver.finish()
            if let last = request.receiver.events.last {
                guard case .failed(.requestFailed(let reason)) = last else { break }
                #expect(reason.contains("engine 1 cannot be reached"))
                break
            }
            bench.client.abort(request.handle)
        }
        #expect(bench.client.state.isReady)
        await bench.client.shutdown()
        await engines[0].stop()
    }

    @Test func aStepIsCountedOnceForAllInboxes() async throws {
        let (bench, engines) = try await pair()
        let (steps, continuation) = AsyncStream.makeStream(of: [Int].self)
        bench.client.onIteration { engine, tokens in continuation.yield([engine, tokens]) }
        let first = bench.add("a", inbox: DirectInbox(), rank: 1)
        let second = bench.add("b", inbox: DirectInbox(), rank: 1)
        let ids = [try await engines[1].nextAdd().requestID, try await engines[1].nextAdd().requestID]
        var outputs = ids.map { ScriptedEngine.output($0, [7, 8], finish: .length) }
        var prefill = PrefillStats()
        prefill.numPromptTokens = 10
        outputs[0].prefillStats = prefill
        outputs.append(ScriptedEngine.output("somebody else's", [1, 2, 3]))
        engines[1].send(ScriptedEngine.outputs(outputs, engine: 1))
        _ = await first.receiver.finish()
        _ = await second.receiver.finish()
        continuation.finish()
        #expect(await steps.reduce(into: []) { $0.append($1) } == [[1, 14]])
        await stop(bench, engines)
    }

    @Test func hungEnginesGetNothingNewAndTheirRequestsCanBeEnded() async throws {
        let (bench, engines) = try await pair()
        let waiting = bench.add("waiting", rank: 0)
        let other = bench.add("other", rank: 1)
        _ = try await engines[0].nextAdd()
        let otherID = try await engines[1].nextAdd().requestID
        bench.client.markHung([0])
        for index in 0..<3 {
            _ = bench.add("new\(index)")
            #expect(try await engines[1].nextAdd().requestID.hasPrefix("new\(index)-"))
        }
        bench.client.failRequests(rank: 0, .engineHung(reason: "test"))
        #expect(await waiting.receiver.finish().last?.failure == .engineHung(reason: "test"))
        #expect(try await engines[0].nextAbort().first?.hasPrefix("waiting-") == true)
        // All hang: nobody is better than another.
        bench.client.markHung([0, 1])
        _ = bench.add("late")
        #expect(try await engines[0].nextAdd().requestID.hasPrefix("late-"))
        bench.client.markHung([])
        engines[1].send(otherID, [], finish: .stop)
        #expect(await other.receiver.finish().last?.failure == nil)
        await stop(bench, engines)
    }

    @Test func aCallToOneEngineGoesToThatOneOnly() async throws {
        let (bench, engines) = try await pair()
        async let result = withCheckedContinuation { continuation in
            bench.client.callUtility("heartbeat", arguments: [0x90], rank: 1) { continuation.resume(returning: $0) }
        }
        let call = try await engines[1].nextUtility()
        engines[1].send(answer(call, engine: 1, result: [0xc3]))
        #expect(try await result.get().map(\.result) == [[0xc3]])
        await stop(bench, engines)
    }

    // MARK: - Utility calls

    private func answer(_ call: UtilityCall, engine: Int, failure: String? = nil, result: [UInt8]?) -> EngineCoreOutputs
    {
        var message = EngineCoreOutputs()
        message.engineIndex = engine
        message.utilityOutput = UtilityOutput(callID: call.callID, failureMessage: failure, result: result)
        return message
    }

    private func call(
        _ bench: TestBench, _ method: String, _ arguments: [UInt8] = [0x90]
    ) async -> Result<[UtilityOutput], EngineFailure> {
        await withCheckedContinuation { continuation in
            bench.client.callUtility(method, arguments: arguments) { continuation.resume(returning: $0) }
        }
    }

    @Test func utilityCallsGoToAllEnginesAndWaitForAll() async throws {
        let (bench, engines) = try await pair()
        async let result = call(bench, "reset_prefix_cache", [0x92, 0xc2, 0xc2])
        let calls = [try await engines[0].nextUtility(), try await engines[1].nextUtility()]
        #expect(calls.allSatisfy { $0.method == "reset_prefix_cache" && $0.arguments == [0x92, 0xc2, 0xc2] })
        #expect(calls[0].callID != calls[1].callID)
        // Answers out of order, an unknown one and a notification in between.
        engines[1].send(answer(calls[1], engine: 1, result: [0xc2]))
        engines[1].send(
            answer(UtilityCall(clientIndex: 0, callID: 999, method: "", arguments: []), engine: 1, result: nil))
        engines[1].send(
            answer(UtilityCall(clientIndex: 0, callID: .max, method: "", arguments: []), engine: 1, result: nil))
        engines[0].send(answer(calls[0], engine: 0, result: [0xc3]))
        #expect(try await result.get().map(\.result) == [[0xc3], [0xc2]])
        await stop(bench, engines)
    }

    @Test func oneFailureFailsTheCall() async throws {
        let (bench, engines) = try await pair()
        async let result = call(bench, "nope")
        let calls = [try await engines[0].nextUtility(), try await engines[1].nextUtility()]
        engines[0].send(answer(calls[0], engine: 0, failure: "Call to nope method failed", result: nil))
        engines[1].send(answer(calls[1], engine: 1, result: nil))
        guard case .failure(let failure) = await result else {
            Issue.record("did not fail")
            return
        }
        #expect(failure == .requestFailed(reason: "Call to nope method failed"))
        await stop(bench, engines)
    }

    @Test func deathEndsWaitingCalls() async throws {
        let (bench, engines) = try await pair()
        async let result = call(bench, "sleep")
        _ = try await engines[0].nextUtility()
        engines[1].sendSentinel()
        guard case .failure(.engineDead) = await result else {
            Issue.record("the call did not fail")
            return
        }
        guard case .failure(.engineDead) = await call(bench, "sleep") else {
            Issue.record("a dead client took a call")
            return
        }
        await stop(bench, engines)
    }

    @Test func damagedArgumentsAreNotSent() async throws {
        let (bench, engines) = try await pair()
        for arguments in [[], [0x91], [0xc0], [0x90, 0x90]] as [[UInt8]] {
            guard case .failure(.requestFailed) = await call(bench, "m", arguments) else {
                Issue.record("\(arguments) was sent")
                continue
            }
        }
        await stop(bench, engines)
    }

    // MARK: - Coordinator

    /// A client with two engines and the socket of a coordinator that it has subscribed to.
    private func coordinated(
        _ change: (inout EngineClientConfiguration) -> Void = { _ in }
    ) async throws -> (TestBench, [ScriptedEngine], ZMQSocket) {
        let coordinator = try ZMQSocket(.xpub, context: try ZMQContext())
        try coordinator.setReceiveTimeout(milliseconds: 20_000)
        let bench = try TestBench { configuration in
            guard case .bind(let input) = configuration.input else { return }
            configuration.coordinatorAddress = String(input.dropLast(2)) + "coordinator"
            configuration.engineCount = 2
            change(&configuration)
        }
        try coordinator.bind(try #require(bench.configuration.coordinatorAddress))
        let engines = try [0, 1].map { try bench.engine(rank: $0) }
        _ = try await bench.client.waitUntilReady()
        #expect(try coordinator.receiveFrames(wait: true) == [[1]])
        return (bench, engines, coordinator)
    }

    /// Sends loads and waits until the client has them: the wave number in its requests tells.
    private func publish(
        _ loads: [(waiting: Int, running: Int, cache: Double)], wave: Int, _ coordinator: ZMQSocket,
        _ bench: TestBench, _ engines: [ScriptedEngine]
    ) async throws {
        let state = CoordinatorState(
            loads: loads.map { .init(waiting: $0.waiting, running: $0.running, kvCacheUsage: $0.cache) }, wave: wave,
            isRunning: false)
        try coordinator.send(state.encode(family: .v0_33))
        while true {
            // An explicit rank leaves the choice of the next request alone.
            let probe = bench.add("probe", rank: 0)
            let request = try await engines[0].nextAdd()
            engines[0].send(request.requestID, [1], finish: .stop)
            _ = await probe.receiver.finish()
            if request.currentWave == wave { return }
        }
    }

    @Test func publishedCountsOfTheCoordinatorDecide() async throws {
        let (bench, engines, coordinator) = try await coordinated()
        try await publish([(0, 4, 0), (0, 1, 0)], wave: 1, coordinator, bench, engines)
        // 4 against 1, 2, 3; then a tie, which the engine wins at which the search begins: the second one by now.
        for index in 0..<4 {
            _ = bench.add("r\(index)")
            #expect(try await engines[1].nextAdd().requestID.hasPrefix("r\(index)-"))
        }
        _ = bench.add("last")
        #expect(try await engines[0].nextAdd().requestID.hasPrefix("last-"))
        // A queue before a full cache counts threefold on top, before an empty one only once.
        try await publish([(3, 10, 0.5), (3, 9, 1)], wave: 2, coordinator, bench, engines)
        _ = bench.add("full")
        #expect(try await engines[0].nextAdd().requestID.hasPrefix("full-"))
        coordinator.close()
        await stop(bench, engines)
    }

    /// Counts that are older than the requests just sent must not send a burst to one engine.
    @Test func ownRequestsCountWhateverIsPublished() async throws {
        let (bench, engines, coordinator) = try await coordinated {
            $0.clientIndex = 1
            $0.clientCount = 2
        }
        for wave in 1...3 {
            try await publish([(0, 0, 0), (0, 0, 0)], wave: wave, coordinator, bench, engines)
            // The second of two frontends begins at the second engine.
            var used: Set<Int> = []
            for index in 0..<2 {
                _ = bench.add("w\(wave)r\(index)")
                let rank = (wave * 2 + index) % 2 == 0 ? 1 : 0
                #expect(try await engines[rank].nextAdd().requestID.hasPrefix("w\(wave)r\(index)-"))
                used.insert(rank)
            }
            #expect(used == [0, 1])
        }
        coordinator.close()
        await stop(bench, engines)
    }

    @Test(arguments: [ProtocolFamily.v0_32, .v0_33]) func wavesAreStampedAndStarted(family: ProtocolFamily) async throws
    {
        let address = Mutex("")
        let context = try ZMQContext()
        let coordinator = try ZMQSocket(.xpub, context: context)
        let bench = try TestBench { configuration in
            guard case .bind(let input) = configuration.input else { return }
            let endpoint = String(input.dropLast(2)) + "coordinator"
            address.withLock { $0 = endpoint }
            configuration.coordinatorAddress = endpoint
        }
        // A missing message is a failure, not a test that never ends.
        try coordinator.setReceiveTimeout(milliseconds: 20_000)
        try coordinator.bind(address.withLock { $0 })
        let engine = try bench.engine(family: family)
        _ = try await bench.client.waitUntilReady()
        // The subscription is the proof that the client listens.
        #expect(try coordinator.receiveFrames(wait: true) == [[1]])
        try coordinator.send(CoordinatorState(loads: nil, wave: 3, isRunning: false).encode(family: family))
        // A request can overtake the state: repeat until one carries the wave.
        var stamped: EngineCoreRequest
        var sent = 0
        repeat {
            _ = bench.add("r")
            sent += 1
            stamped = try await engine.nextAdd()
        } while stamped.currentWave != 3
        if family == .v0_32 {
            let first = try #require(try coordinator.receiveFrames(wait: true))
            let message = try first[0].withUnsafeBytes { try FrontendToCoordinatorMessage(decoding: $0) }
            guard case .firstRequest(engine: 0, wave: let wave) = message else {
                Issue.record("\(message)")
                return
            }
            #expect(wave == 0 || wave == 3)
        } else {
            // Engines of 0.33 start waves themselves: nothing but the subscription was sent.
            await bench.client.shutdown()
            #expect(try coordinator.receiveFrames(wait: true) == [[0]])
        }
        coordinator.close()
        await bench.client.shutdown()
        await engine.stop()
    }
}
