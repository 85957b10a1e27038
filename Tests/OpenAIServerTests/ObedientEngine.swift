import EngineClient
import EngineProtocol
import OpenAIServer
import Synchronization

/// An engine whose output is forced by the request, as the recorded requests do it: the only allowed token, or the one
/// that a logit bias of 100 names. It behaves like the real one otherwise: EOS, stop ids, `min_tokens`, `max_tokens`, abort.
final class ObedientEngine: EngineConnection {
    private struct Running: Sendable {
        let request: EngineCoreRequest
        let inbox: any OutputInbox
        let receiver: any RequestReceiver
        var generated = 0
        var isFinished = false
    }

    private let running = Mutex<[Running]>([])
    let aborted = Mutex<[UInt32]>([])

    private let information: EngineInformation
    private let refusesGrammars: Bool
    private let weightVersions: [Int: String]
    private let tellsTransfers: Bool
    private let change: @Sendable (_ number: Int, _ output: inout EngineCoreOutput) -> Void

    /// - Parameters:
    ///   - refusesGrammars: it finds every grammar unusable, and as releases up to 0.32 does not say why.
    ///   - weightVersions: what the n-th output of a request says, from 1 on.
    ///   - tellsTransfers: it repeats a request's extra arguments as what it has to say about the transfer of its cache.
    ///   - change: what else the n-th output of a request says, from 1 on.
    init(
        knowsGrammars: Bool = true, refusesGrammars: Bool = false, weightVersions: [Int: String] = [:],
        tellsTransfers: Bool = false,
        change: @escaping @Sendable (_ number: Int, _ output: inout EngineCoreOutput) -> Void = { _, _ in }
    ) {
        self.change = change
        self.tellsTransfers = tellsTransfers
        self.refusesGrammars = refusesGrammars
        self.weightVersions = weightVersions
        var information = EngineInformation.tiny
        information.supportsStructuredOutputs = knowsGrammars
        self.information = information
    }

    var state: EngineClientState { .ready(information) }
    var messagesReceived: UInt64 { 0 }
    var inFlight: Int { running.withLock { $0.count { !$0.isFinished } } }
    var requests: [EngineCoreRequest] { running.withLock { $0.map(\.request) } }

    func add(_ request: EngineCoreRequest, inbox: any OutputInbox, receiver: any RequestReceiver) -> RequestHandle {
        running.withLock { running in
            running.append(Running(request: request, inbox: inbox, receiver: receiver))
            return RequestHandle(slot: UInt32(running.count - 1), generation: 0)
        }
    }

    func abort(_ handle: RequestHandle) {
        running.withLock { $0[Int(handle.slot)].isFinished = true }
        aborted.withLock { $0.append(handle.slot) }
    }

    /// One token for every running request; false when there is none.
    func step() -> Bool {
        let deliveries = running.withLock { running -> [(any OutputInbox, Delivery)] in
            var deliveries: [(any OutputInbox, Delivery)] = []
            for index in running.indices where !running[index].isFinished {
                running[index].generated += 1
                var output = Self.output(running[index].request, generated: running[index].generated)
                if refusesGrammars, running[index].request.samplingParams.structuredOutputs != nil {
                    output = EngineCoreOutput()
                    output.finishReason = .error
                }
                if tellsTransfers, let params = running[index].request.samplingParams.extraArgs {
                    output.kvTransferParams = params
                    output.ecTransferParams = [0x81, 0xa1, 0x6b, 0x01]  // {"k": 1}
                }
                output.weightVersion = weightVersions[running[index].generated]
                change(running[index].generated, &output)
                running[index].isFinished = output.finishReason != nil
                deliveries.append(
                    (
                        running[index].inbox,
                        Delivery(receiver: running[index].receiver, event: .output(output, timestamp: 1))
                    ))
            }
            return deliveries
        }
        for (inbox, delivery) in deliveries { inbox.deliver([delivery]) }
        return !deliveries.isEmpty
    }

    /// The engine dies: every running request fails.
    func die() {
        let dead = running.withLock { running in
            let dead = running.filter { !$0.isFinished }
            for index in running.indices { running[index].isFinished = true }
            return dead
        }
        for request in dead {
            request.inbox.deliver([Delivery(receiver: request.receiver, event: .failed(.engineDead(reason: "test")))])
        }
    }

    private static func output(_ request: EngineCoreRequest, generated: Int) -> EngineCoreOutput {
        let params = request.samplingParams
        let bias = params.logitBias?.first { $0.1 >= 100 }?.0
        let token = params.allowedTokenIDs?.first ?? bias ?? 766
        var output = EngineCoreOutput()
        output.requestID = request.requestID
        output.newTokenIDs = [token]
        if generated >= params.minTokens {
            if token == params.eosTokenID {
                output.finishReason = .stop
            } else if params.stopTokenIDs.contains(token) {
                output.finishReason = .stop
                output.stopReason = .token(Int(token))
            }
        }
        if output.finishReason == nil, generated >= params.maxTokens { output.finishReason = .length }
        return output
    }

    func callUtility(
        _ method: String, arguments: [UInt8], rank: Int?,
        completion: @escaping @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void
    ) { completion(.success([])) }
    func markHung(_ ranks: Set<Int>) {}
    func failRequests(rank: Int, _ failure: EngineFailure) {}
    func onSchedulerStats(_ observer: @escaping @Sendable (Int, SchedulerStats) -> Void) {}
    func onStateChange(_ observer: @escaping @Sendable (EngineClientState) -> Void) {}
}
