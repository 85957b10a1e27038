import JSONBytes

/// Turns what the event loop noted into the record of a request. Runs after the block, where time does not matter.
extension RequestRecord {
    /// - Parameter keepsText: false drops texts and token ids, for runs that only want times.
    init(_ raw: RawAnswer, arm: Int, block: Int, keepsText: Bool) {
        var raw = raw
        raw.settleTokens()
        self.init(
            arm: arm, block: block, index: raw.index, item: raw.item, seed: raw.seed, intendedSend: raw.intendedSend,
            actualSend: raw.sent == 0 ? raw.dispatched : raw.sent,
            firstByte: raw.firstByte == 0 ? nil : raw.firstByte, firstToken: raw.firstToken == 0 ? nil : raw.firstToken,
            end: raw.end, chunkOffsets: raw.offsets, status: raw.status, error: raw.error,
            errorDetail: raw.errorDetail.isEmpty ? nil : String(decoding: raw.errorDetail, as: UTF8.self),
            bytesReceived: raw.bytesReceived, reads: raw.reads, segments: raw.segments)
        if raw.isEventStream {
            finishStream(raw, keepsText: keepsText)
        } else if error == nil {
            finishWhole(raw, keepsText: keepsText)
        }
    }

    private mutating func finishStream(_ raw: RawAnswer, keepsText: Bool) {
        if error == nil, !raw.sawDone { error = .incomplete }
        if raw.completionTokens > 0 || raw.promptTokens > 0 {
            usage = TokenUsage(
                promptTokens: raw.promptTokens, completionTokens: raw.completionTokens, cachedTokens: raw.cachedTokens)
        }
        if raw.tellsTokens {
            chunkTokens = raw.tokens
        } else if let usage, usage.completionTokens == raw.offsets.count {
            chunkTokens = [UInt16](repeating: 1, count: raw.offsets.count)
        }
        choices = raw.choices.map { choice in
            var result = ChoiceRecord(
                finishReason: choice.finishReason.isEmpty ? nil : String(decoding: choice.finishReason, as: UTF8.self))
            guard keepsText else { return result }
            result.text = Self.unescaped(choice.text)
            result.reasoning = Self.unescaped(choice.reasoning)
            result.tokenIDs = choice.tokenIDs
            result.pieces = Self.pieces(choice)
            result.toolCalls = Self.toolCalls(choice.toolCalls)
            result.logprobs = choice.logprobs.split(separator: 0x0A).map {
                Self.logprobs(try? JSONValue.parse(Array($0)))
            }.joined()
            return result
        }
        if choices.contains(where: { $0.finishReason == nil }), error == nil { error = .incomplete }
    }

    private mutating func finishWhole(_ raw: RawAnswer, keepsText: Bool) {
        guard status == 200 else {
            error = status == 0 ? .connect : .status
            errorDetail = String(decoding: raw.wholeBody.prefix(2048), as: UTF8.self)
            return
        }
        guard let body = try? JSONValue.parse(raw.wholeBody), let list = body["choices"]?.arrayValue else {
            error = .malformed
            errorDetail = String(decoding: raw.wholeBody.prefix(2048), as: UTF8.self)
            return
        }
        firstToken = end
        if let counts = body["usage"]?.objectValue {
            usage = TokenUsage(
                promptTokens: counts["prompt_tokens"]?.numberValue?.intValue ?? 0,
                completionTokens: counts["completion_tokens"]?.numberValue?.intValue ?? 0,
                cachedTokens: counts["prompt_tokens_details"]?["cached_tokens"]?.numberValue?.intValue)
        }
        choices = list.map { choice in
            var result = ChoiceRecord(finishReason: choice["finish_reason"]?.stringValue)
            guard keepsText else { return result }
            let message = choice["message"]
            result.text = choice["text"]?.stringValue ?? message?["content"]?.stringValue ?? ""
            result.reasoning =
                message?["reasoning"]?.stringValue ?? message?["reasoning_content"]?.stringValue ?? ""
            result.tokenIDs = (choice["token_ids"]?.arrayValue ?? []).compactMap { $0.numberValue?.intValue }
            result.logprobs = Self.logprobs(choice["logprobs"])
            result.toolCalls = (message?["tool_calls"]?.arrayValue ?? []).map { call in
                ToolCallRecord(
                    name: call["function"]?["name"]?.stringValue ?? "",
                    arguments: call["function"]?["arguments"]?.stringValue ?? "")
            }
            return result
        }
    }

    /// Chosen tokens and alternatives with their log-probabilities in thousandths, which every number format and summing
    /// order can keep, in one form for both endpoints.
    private static func logprobs(_ object: JSONValue?) -> String {
        func entry(_ token: JSONValue?, _ value: JSONValue?) -> String {
            let number = value?.numberValue.map { NumberFormat.fixed($0.doubleValue, 3) } ?? "null"
            return "\(token?.stringValue ?? "?") \(number == "-0.000" ? "0.000" : number)"
        }
        if let content = object?["content"]?.arrayValue {
            return content.map { place in
                let others = (place["top_logprobs"]?.arrayValue ?? []).map { entry($0["token"], $0["logprob"]) }
                return "\(entry(place["token"], place["logprob"])) [\(others.sorted().joined(separator: ", "))]; "
            }.joined()
        }
        let tokens = object?["tokens"]?.arrayValue ?? []
        let values = object?["token_logprobs"]?.arrayValue ?? []
        let tops = object?["top_logprobs"]?.arrayValue ?? []
        return tokens.indices.map { index in
            let others = (index < tops.count ? tops[index].objectValue?.pairs ?? [] : []).map {
                entry(.string($0.0), $0.1)
            }
            let value = index < values.count ? values[index] : nil
            return "\(entry(tokens[index], value)) [\(others.sorted().joined(separator: ", "))]; "
        }.joined()
    }

    private static func unescaped(_ contents: [UInt8]) -> String {
        if contents.isEmpty { return "" }
        guard contents.contains(UInt8(ascii: "\\")) else { return String(decoding: contents, as: UTF8.self) }
        let quoted = [UInt8(ascii: "\"")] + contents + [UInt8(ascii: "\"")]
        // Never nil for what came out of a JSON string; if it were, the bytes as they are show the fault best.
        return (try? JSONValue.parse(quoted))?.stringValue ?? String(decoding: contents, as: UTF8.self)
    }

    private static func pieces(_ choice: RawAnswer.Choice) -> [Int] {
        guard choice.text.contains(UInt8(ascii: "\\")) else { return choice.pieces.map(Int.init) }
        var start = 0
        return choice.pieces.map { length in
            let end = min(start + Int(length), choice.text.count)
            defer { start = end }
            return unescaped(Array(choice.text[start..<end])).utf8.count
        }
    }

    /// Deltas of tool calls, joined by their index.
    private static func toolCalls(_ lines: [UInt8]) -> [ToolCallRecord] {
        var calls: [ToolCallRecord] = []
        for line in lines.split(separator: 0x0A) {
            for delta in (try? JSONValue.parse(Array(line)))?.arrayValue ?? [] {
                let index = min(max(delta["index"]?.numberValue?.intValue ?? 0, 0), 1023)
                while calls.count <= index { calls.append(ToolCallRecord(name: "", arguments: "")) }
                calls[index].name += delta["function"]?["name"]?.stringValue ?? ""
                calls[index].arguments += delta["function"]?["arguments"]?.stringValue ?? ""
            }
        }
        return calls
    }
}
