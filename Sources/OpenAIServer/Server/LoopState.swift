import EngineClient
import EngineProtocol
import Metrics
import NIOCore
import Synchronization

/// What belongs to one event loop: its connections, its share of the metrics, and the inbox for engine outputs.
///
/// All members but ``deliver(_:)`` are used on that loop only, which is what makes the class safe to share.
package final class LoopState: OutputInbox, @unchecked Sendable {
    package let loop: any EventLoop
    package let recorder: Recorder
    private var connections: [ObjectIdentifier: HTTPConnection] = [:]
    /// Requests of this loop that have no complete response yet.
    package private(set) var inFlight = 0
    /// Streams with something to write once the current batch has been handed out.
    private var unflushed: [HTTPExchange] = []
    /// nil where the kernel does not do it; then each connection is written with a call of its own.
    private let sends: SendBatch?
    /// The streams whose bytes the batch has, as positions in `unflushed`.
    private var batched: [Int] = []
    private(set) var isDelivering = false
    /// When the batch that is being handed out was taken, in seconds of the monotonic clock: one reading for all of it.
    private(set) var deliveryTime = 0.0
    private var dates = HTTPDateCache()
    private let arrivals = Mutex(Arrivals())
    /// Batches being handed out; swapped with the arrived ones, so that both keep their memory.
    private var batches: [[Delivery]] = []
    private var retired: [any RequestReceiver] = []

    /// What the engine client has delivered and the loop has not taken yet.
    private struct Arrivals {
        var batches: [[Delivery]] = []
        /// Receivers that nothing later than these batches is for.
        var retired: [any RequestReceiver] = []
        /// Empty, with the memory of batches that have been handed out.
        var spare: [[Delivery]] = []
        /// A task that will take them is under way.
        var isScheduled = false

        var isEmpty: Bool { batches.isEmpty && retired.isEmpty }
    }

    /// Text of the output at hand. One for all requests of the loop, so that it stays in the cache.
    var text: [UInt8] = []

    /// Deliveries after which the streams among them are written, unless some stream has several: what was appended is
    /// still in the cache then, and the first clients need not wait for the last.
    private static let deliveriesPerWrite = 64
    /// Batches whose memory is kept, and how many deliveries each may have room for.
    private static let spareBatches = 2
    private static let spareCapacity = 4096

    package init(loop: any EventLoop, recorder: Recorder) {
        self.loop = loop
        self.recorder = recorder
        sends = SendBatch()
    }

    /// Hands a batch to its receivers. Called on the engine client's loop, which may be this one and wakes it only when it
    /// is not already busy with earlier batches.
    package func deliver(_ batch: [Delivery]) {
        add { $0.batches.append(batch) }
    }

    /// What was delivered before this call may still lie in the queue: the receivers wait behind it.
    package func release(_ receivers: [any RequestReceiver]) {
        add { $0.retired.append(contentsOf: receivers) }
    }

    package func spareBatch() -> [Delivery] { arrivals.withLock { $0.spare.popLast() } ?? [] }

    private func add(_ change: (inout Arrivals) -> Void) {
        let isFirst = arrivals.withLock { arrivals in
            change(&arrivals)
            defer { arrivals.isScheduled = true }
            return !arrivals.isScheduled
        }
        if isFirst { loop.execute { self.dispatchArrivals() } }
    }

    /// Takes everything that has arrived, then writes once per connection: a loop that falls behind the engine makes up
    /// for it with fewer and larger writes. What came meanwhile gets a task of its own, so that new requests have their
    /// turn in between.
    private func dispatchArrivals() {
        arrivals.withLock { arrivals in
            swap(&arrivals.batches, &batches)
            swap(&arrivals.retired, &retired)
        }
        // With more outputs than requests there are several for some stream, and one write takes them all.
        let isOneStep = batches.count == 1 && batches[0].count <= inFlight
        for batch in batches { dispatch(batch, writing: isOneStep) }
        for index in batches.indices { batches[index].removeAll(keepingCapacity: true) }
        writeStreams()
        retired.removeAll(keepingCapacity: true)
        let isDone = arrivals.withLock { arrivals in
            while let batch = batches.popLast() {
                if arrivals.spare.count < Self.spareBatches, batch.capacity <= Self.spareCapacity {
                    arrivals.spare.append(batch)
                }
            }
            arrivals.isScheduled = !arrivals.isEmpty
            return arrivals.isEmpty
        }
        if !isDone { loop.execute { self.dispatchArrivals() } }
    }

    private func dispatch(_ batch: [Delivery], writing: Bool) {
        deliveryTime = MonotonicClock.now()
        isDelivering = true
        for (index, delivery) in batch.enumerated() {
            if writing, index % Self.deliveriesPerWrite == 0, index > 0 {
                writeStreams()
                isDelivering = true
            }
            delivery.receiver.receive(delivery.event)
        }
        isDelivering = false
    }

    /// One write per connection, even if several of its sequences were in the batches.
    private func writeStreams() {
        isDelivering = false
        if let sends, unflushed.count > 1 {
            for index in unflushed.indices where unflushed[index].flushDeferred(with: sends) {
                batched.append(index)
                if batched.count == SendBatch.capacity { send(sends) }
            }
            send(sends)
        } else {
            for exchange in unflushed { exchange.flushDeferred() }
        }
        unflushed.removeAll(keepingCapacity: true)
    }

    private func send(_ sends: SendBatch) {
        guard !batched.isEmpty else { return }
        let results = sends.submit()
        for (index, count) in zip(batched, results) { unflushed[index].sent(Int(count)) }
        batched.removeAll(keepingCapacity: true)
    }

    func date() -> String { dates.current() }
    func flushAfterDelivery(_ exchange: HTTPExchange) { unflushed.append(exchange) }

    func add(_ connection: HTTPConnection) { connections[ObjectIdentifier(connection)] = connection }
    func remove(_ connection: HTTPConnection) { connections[ObjectIdentifier(connection)] = nil }
    func requestStarted() { inFlight += 1 }
    func requestEnded() { inFlight -= 1 }

    /// Ends running requests: those with one of the ids, or all.
    package func abortRequests(ids: [String]) -> Int {
        var count = 0
        for connection in openConnections where connection.abort(ids: ids) { count += 1 }
        return count
    }

    var openConnections: [HTTPConnection] { Array(connections.values) }
    var connectionCount: Int { connections.count }
}
