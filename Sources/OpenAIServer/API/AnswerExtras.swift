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

    /// `metrics` with the comma before it, where they belong to one sequence: times with `--enable-per-request-metrics`,
    /// and what the engine tells about its speculation.
    /// - Returns: whether there are any.
    @discardableResult
    func appendMetrics(to sink: inout ByteBuffer) -> Bool {
        let showsTimes = api.server.configuration.enablePerRequestMetrics
        guard showsTimes || specDecodeMetrics != nil, sequences.count == 1 else { return false }
        let timeline = showsTimes ? sequences[0].timeline : SequenceTimeline()
        timeline.appendMetrics(tokens: sequences[0].completionTokens, to: &sink)
        sink.appendLiteral(",\"speculative_decoding\":")
        if let specDecodeMetrics { specDecodeMetrics.append(to: &sink) } else { sink.appendJSONNull() }
        sink.appendLiteral("}")
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
    /// none. The object stays open.
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
    }
}

extension RequestSpecDecodeMetrics {
    /// vLLM: `SpeculativeDecodingMetrics`.
    func append(to sink: inout some ByteSink) {
        // Counts come from the engine: no sum of them may trap.
        let steps = histogram.reduce(0.0) { $0 + Double($1) }
        let accepted = histogram.enumerated().reduce(0.0) { $0 + Double($1.offset) * Double($1.element) }
        sink.appendLiteral("{\"mean_acceptance_length\":")
        sink.appendJSONDouble(steps > 0 ? 1 + accepted / steps : 1)
        sink.appendLiteral(",\"draft_acceptance_rate\":")
        sink.appendJSONDouble(numDraftTokens > 0 ? accepted / Double(numDraftTokens) : 0)
        sink.appendLiteral(",\"acceptance_histogram\":")
        sink.appendJSONInts(histogram)
        for (key, value) in [
            (",\"num_spec_steps\":", Int(exactly: steps) ?? .max),
            (",\"num_accepted_draft_tokens\":", Int(exactly: accepted) ?? .max),
            (",\"num_draft_tokens\":", numDraftTokens), (",\"num_spec_tokens\":", numSpecTokens),
        ] as [(StaticString, Int)] {
            sink.appendLiteral(key)
            sink.appendJSONInt(value)
        }
        sink.appendLiteral(",\"per_step_accepted\":")
        if perStepAccepted.isEmpty { sink.appendJSONNull() } else { sink.appendJSONInts(perStepAccepted) }
        sink.appendLiteral(",\"per_step_drafted\":")
        if perStepAccepted.isEmpty { sink.appendJSONNull() } else { sink.appendJSONInts(perStepDrafted) }
        sink.appendLiteral("}")
    }
}

extension ByteSink {
    fileprivate mutating func appendJSONInts(_ values: [Int]) {
        appendLiteral("[")
        for (index, value) in values.enumerated() {
            if index > 0 { appendLiteral(",") }
            appendJSONInt(value)
        }
        appendLiteral("]")
    }
}
