import EngineClient
import EngineProtocol
import Synchronization
import Testing

/// Deliveries do not keep their receivers alive: the client does, until everything delivered has been handed out.
@Suite(.timeLimit(.minutes(10))) struct DeliveryTests {
    /// Keeps what it gets until it is told to hand it out, as a busy event loop does.
    private final class LateInbox: OutputInbox {
        private struct State {
            var batches: [[Delivery]] = []
            var released: [any RequestReceiver] = []
            var isReleased = false
        }

        private let state = Mutex(State())
        private let arrivals = AsyncStream.makeStream(of: Void.self)

        func deliver(_ batch: [Delivery]) {
            state.withLock { $0.batches.append(batch) }
            arrivals.continuation.yield()
        }

        func release(_ receivers: [any RequestReceiver]) {
            state.withLock { $0.released += receivers }
            arrivals.continuation.yield()
        }

        /// Waits for so many batches and, after them, for released receivers.
        func wait(batches: Int, released: Int) async {
            for await _ in arrivals.stream {
                if state.withLock({ $0.batches.count >= batches && $0.released.count >= released }) { return }
            }
        }

        /// - Returns: how many events were handed out.
        func handOut() -> Int {
            let batches = state.withLock { state in
                defer { state.batches = [] }
                return state.batches
            }
            for delivery in batches.joined() { delivery.receiver.receive(delivery.event) }
            return batches.joined().count
        }

        func letGo() { state.withLock { $0.released = [] } }
    }

    private final class Receiver: RequestReceiver {
        private let count: Counter
        init(_ count: Counter) {
            self.count = count
            count.alive.withLock { $0 += 1 }
        }
        deinit { count.alive.withLock { $0 -= 1 } }
        func receive(_ event: RequestEvent) { count.events.withLock { $0 += 1 } }
    }

    private final class Counter: Sendable {
        let alive = Mutex(0)
        let events = Mutex(0)
    }

    private enum End: CaseIterable { case finished, aborted, engineDied, shutDown, malformed }

    private func request(_ id: String) -> EngineCoreRequest {
        EngineCoreRequest(requestID: id, promptTokenIDs: [1], samplingParams: SamplingParams(), arrivalTime: 1)
    }

    @Test(arguments: End.allCases) private func receiversThatNobodyElseKeepsGetEverythingAndThenGo(_ end: End)
        async throws
    {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let inbox = LateInbox()
        let counter = Counter()
        // The only reference is the client's.
        let handle = bench.client.add(request("r"), inbox: inbox, receiver: Receiver(counter))
        let id = try await engine.nextAdd().requestID
        engine.send(id, [1])
        await inbox.wait(batches: 1, released: 0)
        switch end {
        case .finished: engine.send(id, [2], finish: .stop)
        case .aborted: bench.client.abort(handle)
        case .engineDied: engine.sendSentinel()
        case .shutDown: await bench.client.shutdown()
        case .malformed:
            engine.sendRaw([[0x92, 0x00, 0x91, 0x92, 0xa0 + UInt8(id.utf8.count)] + Array(id.utf8) + [0xc1]])
        }
        // An aborted request hears nothing more.
        await inbox.wait(batches: end == .aborted ? 1 : 2, released: 1)
        #expect(counter.alive.withLock { $0 } == 1)
        #expect(inbox.handOut() == (end == .aborted ? 1 : 2))
        #expect(counter.events.withLock { $0 } == (end == .aborted ? 1 : 2))
        inbox.letGo()
        #expect(counter.alive.withLock { $0 } == 0)
        await bench.client.shutdown()
        await engine.stop()
    }

    /// Refused requests have no slot that could keep their receiver.
    @Test func aRefusedRequestKeepsItsReceiverByItself() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let inbox = LateInbox()
        let counter = Counter()
        var impossible = request("r")
        impossible.promptTokenIDs = []
        _ = bench.client.add(impossible, inbox: inbox, receiver: Receiver(counter))
        await inbox.wait(batches: 1, released: 0)
        await bench.client.shutdown()
        _ = bench.client.add(request("late"), inbox: inbox, receiver: Receiver(counter))
        #expect(counter.alive.withLock { $0 } == 2)
        #expect(inbox.handOut() == 2)
        #expect(counter.events.withLock { $0 } == 2)
        #expect(counter.alive.withLock { $0 } == 0)
        await engine.stop()
    }
}
