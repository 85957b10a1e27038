import EngineClient
import EngineProtocol
import Testing

/// Engines that nobody but their connection tells about.
@Suite(.timeLimit(.minutes(1))) struct ConnectionTests {
    private func bench(engines: Int, reconnectTime: Duration) throws -> TestBench {
        try TestBench {
            $0.engineCount = engines
            $0.watchesConnections = true
            $0.reconnectTime = reconnectTime
        }
    }

    @Test func anEngineThatHangsUpIsDeadUntilOneRegisters() async throws {
        let bench = try bench(engines: 1, reconnectTime: .milliseconds(50))
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("r")
        _ = try await engine.nextAdd()
        await engine.stop()
        #expect(await request.receiver.finish().last?.failure == .engineDead(reason: "engine 0 died"))
        #expect(bench.client.state == .dead(reason: "engine 0 died"))
        let restarted = try bench.engine(response: ScriptedEngine.response(instance: "second"))
        await bench.wait(for: \.isDead)
        await bench.wait(for: \.isReady)
        let again = bench.add("again")
        restarted.send(try await restarted.nextAdd().requestID, [4], finish: .stop)
        #expect(await again.receiver.finish().tokens == [4])
        await bench.client.shutdown()
        await restarted.stop()
    }

    @Test func oneThatComesBackInTimeIsNot() async throws {
        let bench = try bench(engines: 2, reconnectTime: .seconds(2))
        let engines = [try bench.engine(rank: 0), try bench.engine(rank: 1)]
        _ = try await bench.client.waitUntilReady()
        let lost = bench.add("lost", rank: 1)
        _ = try await engines[1].nextAdd()
        await engines[0].stop()
        let back = try bench.engine(rank: 0, response: ScriptedEngine.response(instance: "second"))
        await engines[1].stop()
        #expect(await lost.receiver.finish().last?.failure == .engineDead(reason: "engine 1 died"))
        // The same look has found engine 0 in its place, by a message that asks for nothing.
        #expect(try await back.nextAbort().isEmpty)
        #expect(bench.client.state.isReady)
        let kept = bench.add("kept", rank: 0)
        back.send(try await back.nextAdd().requestID, [4], finish: .stop)
        #expect(await kept.receiver.finish().tokens == [4])
        await bench.client.shutdown()
        await back.stop()
    }
}
