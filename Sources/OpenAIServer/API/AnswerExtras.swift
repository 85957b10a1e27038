import EngineProtocol
import JSONBytes
import MessagePack
import NIOCore

/// Members of an answer that come from the engine, and have nothing to do with its text.
extension GenerationJob {
    /// `kv_transfer_params`, `ec_transfer_params` and `metrics`, with the comma before them.
    func appendExtras(to sink: inout ByteBuffer) {
        appendOpaque(",\"kv_transfer_params\":", kvTransferParams, to: &sink)
        appendOpaque(",\"ec_transfer_params\":", ecTransferParams, to: &sink)
        if !appendMetrics(to: &sink) { sink.appendLiteral(",\"metrics\":null") }
    }

    /// `metrics` with the comma before it, with `--enable-per-request-metrics` and where they belong to one sequence.
    /// - Returns: whether there are any.
    @discardableResult
    func appendMetrics(to sink: inout ByteBuffer) -> Bool {
        guard api.server.configuration.enablePerRequestMetrics, sequences.count == 1 else { return false }
        sequences[0].timeline.appendMetrics(tokens: sequences[0].completionTokens, to: &sink)
        return true
    }

    private func appendOpaque(_ key: StaticString, _ value: [UInt8]?, to sink: inout ByteBuffer) {
        sink.appendLiteral(key)
        guard let value, let decoded = try? MessagePackValue(decoding: value) else { return sink.appendJSONNull() }
        var json: [UInt8] = []
        decoded.appendJSON(to: &json)
        json.withUnsafeBytes { sink.appendBytes($0) }
    }
}

extension SequenceTimeline {
    /// The times of one sequence in milliseconds (vLLM: `PerRequestMetrics`), by the engine's clock; null where it tells
    /// none.
    func appendMetrics(tokens: Int, to sink: inout ByteBuffer) {
        func milliseconds(_ from: Double?, _ to: Double?) -> Double? {
            guard let from, let to, to >= from else { return nil }
            return (to - from) * 1000
        }
        let generation = milliseconds(firstToken, lastToken)
        let inference = milliseconds(scheduled, lastToken)
        let members: [(StaticString, Double?)] = [
            (",\"metrics\":{\"time_to_first_token_ms\":", milliseconds(scheduled, firstToken)),
            (",\"generation_time_ms\":", generation),
            (",\"queue_time_ms\":", milliseconds(queued, scheduled)),
            (",\"mean_itl_ms\":", tokens > 1 ? generation.map { $0 / Double(tokens - 1) } : nil),
            (
                ",\"tokens_per_second\":",
                inference.flatMap { $0 > 0 ? Double(tokens) / $0 * 1000 : nil }
            ),
        ]
        for (key, value) in members {
            sink.appendLiteral(key)
            if let value { sink.appendJSONDouble(value) } else { sink.appendJSONNull() }
        }
        sink.appendLiteral(",\"speculative_decoding\":null}")
    }
}
