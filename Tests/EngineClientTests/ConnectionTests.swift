import EngineClient
import EngineProtocol
import Glibc
import Testing
import ZeroMQ

/// Engines that nobody but their connection tells about.
@Suite(.timeLimit(.minutes(10))) struct ConnectionTests {
    /// Bytes that a unix socket takes while nobody reads.
    private var kernelBuffer: Int {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var size: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &size, &length)
        return Int(size)
    }

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

    /// The engine of a stopped process: what it does not read may not grow without end, and others do the work.
    @Test func oneThatDoesNotReadGetsNothingMore() async throws {
        let bench = try TestBench {
            $0.engineCount = 2
            $0.maxQueuedBytes = 300_000
        }
        let dealer = try ZMQSocket(.dealer, context: ZMQContext())
        try dealer.setIdentity([0, 0])
        try dealer.setReceiveHighWaterMark(1)
        try dealer.connect(bench.input)
        var ready: [UInt8] = []
        ScriptedEngine.response(rank: 0).encode(into: &ready)
        try dealer.send(ready)
        let other = try bench.engine(rank: 1)
        _ = try await bench.client.waitUntilReady()

        let prompt = [Int32](repeating: .max, count: 2000)
        // More than the queue and the kernel hold, which may be set up to hold a lot.
        let count = 400 + kernelBuffer / 8_000
        let requests = (0..<count).map { bench.add("r\($0)", prompt: prompt, rank: 0) }
        let late = bench.add("late", prompt: prompt, rank: 0)
        let failure = EngineFailure.engineBehind(reason: "engine 0 does not read what it is sent")
        #expect(await late.receiver.finish().last?.failure == failure)
        let refused = requests.filter { $0.receiver.events.last?.failure == failure }
        #expect(refused.count > 100 && refused.count < count)
        #expect(bench.client.inFlight == count - refused.count)
        // The other one has more work by now, and gets the next nevertheless.
        for index in 0..<3 {
            _ = bench.add("n\(index)")
            #expect(try await other.nextAdd().requestID.hasPrefix("n\(index)-"))
        }

        try dealer.setReceiveTimeout(milliseconds: 20_000)
        for _ in 0..<(count - refused.count) { #expect(try dealer.receiveFrames(wait: true)?.first == [0]) }
        _ = bench.add("again", prompt: prompt, rank: 0)
        let frames = try #require(try dealer.receiveFrames(wait: true))
        #expect(frames.first == [0] && String(decoding: frames[1].prefix(12), as: UTF8.self).contains("again-"))
        await bench.client.shutdown()
        await other.stop()
    }
}
