import EngineProtocol

/// Calls that were sent to some engines and wait for all their answers.
struct UtilityCalls {
    private final class Call {
        let engines: Range<Int>
        var results: [UtilityOutput?]
        var missing: Int
        var failure: EngineFailure?
        let completion: UtilityCompletion

        init(engines: Range<Int>, completion: @escaping UtilityCompletion) {
            self.engines = engines
            results = Array(repeating: nil, count: engines.count)
            missing = engines.count
            self.completion = completion
        }
    }

    private var lastID: UInt64 = 0
    private var waiting: [UInt64: (call: Call, engine: Int)] = [:]

    /// - Returns: one call id per engine.
    mutating func begin(engines: Range<Int>, _ completion: @escaping UtilityCompletion) -> ClosedRange<UInt64> {
        let call = Call(engines: engines, completion: completion)
        let first = lastID + 1
        for engine in engines {
            lastID += 1
            waiting[lastID] = (call, engine)
        }
        return first...lastID
    }

    /// - Returns: false for an id that nobody waits for (engines also send notifications with negative ids).
    mutating func receive(_ output: UtilityOutput) -> Bool {
        guard let (call, engine) = waiting.removeValue(forKey: output.callID) else { return false }
        if let message = output.failureMessage, call.failure == nil { call.failure = .requestFailed(reason: message) }
        call.results[engine - call.engines.lowerBound] = output
        answered(call)
        return true
    }

    mutating func fail(_ id: UInt64, _ failure: EngineFailure) {
        guard let (call, _) = waiting.removeValue(forKey: id) else { return }
        if call.failure == nil { call.failure = failure }
        answered(call)
    }

    /// One failure fails the call, but only when every engine answered: a caller may rely on all having acted.
    private func answered(_ call: Call) {
        call.missing -= 1
        guard call.missing == 0 else { return }
        if let failure = call.failure {
            call.completion(.failure(failure))
        } else {
            call.completion(.success(call.results.compactMap { $0 }))
        }
    }

    /// Fails what waits for one engine, or for any.
    mutating func failAll(_ failure: EngineFailure, engine: Int? = nil) {
        let ids = waiting.filter { engine == nil || $0.value.engine == engine }.keys.sorted()
        for id in ids { fail(id, failure) }
    }
}
