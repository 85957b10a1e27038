import JSONBytes
import NIOCore
import Synchronization

/// What was reached when on the way to the first answer.
package final class StartupTimeline: Sendable {
    private struct State {
        var phases: [(name: String, at: Double)] = []
        var isComplete = false
        var engineLoadSeconds: Double?
    }

    /// Monotonic seconds.
    private let begin: Double
    private let state = Mutex(State())

    /// - Parameter report: `VLLM_ENGINE_STARTUP`, what our supervisor did before this process existed: the monotonic time
    ///   of its start, then `name=seconds` for each step. Without it the time counts from now.
    package init(report: String? = nil) {
        let now = MonotonicClock.now()
        let words = (report ?? "").split(separator: " ")
        guard let first = words.first.flatMap({ Double($0) }), first > 0, first <= now else {
            begin = now
            return
        }
        begin = first
        state.withLock { state in
            for word in words.dropFirst().prefix(32) {
                let parts = word.split(separator: "=", maxSplits: 1)
                if parts.count == 2, let at = Double(parts[1]), at.isFinite {
                    state.phases.append((String(parts[0]), at))
                }
            }
            state.phases.append(("frontend_started", now - begin))
        }
    }

    /// Counts the first time only.
    package func reached(_ name: String) {
        let at = MonotonicClock.now() - begin
        state.withLock { state in
            guard !state.phases.contains(where: { $0.name == name }) else { return }
            state.phases.append((name, at))
        }
    }

    /// The first engine, or all of them, can be asked from now on.
    package func complete(engineLoadSeconds: Double?) {
        reached("engine_ready")
        state.withLock { state in
            guard !state.isComplete else { return }
            state.isComplete = true
            state.engineLoadSeconds = engineLoadSeconds
        }
    }

    package var isComplete: Bool { state.withLock { $0.isComplete } }

    /// `{"state": …, "seconds": …, "engine_load_seconds": …, "phases": [{"name": …, "at_seconds": …, "took_seconds": …}]}`
    package var json: JSONObject {
        let now = MonotonicClock.now() - begin
        let state = state.withLock { $0 }
        var before = 0.0
        let phases = state.phases.sorted { $0.at < $1.at }.map { phase -> JSONValue in
            defer { before = phase.at }
            return .object(
                JSONObject([
                    ("name", .string(phase.name)), ("at_seconds", Self.rounded(phase.at)),
                    ("took_seconds", Self.rounded(phase.at - before)),
                ]))
        }
        return JSONObject([
            ("state", .string(state.isComplete ? "started" : "starting")),
            ("seconds", Self.rounded(state.isComplete ? before : now)),
            ("engine_load_seconds", state.engineLoadSeconds.map(Self.rounded) ?? .null),
            ("phases", .array(phases)),
        ])
    }

    /// Milliseconds are enough.
    private static func rounded(_ seconds: Double) -> JSONValue {
        .number((min(max(seconds, 0), 1e9) * 1000).rounded() / 1000)
    }
}
