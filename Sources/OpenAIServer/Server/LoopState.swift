import EngineClient
import EngineProtocol
import Metrics
import NIOCore

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
    private(set) var isDelivering = false
    private var dates = HTTPDateCache()

    package init(loop: any EventLoop, recorder: Recorder) {
        self.loop = loop
        self.recorder = recorder
    }

    /// Hands a batch to its receivers with one task, whatever its size. Called by the engine-client thread.
    package func deliver(_ batch: [Delivery]) {
        loop.execute { self.dispatch(batch) }
    }

    private func dispatch(_ batch: [Delivery]) {
        isDelivering = true
        var tokens = 0
        for delivery in batch {
            if case .output(let output, _) = delivery.event {
                tokens += output.tokens.count
                if let prefill = output.prefillStats { tokens += prefill.numPromptTokens }
            }
            delivery.receiver.receive(delivery.event)
        }
        isDelivering = false
        if tokens > 0 { recorder.iteration(tokens: tokens) }
        // One write per connection, even if several of its sequences were in the batch.
        for exchange in unflushed { exchange.flushDeferred() }
        unflushed.removeAll(keepingCapacity: true)
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
