import EngineClient
import EngineProtocol
import Synchronization

/// The engine side of a server that only renders: a context length and nothing that could generate.
final class NoEngine: EngineConnection {
    let inFlight = 0
    let messagesReceived: UInt64 = 0
    private let maxModelLength: Mutex<Int?>

    /// - Parameter maxModelLength: nil = the model's own, see ``adopt(contextLength:)``.
    init(maxModelLength: Int?) { self.maxModelLength = Mutex(maxModelLength) }

    /// The length that the model's configuration states, unless the operator has set one.
    /// - Returns: false when there is none at all.
    func adopt(contextLength: Int?) -> Bool {
        maxModelLength.withLock {
            if $0 == nil { $0 = contextLength }
            return $0 != nil
        }
    }

    var state: EngineClientState {
        guard let length = maxModelLength.withLock({ $0 }) else { return .waitingForEngines }
        return .ready(
            EngineInformation(
                maxModelLength: length, numGPUBlocks: 0, blockSize: 0, dtype: "", vllmVersion: "", maxNumSeqs: 0,
                maxNumBatchedTokens: 0, worldSize: 0, maxLoRAs: 0, engineCount: 0))
    }

    private static let failure = EngineFailure.requestFailed(reason: "this server has no engine")

    func add(_ request: EngineCoreRequest, inbox: any OutputInbox, receiver: any RequestReceiver) -> RequestHandle {
        inbox.deliver([Delivery(receiver: receiver, event: .failed(Self.failure))])
        return RequestHandle(slot: .max, generation: 0)
    }

    func abort(_ handle: RequestHandle) {}

    func callUtility(
        _ method: String, arguments: [UInt8], rank: Int?,
        completion: @escaping @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void
    ) { completion(.failure(Self.failure)) }

    func markHung(_ ranks: Set<Int>) {}
    func failRequests(rank: Int, _ failure: EngineFailure) {}

    func onSchedulerStats(_ observer: @escaping @Sendable (Int, SchedulerStats) -> Void) {}
    func onStateChange(_ observer: @escaping @Sendable (EngineClientState) -> Void) {}
}
