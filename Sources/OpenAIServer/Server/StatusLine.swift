import Metrics

/// The regular log line about throughput and load (vLLM: `LoggingStatLogger`).
struct StatusLine {
    private var last = MetricTotals()

    /// nil while nothing happens.
    /// - Parameter seconds: since the last call.
    mutating func next(_ totals: MetricTotals, seconds: Double) -> String? {
        defer { last = totals }
        let prompt = Double(totals.promptTokens &- last.promptTokens)
        let generation = Double(totals.generationTokens &- last.generationTokens)
        guard prompt + generation + totals.running + totals.waiting > 0, seconds > 0 else { return nil }
        let hits =
            totals.prefixQueries == 0 ? 0 : 100 * Double(totals.prefixHits) / Double(totals.prefixQueries)
        return "Avg prompt throughput: \(Self.tenths(prompt / seconds)) tokens/s, "
            + "Avg generation throughput: \(Self.tenths(generation / seconds)) tokens/s, "
            + "Running: \(Int(totals.running)) reqs, Waiting: \(Int(totals.waiting)) reqs, "
            + "KV cache usage: \(Self.tenths(100 * totals.kvCacheUsage))%, "
            + "Prefix cache hit rate: \(Self.tenths(hits))%"
    }

    private static func tenths(_ value: Double) -> String {
        guard value.isFinite, value.magnitude < 1e15 else { return "?" }
        let scaled = Int((value * 10).rounded())
        return "\(scaled / 10).\(scaled % 10)"
    }
}
