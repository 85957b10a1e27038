import EngineProtocol

/// Where the outputs of one group of requests are delivered: in practice one per event loop.
///
/// The engine client decodes a message once, groups outputs by inbox and calls ``deliver(_:)`` **once** per inbox for all
/// messages at hand. The implementation hops to its event loop with one task for the whole batch.
package protocol OutputInbox: AnyObject, Sendable {
    func deliver(_ batch: [Delivery])

    /// Lets go of receivers whose requests are over, when everything delivered before this call has been handed out. An
    /// inbox that hands out its batches at once need not do anything.
    func release(_ receivers: [any RequestReceiver])

    /// An empty array for the next batch, with the memory of an earlier one if there is such an array.
    func spareBatch() -> [Delivery]
}

extension OutputInbox {
    package func spareBatch() -> [Delivery] { [] }
    package func release(_ receivers: [any RequestReceiver]) {}
}

/// One output for one receiver.
///
/// Counting references in one thread and again in another would move the receiver's memory from core to core with every
/// token. So the deliveries of a running request do not count: the registry keeps the receiver until the request is over
/// and hands it to ``OutputInbox/release(_:)`` then, behind its last delivery.
package struct Delivery: Sendable {
    private let target: ReceiverReference
    private let owned: (any RequestReceiver)?
    package let event: RequestEvent

    /// A delivery that keeps its receiver alive itself.
    package init(receiver: any RequestReceiver, event: RequestEvent) {
        target = ReceiverReference(receiver)
        owned = receiver
        self.event = event
    }

    init(borrowing target: ReceiverReference, event: RequestEvent) {
        self.target = target
        owned = nil
        self.event = event
    }

    package var receiver: any RequestReceiver { target.receiver }
}

/// A receiver whose references somebody else counts.
struct ReceiverReference: @unchecked Sendable {
    /// The two words of the existential: object and witness table.
    private let words: (UInt, UInt)

    init(_ receiver: any RequestReceiver) {
        // The coercion keeps the compiler from passing the object inside instead of the existential.
        words = unsafeBitCast(receiver as any RequestReceiver, to: (UInt, UInt).self)
    }

    var receiver: any RequestReceiver { unsafeBitCast(words, to: (any RequestReceiver).self) }
}

package enum RequestEvent: Sendable {
    /// New tokens; the last one has a finish reason. `timestamp` is the engine's monotonic clock.
    case output(EngineCoreOutput, timestamp: Double)
    /// The request ended without a final output: engine death, shutdown, or a failed send.
    case failed(EngineFailure)
}

/// The streaming state of one sequence. Its methods are called on the owning inbox's event loop only.
package protocol RequestReceiver: AnyObject, Sendable {
    func receive(_ event: RequestEvent)
}

/// Why a request, or the whole client, failed. vLLM's split: `engineDead` ends the server, `requestFailed` one request.
package enum EngineFailure: Error, Sendable, Equatable {
    /// vLLM: `EngineDeadError`.
    case engineDead(reason: String)
    /// vLLM: `EngineGenerateError`.
    case requestFailed(reason: String)
    /// The engine is alive but has not got on for longer than the operator lets requests wait.
    case engineHung(reason: String)
    /// The engine leaves so much unread that nothing more is queued for it.
    case engineBehind(reason: String)
    /// The frontend is shutting down.
    case shuttingDown
}

/// Names a running request; valid until its last event was delivered, harmless afterwards.
package struct RequestHandle: Sendable, Hashable {
    package let slot: UInt32
    package let generation: UInt32
    package init(slot: UInt32, generation: UInt32) {
        self.slot = slot
        self.generation = generation
    }
}

/// What the engines said about themselves when they registered (minimum or sum over engines where they differ).
package struct EngineInformation: Sendable, Equatable {
    package var maxModelLength: Int
    package var numGPUBlocks: Int
    package var blockSize: Int
    package var dtype: String
    package var vllmVersion: String
    package var maxNumSeqs: Int
    package var maxNumBatchedTokens: Int
    package var worldSize: Int
    /// LoRA adapters that each engine can hold at once; 0 = they support none.
    package var maxLoRAs: Int
    package var engineCount: Int
    /// All of them answer the utility call `heartbeat` at any time.
    package var answersHeartbeat = false
    /// All of them can keep answers to a grammar.
    package var supportsStructuredOutputs = true
    /// Seconds that the slowest engine took to load the model; nil if they do not say.
    package var loadSeconds: Double?
    /// The engines' ranks.
    package var ranks: Range<Int>
    /// - Parameter ranks: nil = from 0 on.
    package init(
        maxModelLength: Int, numGPUBlocks: Int, blockSize: Int, dtype: String, vllmVersion: String, maxNumSeqs: Int,
        maxNumBatchedTokens: Int, worldSize: Int, maxLoRAs: Int, engineCount: Int, ranks: Range<Int>? = nil
    ) {
        self.maxModelLength = maxModelLength
        self.numGPUBlocks = numGPUBlocks
        self.blockSize = blockSize
        self.dtype = dtype
        self.vllmVersion = vllmVersion
        self.maxNumSeqs = maxNumSeqs
        self.maxNumBatchedTokens = maxNumBatchedTokens
        self.worldSize = worldSize
        self.maxLoRAs = maxLoRAs
        self.engineCount = engineCount
        self.ranks = ranks ?? 0..<engineCount
    }
}

package enum EngineClientState: Sendable, Equatable {
    case waitingForEngines
    case ready(EngineInformation)
    case dead(reason: String)
    case closed
}

/// What the server layer may ask of the engines. `EngineClient` implements it; tests use a scripted double.
package protocol EngineConnection: AnyObject, Sendable {
    var state: EngineClientState { get }

    /// Sends one request. Thread-safe, never blocks; the id of `request` is replaced by `<id>-<slot/generation suffix>`
    /// only as far as the registry needs it. Every accepted request gets exactly one last event.
    func add(_ request: EngineCoreRequest, inbox: any OutputInbox, receiver: any RequestReceiver) -> RequestHandle

    /// Stops a request: the engine is told, and no further event is delivered for it. Harmless for finished ones.
    func abort(_ handle: RequestHandle)

    /// Calls `method` on every engine, or on that of `rank`. `arguments` is one msgpack array. The completion runs once,
    /// on the client's event loop.
    func callUtility(
        _ method: String, arguments: [UInt8], rank: Int?,
        completion: @escaping @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void)

    /// Engines that are alive and do nothing: as long as there are others, requests go to those.
    func markHung(_ ranks: Set<Int>)

    /// Ends the requests that were given to one engine, and tells it so.
    func failRequests(rank: Int, _ failure: EngineFailure)

    /// Messages that engines have sent so far: it grows while they get on.
    var messagesReceived: UInt64 { get }

    /// Number of unfinished requests of this frontend.
    var inFlight: Int { get }

    /// Sets who hears about scheduler statistics (called on the client's event loop).
    func onSchedulerStats(_ observer: @escaping @Sendable (_ engine: Int, _ stats: SchedulerStats) -> Void)

    /// Sets who hears about state changes (called on the client's event loop).
    func onStateChange(_ observer: @escaping @Sendable (EngineClientState) -> Void)
}

extension EngineConnection {
    /// Calls `method` on every engine.
    package func callUtility(
        _ method: String, arguments: [UInt8],
        completion: @escaping @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void
    ) { callUtility(method, arguments: arguments, rank: nil, completion: completion) }
}
