import EngineClient
import EngineProtocol
import Glibc
import Synchronization
import Testing

/// Prints what the client pays per output message: receive, decode, look up, group, hand over. Asserts that nothing
/// is lost only. Meaningful in release builds.
@Suite(.timeLimit(.minutes(10))) struct OutputPathBenchmark {
    /// Notes the CPU time of the delivering thread.
    private final class MeasuringInbox: OutputInbox {
        private let times = Mutex<(first: Int, last: Int, batches: Int, outputs: Int)>((0, 0, 0, 0))

        func deliver(_ batch: [Delivery]) {
            var now = timespec()
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
            let nanoseconds = now.tv_sec * 1_000_000_000 + now.tv_nsec
            times.withLock { times in
                if times.batches == 0 { times.first = nanoseconds }
                times.last = nanoseconds
                times.batches += 1
                times.outputs += batch.count
            }
            if let last = batch.last, last.event.isLast {
                for delivery in batch { delivery.receiver.receive(delivery.event) }
            }
        }

        var result: (nanoseconds: Int, batches: Int, outputs: Int) {
            times.withLock { ($0.last - $0.first, $0.batches, $0.outputs) }
        }
    }

    @Test func messagesOf256Outputs() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let inbox = MeasuringInbox()
        var requests: [TestRequest] = []
        var ids: [String] = []
        for index in 0..<256 {
            requests.append(bench.add("cmpl-0123abcd-\(index)", inbox: inbox))
            ids.append(try await engine.nextAdd().requestID)
        }
        let messages = 400
        var message = ScriptedEngine.outputs(ids.map { ScriptedEngine.output($0, [123_456]) })
        message.schedulerStats = SchedulerStats()
        let frames = message.encode(family: .v0_33)
        for _ in 0..<messages { engine.sendRaw(frames) }
        engine.send(ScriptedEngine.outputs(ids.map { ScriptedEngine.output($0, [1], finish: .stop) }))
        for request in requests { _ = await request.receiver.finish() }
        let (nanoseconds, batches, outputs) = inbox.result
        #expect((1...messages + 1).contains(batches))
        #expect(outputs == (messages + 1) * 256)
        let perMessage = Double(nanoseconds) / Double(messages) / 1000
        print("client: \(perMessage) us per message of 256 outputs, \(batches) deliveries")
        await bench.client.shutdown()
        await engine.stop()
    }
}
