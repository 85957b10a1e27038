import FoundationEssentials
import JSONBytes

/// The raw records of a run in one file, from which every number of the report can be computed again.
///
/// JSON lines: first a header with the description of the run, its blocks and the equivalence answers' place, then one
/// line per request. Points in time are nanoseconds since the header's `epoch`; lists of times are differences, the first
/// one to the value named in `docs/measurement.md`.
package enum RawRecords {
    package static let schema = "vllm-engine.records/1"

    package struct ReadError: Error, Equatable, CustomStringConvertible {
        package let line: Int
        package let reason: String
        package var description: String { "line \(line): \(reason)" }
    }

    // MARK: - Writing

    /// - Parameter sink: receives the file in pieces of about 64 KiB.
    package static func write(_ run: MeasurementRun, to sink: ([UInt8]) throws -> Void) throws {
        let epoch = run.blocks.first?.start ?? run.requests.first?.intendedSend ?? 0
        let header = Header(
            schema: schema, epoch: epoch, requests: run.requests.count, equivalence: run.equivalence.map(\.count),
            void: run.voidReasons, description: run.description, blocks: run.blocks)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var bytes = [UInt8](try encoder.encode(header))
        bytes.append(0x0A)
        for request in run.requests + run.equivalence.flatMap({ $0 }) {
            append(request, epoch: epoch, to: &bytes)
            bytes.append(0x0A)
            if bytes.count > 65536 {
                try sink(bytes)
                bytes.removeAll(keepingCapacity: true)
            }
        }
        try sink(bytes)
    }

    private struct Header: Codable {
        let schema: String
        let epoch: Nanoseconds
        /// Lines of measured requests, then lines of each arm's equivalence answers.
        let requests: Int
        let equivalence: [Int]
        let void: [String]
        let description: RunDescription
        let blocks: [BlockRecord]
    }

    private static func append(_ request: RequestRecord, epoch: Nanoseconds, to bytes: inout [UInt8]) {
        func key(_ name: StaticString, _ bytes: inout [UInt8]) {
            bytes.appendLiteral(",\"")
            bytes.appendLiteral(name)
            bytes.appendLiteral("\":")
        }
        func number(_ name: StaticString, _ value: some FixedWidthInteger, _ bytes: inout [UInt8]) {
            key(name, &bytes)
            bytes.appendJSONInt(value)
        }
        bytes.appendLiteral("{\"arm\":")
        bytes.appendJSONInt(request.arm)
        number("block", request.block, &bytes)
        number("index", request.index, &bytes)
        number("item", request.item, &bytes)
        // Above 2^53, where many readers lose digits.
        key("seed", &bytes)
        bytes.appendJSONString(String(request.seed))
        number("intended", request.intendedSend - epoch, &bytes)
        number("sent", request.actualSend - request.intendedSend, &bytes)
        if let moment = request.firstByte { number("first_byte", moment - request.actualSend, &bytes) }
        if let moment = request.firstToken { number("first_token", moment - request.actualSend, &bytes) }
        number("end", request.end - request.actualSend, &bytes)
        if !request.chunkOffsets.isEmpty {
            key("chunks", &bytes)
            appendDifferences(request.chunkOffsets, from: 0, to: &bytes)
        }
        if !request.chunkTokens.isEmpty {
            key("chunk_tokens", &bytes)
            appendList(request.chunkTokens, to: &bytes)
        }
        number("status", request.status, &bytes)
        if let error = request.error {
            key("error", &bytes)
            bytes.appendJSONString(error.rawValue)
        }
        if let detail = request.errorDetail {
            key("error_detail", &bytes)
            bytes.appendJSONString(detail)
        }
        if let usage = request.usage {
            number("prompt_tokens", usage.promptTokens, &bytes)
            number("completion_tokens", usage.completionTokens, &bytes)
            if let cached = usage.cachedTokens { number("cached_tokens", cached, &bytes) }
        }
        number("bytes", request.bytesReceived, &bytes)
        number("reads", request.reads, &bytes)
        if let segments = request.segments { number("segments", segments, &bytes) }
        if let engine = request.engine {
            number("engine_received", engine.received - request.actualSend, &bytes)
            key("engine_steps", &bytes)
            appendDifferences(engine.steps, from: engine.received, to: &bytes)
            key("engine_step_tokens", &bytes)
            appendList(engine.stepTokens, to: &bytes)
        }
        if !request.choices.isEmpty {
            key("choices", &bytes)
            bytes.appendJSON(.array(request.choices.map(\.rawJSON)))
        }
        bytes.append(UInt8(ascii: "}"))
    }

    private static func appendDifferences(_ moments: [Nanoseconds], from start: Nanoseconds, to bytes: inout [UInt8]) {
        var last = start
        appendList(
            moments.lazy.map { moment in
                defer { last = moment }
                return moment - last
            }, to: &bytes)
    }

    private static func appendList(_ values: some Sequence<some FixedWidthInteger>, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "["))
        var first = true
        for value in values {
            if !first { bytes.append(UInt8(ascii: ",")) }
            first = false
            bytes.appendJSONInt(value)
        }
        bytes.append(UInt8(ascii: "]"))
    }

    // MARK: - Reading

    /// The run that a file holds.
    /// - Throws: `ReadError` naming the line.
    package static func read(_ bytes: [UInt8]) throws(ReadError) -> MeasurementRun {
        var lines = bytes.split(separator: 0x0A, omittingEmptySubsequences: true)[...]
        guard let first = lines.popFirst() else { throw ReadError(line: 1, reason: "the file is empty") }
        let header: Header
        do { header = try JSONDecoder().decode(Header.self, from: Data(first)) } catch {
            throw ReadError(line: 1, reason: "not the header of a \(schema) file")
        }
        guard header.schema == schema else {
            throw ReadError(line: 1, reason: "schema '\(header.schema)' is not \(schema)")
        }
        let range = -(Int64(1) << 61)...(Int64(1) << 61)
        guard header.equivalence.count <= header.description.arms.count, range.contains(header.epoch),
            header.blocks.allSatisfy({ range.contains($0.start) && range.contains($0.end) })
        else { throw ReadError(line: 1, reason: "the header contradicts itself") }
        let counts = [header.requests] + header.equivalence
        guard counts.allSatisfy({ (0...lines.count).contains($0) }), counts.reduce(0, +) == lines.count else {
            throw ReadError(
                line: bytes.isEmpty ? 1 : lines.count + 1, reason: "the file is cut off or has lines too many")
        }
        var number = 1
        var lists: [[RequestRecord]] = []
        for count in counts {
            var list: [RequestRecord] = []
            list.reserveCapacity(count)
            for line in lines.prefix(count) {
                number += 1
                list.append(try request(Array(line), number: number, header: header))
            }
            lines = lines.dropFirst(count)
            lists.append(list)
        }
        return MeasurementRun(
            description: header.description, blocks: header.blocks, requests: lists[0],
            equivalence: Array(lists.dropFirst()),
            voidReasons: header.void)
    }

    private static func request(
        _ line: [UInt8], number: Int, header: Header
    ) throws(ReadError) -> RequestRecord {
        let value: JSONValue
        do { value = try JSONValue.parse(line) } catch {
            throw ReadError(line: number, reason: error.message)
        }
        guard let object = value.objectValue else { throw ReadError(line: number, reason: "not an object") }
        let fields = RecordFields(object: object, line: number)
        let arm = try fields.count("arm")
        guard arm < header.description.arms.count else { throw ReadError(line: number, reason: "no arm \(arm)") }
        let intended = try fields.sum(header.epoch, fields.integer("intended"))
        let sent = try fields.sum(intended, fields.integer("sent"))
        var record = RequestRecord(
            arm: arm, block: try fields.count("block"), index: try fields.count("index"),
            item: try fields.count("item"),
            seed: try fields.seed(), intendedSend: intended, actualSend: sent,
            end: try fields.sum(sent, fields.integer("end")))
        if object["first_byte"] != nil { record.firstByte = try fields.sum(sent, fields.integer("first_byte")) }
        if object["first_token"] != nil { record.firstToken = try fields.sum(sent, fields.integer("first_token")) }
        record.chunkOffsets = try fields.moments("chunks", from: 0)
        record.chunkTokens = try fields.tokens("chunk_tokens")
        record.status = try fields.count("status")
        if let name = object["error"]?.stringValue {
            guard let error = RequestFailure(rawValue: name) else {
                throw ReadError(line: number, reason: "unknown error '\(name)'")
            }
            record.error = error
        }
        record.errorDetail = object["error_detail"]?.stringValue
        if object["prompt_tokens"] != nil {
            record.usage = TokenUsage(
                promptTokens: try fields.count("prompt_tokens"),
                completionTokens: try fields.count("completion_tokens"),
                cachedTokens: object["cached_tokens"] == nil ? nil : try fields.count("cached_tokens"))
        }
        record.bytesReceived = try fields.count("bytes")
        record.reads = try fields.count("reads")
        if object["segments"] != nil { record.segments = try fields.count("segments") }
        if object["engine_received"] != nil {
            let received = try fields.sum(sent, fields.integer("engine_received"))
            record.engine = EngineStamps(
                received: received, steps: try fields.moments("engine_steps", from: received),
                stepTokens: try fields.tokens("engine_step_tokens"))
        }
        if let choices = object["choices"] {
            guard let list = choices.arrayValue else { throw ReadError(line: number, reason: "choices is not a list") }
            record.choices = list.map(ChoiceRecord.init(rawJSON:))
        }
        return record
    }
}

