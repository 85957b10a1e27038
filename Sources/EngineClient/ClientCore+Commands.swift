import EngineProtocol
import Logging
import MessagePack
import NIOCore
import Synchronization
import ZMTP

/// What event loops ask for.
extension ClientCore {
    /// Ids in one ABORT message.
    static let abortBatch = 1024

    func execute(_ command: Command) {
        switch command {
        case .add(let handle, let pending): add(handle, pending)
        case .abort(let handle):
            guard let slot = registry.find(handle) else { return }
            abort(slot)
        case .utility(let method, let arguments, let rank, let completion):
            callUtility(method, arguments, rank: rank, completion)
        case .markHung(let ranks): engines.markHung(ranks)
        case .failRequests(let rank, let failure): failRequests(rank: rank, failure)
        case .engineDied(let reason): enginesDied(reason)
        case .observeStats(let observer): statsObserver = observer
        case .observeIterations(let observer): iterationObserver = observer
        case .observeState(let observer):
            stateObserver = observer
            observer(shared.state.withLock { $0 })
        case .awaitReady(let waiter):
            if let information {
                waiter(.success(information))
            } else if isBroken, let deathReason {
                waiter(.failure(.engineDead(reason: deathReason)))
            } else {
                readyWaiters.append(waiter)
            }
        case .shutdown(let drainTimeout, let completion):
            let deadline = wake(in: drainTimeout)
            shutdownDeadline = shutdownDeadline.map { min($0, deadline) } ?? deadline
            // Nobody waits for engines any more.
            readyDeadline = nil
            shutdownCompletions.append(completion)
        }
    }

    // MARK: - Requests

    private func add(_ handle: RequestHandle, _ pending: PendingRequest) {
        if let failure = refusal(of: pending.request) {
            reject(handle, pending, failure)
            return
        }
        guard let family, let index = engines.choose(rank: pending.request.dataParallelRank, family: family) else {
            let rank = pending.request.dataParallelRank.map { "\($0)" } ?? "any"
            reject(handle, pending, .requestFailed(reason: "data parallel rank \(rank) is not connected"))
            return
        }
        if engines[index].isBehind {
            reject(handle, pending, isBehind(index))
            return
        }
        announceFirstRequest(engine: engines[index].rank, family: family)
        let wireID = registry.insert(handle, pending, engine: index)
        let request = pending.request
        scratch.removeAll(keepingCapacity: true)
        if request.externalRequestID == nil {
            var named = request
            named.externalRequestID = request.requestID
            named.encode(
                into: &scratch, family: family, requestID: wireID, clientIndex: configuration.clientIndex,
                currentWave: currentWave)
        } else {
            request.encode(
                into: &scratch, family: family, requestID: wireID, clientIndex: configuration.clientIndex,
                currentWave: currentWave)
        }
        engines[index].inFlight += 1
        engines[index].admittedSinceStats += 1
        if let failure = send(.add, to: index) { finish(Int(handle.slot), .failed(failure)) }
    }

    private func isBehind(_ index: Int) -> EngineFailure {
        .engineBehind(reason: "engine \(engines[index].rank) does not read what it is sent")
    }

    /// Why a request must not be sent: the last line of defence, because a real engine goes deaf or dies of some of these.
    private func refusal(of request: EngineCoreRequest) -> EngineFailure? {
        if shutdownDeadline != nil { return .shuttingDown }
        guard let information else {
            if let deathReason { return .engineDead(reason: deathReason) }
            return .requestFailed(reason: "the engines are not ready yet")
        }
        let length = request.promptTokenIDs.count
        if length == 0 { return .requestFailed(reason: "the prompt is empty") }
        if length >= information.maxModelLength {
            return .requestFailed(
                reason: "the prompt has \(length) tokens, the model's context \(information.maxModelLength)")
        }
        let maxTokens = request.samplingParams.maxTokens
        if maxTokens != .max && maxTokens > information.maxModelLength - length {
            return .requestFailed(
                reason: "prompt (\(length)) and max_tokens (\(maxTokens)) exceed the model's context of "
                    + "\(information.maxModelLength) tokens")
        }
        if request.promptTokenIDs.contains(where: { $0 < 0 }) {
            return .requestFailed(reason: "the prompt has a negative token id")
        }
        return request.samplingParams.violation().map { .requestFailed(reason: $0) }
    }

