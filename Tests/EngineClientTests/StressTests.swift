import EngineClient
import EngineProtocol
import MessagePack
import Synchronization
import TestSupport
import Testing

/// Counts events without keeping them.
final class CountingReceiver: RequestReceiver {
    let tokens = Atomic(0)
    let lastEvents = Atomic(0)
    let afterLast = Atomic(0)

    func receive(_ event: RequestEvent) {
        if lastEvents.load(ordering: .relaxed) > 0 { afterLast.add(1, ordering: .relaxed) }
        if case .output(let output, _) = event { tokens.add(output.tokens.count, ordering: .relaxed) }
        if event.isLast { lastEvents.add(1, ordering: .relaxed) }
    }
}

@Suite(.timeLimit(.minutes(10))) struct StressTests {
    @Test func everyRequestOfManyEndsOnce() async throws {
        let bench = try TestBench { $0.engineCount = 2 }
        // Two tokens and the end, in three messages.
        let respond: @Sendable (ScriptedEngine.Incoming) -> [EngineCoreOutputs] = { message in
            guard case .add(let request) = message else { return [] }
            let id = request.requestID
            return [
                ScriptedEngine.outputs([ScriptedEngine.output(id, [1])]),
                ScriptedEngine.outputs([ScriptedEngine.output(id, [2])]),
                ScriptedEngine.outputs([ScriptedEngine.output(id, [3], finish: .stop)]),
            ]
        }
        let engines = try [0, 1].map { try bench.engine(rank: $0, respond: respond) }
        _ = try await bench.client.waitUntilReady()
        let inboxes = (0..<4).map { _ in DirectInbox() }
        let count = 10_000
        var random = SeededGenerator(seed: 11)
        var requests: [(receiver: CountingReceiver, aborted: Bool)] = []
        var handles: [RequestHandle] = []
        for index in 0..<count {
            let receiver = CountingReceiver()
            let request = EngineCoreRequest(
                requestID: "same-id", promptTokenIDs: [1], samplingParams: SamplingParams(), arrivalTime: 0)
            handles.append(bench.client.add(request, inbox: inboxes[index % 4], receiver: receiver))
            requests.append((receiver, false))
            if Int.random(in: 0..<3, using: &random) == 0 {
                let victim = Int.random(in: max(0, index - 50)...index, using: &random)
                bench.client.abort(handles[victim])
                requests[victim].aborted = true
            }
            if index % 64 == 0 { await Task.yield() }
        }
        while bench.client.inFlight > 0 { await Task.yield() }
        await bench.client.shutdown()
        var finished = 0
        for request in requests {
            let last = request.receiver.lastEvents.load(ordering: .relaxed)
            #expect(request.receiver.afterLast.load(ordering: .relaxed) == 0)
            if request.aborted {
                #expect(last <= 1)
            } else {
                #expect(last == 1)
                #expect(request.receiver.tokens.load(ordering: .relaxed) == 3)
                finished += 1
            }
        }
        #expect(finished > count / 2)
        for engine in engines { await engine.stop() }
    }

    /// Damaged messages must neither end the client nor leave a request waiting for ever.
    @Test func damagedMessages() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        var random = SeededGenerator(seed: 5)
        let requests = (0..<200).map { bench.add("request-number-\($0)") }
        var ids: [String] = []
        for _ in requests { ids.append(try await engine.nextAdd().requestID) }
        for round in 0..<2000 {
            var output = ScriptedEngine.output(ids[round % 200], [Int32(round)])
            if round % 3 == 0 {
                output.newLogprobs = LogprobRows(
                    rows: 1, columns: 70, tokenIDs: Array(repeating: 1, count: 70),
                    logprobs: Array(repeating: -1, count: 70), ranks: [1])
            }
            var message = ScriptedEngine.outputs([output, ScriptedEngine.output(ids[(round + 7) % 200], [1])])
            message.schedulerStats = SchedulerStats()
            var frames = message.encode(family: .v0_33)
            let frame = Int.random(in: 0..<frames.count, using: &random)
            let index = Int.random(in: 0..<frames[frame].count, using: &random)
            switch round % 4 {
            case 0: frames[frame][index] = UInt8.random(in: 0...255, using: &random)
            case 1: frames[frame].removeSubrange(index...)
            case 2: frames[frame].insert(0xc1, at: index)
            default: frames.removeLast(min(frames.count - 1, 1))
            }
            engine.sendRaw(frames)
        }
        engine.sendRaw([[]])
        engine.sendRaw([Array("not msgpack at all".utf8)])
        for id in ids { engine.send(id, [1], finish: .stop) }
        for request in requests {
            let last = await request.receiver.finish().last
            #expect(last?.isLast == true)
            #expect(request.receiver.lastEvents == 1)
        }
        #expect(bench.client.state.isReady)
        let good = bench.add("good")
        while true {
            let message = await engine.incoming.first { _ in true }
            if case .add(let request)? = message {
                engine.send(request.requestID, [9], finish: .stop)
                break
            }
        }
        #expect(await good.receiver.finish().tokens == [9])
        await bench.client.shutdown()
        #expect(bench.client.inFlight == 0)
        await engine.stop()
    }

    /// One broken output must not harm the others of its message.
    @Test func aBrokenOutputFailsItsRequestOnly() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let requests = ["a", "b", "c"].map { bench.add($0) }
        var ids: [String] = []
        for _ in requests { ids.append(try await engine.nextAdd().requestID) }
        var payload: [UInt8] = []
        MessagePackValue.array([
            .int(0),
            .array([
                .array([.string(ids[0]), .array([.int(1)])]),
                .array([.string(ids[1]), .array([.int(1)]), .nil, .nil, .nil, .int(77)]),
                .array([.string(ids[2]), .array([.int(1)]), .nil, .nil, .nil, .int(0)]),
            ]),
        ]).encode(into: &payload)
        engine.sendRaw([payload])
        guard case .failed(.requestFailed) = await requests[1].receiver.finish().last else {
            Issue.record("the broken output was taken")
            return
        }
        #expect(await requests[2].receiver.finish().tokens == [1])
        #expect(try await engine.nextAbort() == [ids[1]])
        engine.send(ids[0], [2], finish: .stop)
        #expect(await requests[0].receiver.finish().tokens == [1, 2])
        await bench.client.shutdown()
        await engine.stop()
    }
}
