import Synchronization

/// Which LoRA adapters the engines' requests use (vLLM: `vllm:lora_requests_info`).
///
/// A page shows what its own process heard: an engine tells one frontend at a time. Adapters are known from what
/// engines tell, for this server sends no requests with adapters itself.
///
/// vLLM's Python server goes on showing series of earlier adapters, with their old times, and names adapters whose
/// requests have ended; here, as in its Rust frontend, a page has only what is so now.
final class AdapterUse: Sendable {
    /// Names of one engine that are shown, and characters of each. They bound what a broken engine can make us keep.
    private static let nameLimit = 256
    private static let lengthLimit = 256

    /// Names in alphabetical order.
    struct Names: Equatable {
        var running: [String] = []
        var waiting: [String] = []
        /// Unix time at which an engine told them.
        var time = 0.0
    }

    private struct Told {
        var byEngine: [Int: Names] = [:]
        /// What engines can hold at once; 0 = they support none.
        var maximum = 0
    }

    private let told = Mutex(Told())

    func setMaximum(_ maximum: Int) { told.withLock { $0.maximum = maximum } }

    /// - Parameters:
    ///   - running: requests by the name of their adapter.
    ///   - now: Unix time.
    func set(engine: Int, running: [String: Int], waiting: [String: Int], now: () -> Double) {
        told.withLock { told in
            // So it is after nearly every step of nearly every engine.
            if told.maximum == 0, running.isEmpty, waiting.isEmpty, told.byEngine[engine] == nil { return }
            told.byEngine[engine] = Names(running: Self.names(running), waiting: Self.names(waiting), time: now())
        }
    }

    private static func names(_ requests: [String: Int]) -> [String] {
        requests.lazy.filter { $0.value > 0 }.map(\.key).sorted().prefix(nameLimit)
            .map { String($0.prefix(lengthLimit)) }
    }

    /// Of all engines, which have no series of their own in vLLM either; nil before any has told.
    var current: (maximum: Int, names: Names?) {
        told.withLock { told in
            guard let latest = told.byEngine.values.map(\.time).max() else { return (told.maximum, nil) }
            func union(_ list: KeyPath<Names, [String]>) -> [String] {
                Set(told.byEngine.values.flatMap { $0[keyPath: list] }).sorted()
            }
            return (told.maximum, Names(running: union(\.running), waiting: union(\.waiting), time: latest))
        }
    }
}