    /// Fails a request that has no slot in the registry yet.
    private func reject(_ handle: RequestHandle, _ pending: PendingRequest, _ failure: EngineFailure) {
        registry.enqueue(.failed(failure), for: pending)
        registry.released.append(handle.slot)
    }

    /// Delivers the last event of a request and forgets it.
    func finish(_ slot: Int, _ event: RequestEvent) {
        registry.enqueue(event, for: slot)
        forget(slot)
    }

    func forget(_ slot: Int) {
        engines[registry.engine(of: slot)].inFlight -= 1
        registry.remove(slot)
    }

    /// Forgets a request and tells its engine with the next batch.
    func abort(_ slot: Int) {
        engines[registry.engine(of: slot)].aborts.append(registry.wireID(of: slot))
        forget(slot)
    }

    /// Ends a request from our side.
    func failAndAbort(_ slot: Int, _ failure: EngineFailure) {
        registry.enqueue(.failed(failure), for: slot)
        abort(slot)
    }

    private func failRequests(rank: Int, _ failure: EngineFailure) {
        guard let index = engines.index(ofRank: rank) else { return }
        for slot in registry.running(on: index) { failAndAbort(slot, failure) }
    }

    func sendAborts() {
        for index in engines.indices where !engines[index].aborts.isEmpty {
            var rest = engines[index].aborts[...]
            while !rest.isEmpty {
                let batch = rest.prefix(Self.abortBatch)
                rest = rest.dropFirst(Self.abortBatch)
                scratch.removeAll(keepingCapacity: true)
                AbortRequest.encode(batch, into: &scratch)
                // Few bytes of those that the request took, which was queued: no reason to wait for the engine.
                if send(.abort, to: index, always: true) != nil {
                    // The engine is gone, and its requests with it.
                    logger.debug("abort not sent", metadata: ["engine": "\(engines[index].rank)"])
                }
            }
            engines[index].aborts.removeAll(keepingCapacity: true)
        }
    }

    /// Queues `scratch` for an engine.
    /// - Parameter always: also for an engine that does not read.
    /// - Returns: why that is not possible; nil = queued.
    func send(_ type: EngineRequestType, to index: Int, always: Bool = false) -> EngineFailure? {
        let result = withUnsafeBytes(of: type.rawValue) { type in
            scratch.withUnsafeBytes { sockets.input.send([type, $0], to: engines[index].identity, always: always) }
        }
        switch result {
        case .queued: return nil
        case .noPeer: return .requestFailed(reason: "engine \(engines[index].rank) cannot be reached")
        case .peerIsBehind:
            engines[index].isBehind = true
            let failure = isBehind(index)
            logger.error(
                "engine does not read; it is sent nothing more until it does",
                metadata: ["engine": "\(engines[index].rank)"])
            return failure
        }
    }

    /// An engine that did not read has caught up.
    func caughtUp(_ identity: [UInt8]) {
        for index in engines.indices where engines[index].identity == identity && engines[index].isBehind {
            engines[index].isBehind = false
            logger.info("engine reads again", metadata: ["engine": "\(engines[index].rank)"])
        }
    }

    // MARK: - Utility calls

    private func callUtility(
        _ method: String, _ arguments: [UInt8], rank: Int?, _ completion: @escaping UtilityCompletion
    ) {
        guard arguments.isSingleMessagePackValue(.array) else {
            completion(.failure(.requestFailed(reason: "the arguments of \(method) are not one msgpack array")))
            return
        }
        guard information != nil else {
            let failure = deathReason.map { EngineFailure.engineDead(reason: $0) }
            completion(.failure(failure ?? .requestFailed(reason: "the engines are not ready yet")))
            return
        }
        var targets = engines.indices
        if let rank {
            guard let index = engines.index(ofRank: rank) else {
                completion(.failure(.requestFailed(reason: "there is no engine \(rank)")))
                return
            }
            targets = index..<(index + 1)
        }
        let ids = utilities.begin(engines: targets, completion)
        for (index, id) in zip(targets, ids) {
            scratch.removeAll(keepingCapacity: true)
            UtilityCall(
                clientIndex: configuration.clientIndex, callID: id, method: method, arguments: arguments
            ).encode(into: &scratch)
            if let failure = send(.utility, to: index) { utilities.fail(id, failure) }
        }
    }
}
