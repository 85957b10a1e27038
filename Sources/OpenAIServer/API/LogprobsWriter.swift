import EngineProtocol
import JSONBytes

/// How log-probabilities of tokens are spelled in answers.
struct LogprobsWriter {
    let model: ServedModel
    /// Spell tokens as `token_id:N` (`return_tokens_as_token_ids`).
    let asTokenIDs: Bool
    /// How many columns of a generated token's row the request asked for, the token itself among them. A real engine fills
    /// all rows of a step up to the largest number that any of its requests asked for.
    let columns: Int

    /// - Parameters:
    ///   - logprobs: alternatives; -1 = all.
    ///   - chosen: how many tokens were asked for by their ids, which takes precedence.
    init(model: ServedModel, asTokenIDs: Bool, logprobs: Int?, chosen: Int) {
        self.model = model
        self.asTokenIDs = asTokenIDs
        let alternatives = chosen > 0 ? chosen : logprobs ?? 0
        columns = alternatives < 0 ? .max : alternatives &+ 1
    }

    /// Engines report -inf for impossible tokens; JSON has no such number and the API uses -9999.
    static func finite(_ logprob: Float) -> Double { logprob.isFinite ? max(Double(logprob), -9999) : -9999 }

    func text(of id: Int32, after context: ArraySlice<Int32>) -> String {
        asTokenIDs ? "token_id:\(id)" : model.tokenText(id, after: context)
    }

    /// The distinct columns of a row in order: the sampled token first, then the alternatives.
    private func forEachColumn(
        of rows: LogprobRows, row: Int, columns: Int, limit: Int = .max, _ body: (Int, Int32, Float) -> Void
    ) {
        let base = row * rows.columns
        let sampled = rows.tokenIDs[base]
        var count = 0
        for column in 0..<min(rows.columns, columns) where count < limit {
            let id = rows.tokenIDs[base + column]
            if column > 0, id == sampled { continue }
            body(column, id, rows.logprobs[base + column])
            count += 1
        }
    }

    // MARK: - Completions

    /// The four parallel arrays of `choices[].logprobs` on `/v1/completions`, collected token by token.
    struct CompletionArrays {
        var tokens: [UInt8] = []
        var tokenLogprobs: [UInt8] = []
        var topLogprobs: [UInt8] = []
        var offsets: [UInt8] = []

        mutating func removeAll() {
            tokens.removeAll(keepingCapacity: true)
            tokenLogprobs.removeAll(keepingCapacity: true)
            topLogprobs.removeAll(keepingCapacity: true)
            offsets.removeAll(keepingCapacity: true)
        }

        func append(to sink: inout some ByteSink) {
            func array(_ bytes: [UInt8], into sink: inout some ByteSink) {
                sink.appendLiteral("[")
                bytes.withUnsafeBytes { sink.appendBytes($0) }
                sink.appendLiteral("]")
            }
            sink.appendLiteral("{\"text_offset\":")
            array(offsets, into: &sink)
            sink.appendLiteral(",\"token_logprobs\":")
            array(tokenLogprobs, into: &sink)
            sink.appendLiteral(",\"tokens\":")
            array(tokens, into: &sink)
            sink.appendLiteral(",\"top_logprobs\":")
            array(topLogprobs, into: &sink)
            sink.appendLiteral("}")
        }
    }

    /// Adds one row; `offset` counts characters of the token strings so far.
    /// - Parameter isPrompt: a row of the prompt, of which there may be more columns than an echo shows.
    func append(
        _ rows: LogprobRows, row: Int, after context: ArraySlice<Int32>, isPrompt: Bool = false,
        to arrays: inout CompletionArrays, offset: inout Int
    ) {
        let id = rows.tokenIDs[row * rows.columns]
        let text = text(of: id, after: context)
        separate(&arrays)
        arrays.tokens.appendJSONString(text)
        arrays.tokenLogprobs.appendJSONDouble(Self.finite(rows.logprobs[row * rows.columns]))
        arrays.offsets.appendJSONInt(offset)
        arrays.topLogprobs.appendLiteral("{")
        var alternatives = AlternativesByText(capacity: rows.columns)
        forEachColumn(of: rows, row: row, columns: isPrompt ? .max : columns, limit: columns) { _, id, logprob in
            alternatives.set(self.text(of: id, after: context), logprob)
        }
        for (place, entry) in alternatives.entries.enumerated() {
            if place > 0 { arrays.topLogprobs.appendLiteral(",") }
            arrays.topLogprobs.appendJSONString(entry.text)
            arrays.topLogprobs.appendLiteral(":")
            arrays.topLogprobs.appendJSONDouble(Self.finite(entry.logprob))
        }
        arrays.topLogprobs.appendLiteral("}")
        offset += text.unicodeScalars.count
    }

    /// Adds the first prompt token, which has no probability.
    func appendFirstPromptToken(_ id: Int32, to arrays: inout CompletionArrays, offset: inout Int) {
        let text = text(of: id, after: [])
        separate(&arrays)
        arrays.tokens.appendJSONString(text)
        arrays.tokenLogprobs.appendJSONNull()
        arrays.offsets.appendJSONInt(offset)
        arrays.topLogprobs.appendJSONNull()
        offset += text.unicodeScalars.count
    }

    private func separate(_ arrays: inout CompletionArrays) {
        guard !arrays.tokens.isEmpty else { return }
        arrays.tokens.appendLiteral(",")
        arrays.tokenLogprobs.appendLiteral(",")
        arrays.topLogprobs.appendLiteral(",")
        arrays.offsets.appendLiteral(",")
    }

    // MARK: - Chat