extension ChoiceRecord {
    fileprivate var rawJSON: JSONValue {
        .object(
            JSONObject(
                [
                    ("text", .string(text)), ("reasoning", .string(reasoning)),
                    (
                        "tool_calls",
                        .array(
                            toolCalls.map {
                                .object(JSONObject([("name", .string($0.name)), ("arguments", .string($0.arguments))]))
                            })
                    ),
                    ("finish_reason", .optional(finishReason)), ("token_ids", .array(tokenIDs.map { .number($0) })),
                    ("pieces", .array(pieces.map { .number($0) })),
                ] + (logprobs.isEmpty ? [] : [("logprobs", .string(logprobs))])))
    }

    fileprivate init(rawJSON value: JSONValue) {
        func integers(_ name: String) -> [Int] {
            value[name]?.arrayValue?.compactMap { $0.numberValue?.intValue } ?? []
        }
        self.init(
            text: value["text"]?.stringValue ?? "", reasoning: value["reasoning"]?.stringValue ?? "",
            toolCalls: (value["tool_calls"]?.arrayValue ?? []).map {
                ToolCallRecord(name: $0["name"]?.stringValue ?? "", arguments: $0["arguments"]?.stringValue ?? "")
            },
            finishReason: value["finish_reason"]?.stringValue, tokenIDs: integers("token_ids"),
            logprobs: value["logprobs"]?.stringValue ?? "",
            pieces: integers("pieces"))
    }
}
