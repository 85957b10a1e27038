import EngineProtocol
import Logging
import NIOCore
import Synchronization
import ZMTP

/// The frontend's side of vLLM's engine protocol (vLLM: `AsyncMPClient` and `DPLBAsyncMPClient`).
///
/// One event loop owns every engine socket. Others hand it requests through a mailbox; it decodes each output message
/// once, in place, and hands every inbox one batch of everything at hand. Where that loop also serves the clients, an
/// engine's tokens reach their connections without a change of thread. Any thread may call the methods here; only
/// ``start()`` blocks.
///
/// What happens when things go wrong:
/// - An engine dies (its sentinel, or ``markDead(reason:)``): all requests fail with ``EngineFailure/engineDead(reason:)``,
///   new ones at once too. When all engines register again (a supervisor restarted them) the client is ready again.
/// - An engine registers again with another instance id: its requests fail, the others go on.
/// - A malformed output fails its request and aborts it in the engine; a message whose framing is broken fails the requests
///   whose ids can still be read and is dropped. Either costs one log line.
/// - Failed start-up (an engine with an unexpected rank, an unusable registration, the timeout) is final: ``state`` is
///   dead and stays so.
package final class EngineClient: EngineConnection {
    package let configuration: EngineClientConfiguration
    private let shared = ClientShared()
    private let eventLoop: any EventLoop
    private let logger: Logger

    package init(
        configuration: EngineClientConfiguration, eventLoop: any EventLoop, logger: Logger
    ) throws(ZMTPError) {
        guard configuration.isValid else { throw ZMTPError("engine ranks or clients outside 0..<65536") }
        self.configuration = configuration
        self.eventLoop = eventLoop
        self.logger = logger
    }

    deinit {
        _ = shared.mailbox.post(.shutdown(drainTimeout: .zero, completion: {}))
    }

    /// Opens the sockets and begins to serve them. Call it once, and not on an event loop.
    /// - Returns: where the sockets are bound, for engines to connect to.
    @discardableResult
    package func start() throws(ZMTPError) -> (input: String, output: String) {
        let sockets = ClientSockets(configuration, eventLoop)
        let core = ClientCore(
            configuration: configuration, sockets: sockets, shared: shared, eventLoop: eventLoop, logger: logger)
        // Nothing that engines send can come before this: it runs before any connection can be accepted.
        eventLoop.execute { core.start() }
        let input = try sockets.input.open(configuration.input)
        let output = try sockets.output.open(configuration.output)
        return (input, output)
    }

    // MARK: - EngineConnection

    package var state: EngineClientState { shared.state.withLock { $0 } }
    package var messagesReceived: UInt64 { shared.messages.load(ordering: .relaxed) }
    package var inFlight: Int { shared.inFlight.load(ordering: .relaxed) }

    /// The family that the engines speak; nil until they registered.
    package var protocolFamily: ProtocolFamily? {
        ProtocolFamily(rawValue: shared.family.load(ordering: .relaxed))
    }

    /// A request that cannot be accepted any more fails before this returns, on the calling thread.
    @discardableResult
    package func add(
        _ request: EngineCoreRequest, inbox: any OutputInbox, receiver: any RequestReceiver
    ) -> RequestHandle {
        shared.inFlight.add(1, ordering: .relaxed)
        switch shared.mailbox.add(PendingRequest(request: request, inbox: inbox, receiver: receiver)) {
        case .accepted(let handle): return handle
        case .full: refuse(receiver, inbox, .requestFailed(reason: "too many requests in flight"))
        case .closed: refuse(receiver, inbox, .shuttingDown)
        }
        return RequestHandle(slot: .max, generation: 0)
    }

    private func refuse(_ receiver: any RequestReceiver, _ inbox: any OutputInbox, _ failure: EngineFailure) {
        shared.inFlight.subtract(1, ordering: .relaxed)
        inbox.deliver([Delivery(receiver: receiver, event: .failed(failure))])
    }

    /// Events that were handed to the inbox before this call may still arrive after it.
    package func abort(_ handle: RequestHandle) { _ = shared.mailbox.post(.abort(handle)) }

    package func callUtility(
        _ method: String, arguments: [UInt8], rank: Int?,
        completion: @escaping @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void
    ) {
        if !shared.mailbox.post(.utility(method, arguments, rank: rank, completion)) {
            completion(.failure(.shuttingDown))
        }
    }

    package func markHung(_ ranks: Set<Int>) { _ = shared.mailbox.post(.markHung(ranks)) }

    package func failRequests(rank: Int, _ failure: EngineFailure) {
        _ = shared.mailbox.post(.failRequests(rank: rank, failure))
    }

    package func onSchedulerStats(_ observer: @escaping @Sendable (_ engine: Int, _ stats: SchedulerStats) -> Void) {
        _ = shared.mailbox.post(.observeStats(observer))
    }

    /// Sets who hears how many tokens each step of an engine has read or made (called on the client's event loop).
    package func onIteration(_ observer: @escaping @Sendable (_ engine: Int, _ tokens: Int) -> Void) {
        _ = shared.mailbox.post(.observeIterations(observer))
    }

    /// The observer hears the present state first.
    package func onStateChange(_ observer: @escaping @Sendable (EngineClientState) -> Void) {
        if !shared.mailbox.post(.observeState(observer)) { observer(.closed) }
    }

    // MARK: - Life

    /// Waits until all engines registered, or start-up failed.
    package func waitUntilReady() async throws(EngineFailure) -> EngineInformation {
        let result = await withCheckedContinuation { continuation in
            if !shared.mailbox.post(.awaitReady { continuation.resume(returning: $0) }) {
                continuation.resume(returning: .failure(EngineFailure.shuttingDown))
            }
        }
        return try result.get()
    }

    /// Tells the client that an engine process ended: a killed engine sends no sentinel.
    package func markDead(reason: String) { _ = shared.mailbox.post(.engineDied(reason: reason)) }

    /// Refuses new requests, waits up to `drainTimeout` for running ones, fails and aborts the rest with
    /// ``EngineFailure/shuttingDown``, closes the sockets and then calls `completion` once. A second call can only make
    /// the wait shorter.
    package func shutdown(drainTimeout: Duration, completion: @escaping @Sendable () -> Void) {
        if !shared.mailbox.post(.shutdown(drainTimeout: drainTimeout, completion: completion)) { completion() }
    }

    package func shutdown(drainTimeout: Duration = .zero) async {
        await withCheckedContinuation { continuation in
            shutdown(drainTimeout: drainTimeout) { continuation.resume() }
        }
    }
}

/// What the client and its core share.
final class ClientShared: Sendable {
    let mailbox = Mailbox()
    let state = Mutex(EngineClientState.waitingForEngines)
    let inFlight = Atomic(0)
    let messages = Atomic<UInt64>(0)
    /// Raw value of the family; 0 = not known yet.
    let family = Atomic(0)
}

/// The sockets that engines connect to.
struct ClientSockets {
    let input: ZMTPSocket
    let output: ZMTPSocket

    init(_ configuration: EngineClientConfiguration, _ eventLoop: any EventLoop) {
        input = ZMTPSocket(
            .router, on: eventLoop, maximumMessageSize: configuration.maxFrameSize,
            maximumQueuedBytes: configuration.maxQueuedBytes)
        output = ZMTPSocket(.pull, on: eventLoop, maximumMessageSize: configuration.maxFrameSize)
    }
}