    /// Adds one entry of `choices[].logprobs.content`.
    /// - Parameter top: how many alternatives to show; -1 = all.
    func appendChatEntry(
        _ rows: LogprobRows, row: Int, after context: ArraySlice<Int32>, top: Int, to sink: inout some ByteSink
    ) {
        let base = row * rows.columns
        // Many small pieces: an array takes them in a fraction of the time that the connection's buffer needs.
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.usualTokenBytes * (1 + min(rows.columns, top < 0 ? 32 : top)))
        bytes.appendLiteral("{")
        appendChatToken(rows.tokenIDs[base], rows.logprobs[base], after: context, sampled: true, to: &bytes)
        bytes.appendLiteral(",\"top_logprobs\":[")
        var isFirst = true
        forEachColumn(of: rows, row: row, columns: columns, limit: top < 0 ? .max : top) { _, id, logprob in
            bytes.appendLiteral(isFirst ? "{" : ",{")
            isFirst = false
            appendChatToken(id, logprob, after: context, sampled: false, to: &bytes)
            bytes.appendLiteral("}")
        }
        bytes.appendLiteral("]}")
        bytes.withUnsafeBytes { sink.appendBytes($0) }
    }

    /// Of an entry of `top_logprobs`.
    private static let usualTokenBytes = 96

    private func appendChatToken(
        _ id: Int32, _ logprob: Float, after context: ArraySlice<Int32>, sampled: Bool, to sink: inout [UInt8]
    ) {
        let shown = text(of: id, after: context)
        sink.appendLiteral("\"token\":")
        sink.appendJSONString(shown)
        sink.appendLiteral(",\"logprob\":")
        sink.appendJSONDouble(Self.finite(logprob))
        // As in vLLM the sampled token has its real bytes even when its id is shown, the alternatives have those shown.
        sink.appendLiteral(",\"bytes\":[")
        var first = true
        for byte in (sampled && asTokenIDs ? model.tokenText(id, after: context) : shown).utf8 {
            if !first { sink.append(0x2C) }
            first = false
            if byte >= 100 { sink.append(0x30 + byte / 100) }
            if byte >= 10 { sink.append(0x30 + byte / 10 % 10) }
            sink.append(0x30 + byte % 10)
        }
        sink.appendLiteral("]")
    }

    // MARK: - Tokens only

    /// Adds one entry of `choices[].logprobs.content` of `/inference/v1/generate`: ids and ranks instead of texts.
    func appendTokenEntry(_ rows: LogprobRows, row: Int, to sink: inout some ByteSink) {
        let base = row * rows.columns
        func append(_ id: Int32, _ logprob: Float, rank: Int, to sink: inout some ByteSink) {
            sink.appendLiteral("{\"token_id\":")
            sink.appendJSONInt(id)
            sink.appendLiteral(",\"logprob\":")
            sink.appendJSONDouble(Self.finite(logprob))
            sink.appendLiteral(",\"rank\":")
            sink.appendJSONInt(rank)
        }
        append(rows.tokenIDs[base], rows.logprobs[base], rank: Int(rows.ranks[row]), to: &sink)
        sink.appendLiteral(",\"top_logprobs\":[")
        var bytes: [UInt8] = []
        forEachColumn(of: rows, row: row, columns: columns) { column, id, logprob in
            if !bytes.isEmpty { bytes.appendLiteral(",") }
            append(id, logprob, rank: column == 0 ? Int(rows.ranks[row]) : column, to: &bytes)
            bytes.appendLiteral("}")
        }
        bytes.withUnsafeBytes { sink.appendBytes($0) }
        sink.appendLiteral("]}")
    }

    // MARK: - Prompt

    /// `prompt_logprobs`: null for the first token, then one object per token keyed by token id.
    func appendPromptLogprobs(_ rows: LogprobRows, prompt: [Int32], to sink: inout some ByteSink) {
        sink.appendLiteral("[null")
        for row in 0..<rows.rows {
            let context = prompt.prefix(row + 1).suffix(4)
            sink.appendLiteral(",{")
            var first = true
            var bytes: [UInt8] = []
            forEachColumn(of: rows, row: row, columns: .max) { column, id, logprob in
                if !first { bytes.appendLiteral(",") }
                first = false
                bytes.appendLiteral("\"")
                bytes.appendJSONInt(id)
                bytes.appendLiteral("\":{\"logprob\":")
                bytes.appendJSONDouble(Self.finite(logprob))
                bytes.appendLiteral(",\"rank\":")
                bytes.appendJSONInt(column == 0 ? Int(rows.ranks[row]) : column)
                bytes.appendLiteral(",\"decoded_token\":")
                bytes.appendJSONString(model.tokenText(id, after: context))
                bytes.appendLiteral("}")
            }
            bytes.withUnsafeBytes { sink.appendBytes($0) }
            sink.appendLiteral("}")
        }
        sink.appendLiteral("]")
    }
}

/// The alternatives of a token by their texts. Of several with the same text the first decides the place and the last the
/// value, as in the dictionary of vLLM's Python server.
private struct AlternativesByText {
    private(set) var entries: [(text: String, logprob: Float)] = []
    /// Of the entries behind the first few.
    private var places: [[UInt8]: Int] = [:]
    /// That many are compared with each other, which is quicker than to hash them.
    private static let few = 32

    init(capacity: Int) { entries.reserveCapacity(min(capacity, Self.few)) }

    mutating func set(_ text: String, _ logprob: Float) {
        if let place = entries.prefix(Self.few).firstIndex(where: { utf8Equal($0.text, text) }) {
            entries[place].logprob = logprob
        } else if entries.count < Self.few {
            entries.append((text, logprob))
        } else if let place = places.updateValue(entries.count, forKey: Array(text.utf8)) {
            places[Array(text.utf8)] = place
            entries[place].logprob = logprob
        } else {
            entries.append((text, logprob))
        }
    }
}
