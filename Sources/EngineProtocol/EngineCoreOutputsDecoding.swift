import MessagePack

/// The frames of one multipart message; frame 0 is the payload, later ones hold large arrays.
package protocol FrameSource: AnyObject {
    var count: Int { get }
    /// Valid for `0..<count`, and as long as the message is kept.
    subscript(index: Int) -> UnsafeRawBufferPointer { get }
}

/// An `EngineCoreOutputs` message read in place, in two steps: this view checks the framing of the whole message and
/// decodes all but the outputs; ``EngineCoreOutputReader`` then decodes those one by one.
///
/// Tolerant as an engine of another version needs it: 2 elements or more, later ones than known are passed over.
package struct EngineCoreOutputsView {
    package private(set) var engineIndex = 0
    package private(set) var outputCount = 0
    package private(set) var schedulerStats: SchedulerStats?
    package private(set) var timestamp = 0.0
    package private(set) var utilityOutput: UtilityOutput?
    package private(set) var finishedRequests: [String]?
    package private(set) var waveComplete: Int?
    package private(set) var startWave: Int?
    package private(set) var weightVersion: String?
    /// Stands at the first output; good for ``outputCount`` of them.
    package private(set) var outputs: MessagePackReader

    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        let count = try reader.readArrayHeader()
        guard count >= 2 else { throw MessagePackError(.invalid("EngineCoreOutputs of \(count) elements"), offset: 0) }
        engineIndex = try reader.readInt()
        outputCount = try reader.readArrayHeader()
        outputs = reader
        try reader.skip(outputCount)
        for position in 2..<count {
            if try reader.skipNil() { continue }
            switch position {
            case 2: schedulerStats = try SchedulerStats(decoding: &reader)
            case 3: timestamp = try reader.readDouble()
            case 4: utilityOutput = try UtilityOutput(decoding: &reader)
            case 5: finishedRequests = try reader.readArray { r throws(MessagePackError) in try r.readString() }
            case 6: waveComplete = try reader.readInt()
            case 7: startWave = try reader.readInt()
            case 8: weightVersion = try reader.readString()
            default: try reader.skip()
            }
        }
        try reader.requireEnd()
    }
}

/// Decodes single outputs of a message.
package struct EngineCoreOutputReader {
    private let family: ProtocolFamily

    package init(family: ProtocolFamily) { self.family = family }

    /// Decodes the output at the cursor, except for its id, and moves behind it.
    ///
    /// On an error the cursor is somewhere inside the output: go back to where it began and skip it.
    /// - Returns: the request id's bytes in the message.
    package func decode(
        _ reader: inout MessagePackReader, frames: any FrameSource, into output: inout EngineCoreOutput
    ) throws(MessagePackError) -> UnsafeRawBufferPointer {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count >= 2 else {
            throw MessagePackError(.invalid("EngineCoreOutput of \(count) elements"), offset: start)
        }
        let id = try reader.readStringBytes()
        let tokenCount = try reader.readArrayHeader()
        if tokenCount == 1 {
            output.tokens = TokenIDs(try reader.readInt32())
        } else if tokenCount > 1 {
            var ids: [Int32] = []
            ids.reserveCapacity(min(tokenCount, 64))
            for _ in 0..<tokenCount { ids.append(try reader.readInt32()) }
            output.tokens = TokenIDs(ids)
        }
        var next = 2
        while true {
            next += reader.skipNils(limit: count - next)
            if next == count { break }
            let position = next
            next += 1
            // Positions after 8 are those of 0.28 and later here.
            switch position >= 9 && !family.hasECTransferParams ? position + 1 : position {
            case 2: output.newLogprobs = try LogprobRows(decoding: &reader, frames: frames)
            case 3: output.newPromptLogprobs = try LogprobRows(decoding: &reader, frames: frames)
            case 4: output.poolingOutput = try EngineArray(decoding: &reader, frames: frames)
            case 5:
                let value = try reader.readInt()
                guard let reason = FinishReason(rawValue: value) else {
                    throw MessagePackError(.invalid("unknown finish reason \(value)"), offset: reader.offset)
                }
                output.finishReason = reason
            case 6:
                if try reader.peekType() == .string {
                    output.stopReason = .text(try reader.readString())
                } else {
                    output.stopReason = .token(try reader.readInt())
                }
            case 7: output.events = try EngineCoreEvent.readList(&reader)
            case 8: output.kvTransferParams = [UInt8](try reader.readRaw())
            case 9: output.ecTransferParams = [UInt8](try reader.readRaw())
            case 11: output.prefillStats = try PrefillStats(decoding: &reader)
            case 10: output.traceHeaders = try EngineCoreRequest.readTraceHeaders(&reader)
            case 12: output.routedExperts = try EngineArray(decoding: &reader, frames: frames)
            case 13:
                // Every full output has it.
                let count = try reader.readInt()
                if count != 0 { output.numNaNsInLogits = count }
            case 14:
                output.mmCacheMissHashes = try reader.readArray { r throws(MessagePackError) in try r.readString() }
            case 15: output.newSamplingMask = try SamplingMask(decoding: &reader, frames: frames)
            case 16: output.specDecodeMetrics = try RequestSpecDecodeMetrics(decoding: &reader)
            case 17: output.promptTokenIDLogprobs = try EngineArray(decoding: &reader, frames: frames)
            case 18: output.error = try EngineRequestError(decoding: &reader)
            default: try reader.skip()
            }
        }
        return id
    }

    /// The request id of the output at the cursor, if that much can be read, for naming who a broken output belonged to.
    package static func requestID(at reader: MessagePackReader) -> UnsafeRawBufferPointer? {
        var reader = reader
        guard let count = try? reader.readArrayHeader(), count > 0 else { return nil }
        return try? reader.readStringBytes()
    }
}

extension EngineCoreOutputs {
    /// Decodes a whole message into values: for tests and control traffic.
    package init(decoding frames: any FrameSource, family: ProtocolFamily) throws(MessagePackError) {
        guard frames.count > 0 else { throw MessagePackError(.truncated, offset: 0) }
        let view = try EngineCoreOutputsView(decoding: frames[0])
        let decoder = EngineCoreOutputReader(family: family)
        engineIndex = view.engineIndex
        schedulerStats = view.schedulerStats
        timestamp = view.timestamp
        utilityOutput = view.utilityOutput
        finishedRequests = view.finishedRequests
        waveComplete = view.waveComplete
        startWave = view.startWave
        weightVersion = view.weightVersion
        var reader = view.outputs
        for _ in 0..<view.outputCount {
            var output = EngineCoreOutput()
            let start = reader.offset
            let id = try decoder.decode(&reader, frames: frames, into: &output)
            guard let text = String(validating: id, as: UTF8.self) else {
                throw MessagePackError(.invalidUTF8, offset: start)
            }
            output.requestID = text
            outputs.append(output)
        }
    }
}

extension UtilityOutput {
    /// `[call_id, failure_message, [type hint, value]]`
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count >= 1 else { throw MessagePackError(.invalid("empty utility output"), offset: start) }
        self.init(callID: try reader.readBits64(), failureMessage: nil, result: nil)
        for position in 1..<count {
            if try reader.skipNil() { continue }
            switch position {
            case 1: failureMessage = try reader.readString()
            case 2:
                let elements = try reader.readArrayHeader()
                guard elements == 2 else {
                    throw MessagePackError(.invalid("utility result of \(elements) elements"), offset: reader.offset)
                }
                // The type hint is only used with Python's insecure serialisation, which never reaches us.
                try reader.skip()
                if try !reader.skipNil() { result = [UInt8](try reader.readRaw()) }
            default: try reader.skip()
            }
        }
    }
}

extension EngineCoreEvent {
    /// Events are maps; arrays of `[type, timestamp]` are accepted. Unknown kinds are left out.
    static func readList(_ reader: inout MessagePackReader) throws(MessagePackError) -> [EngineCoreEvent] {
        let count = try reader.readArrayHeader()
        var events: [EngineCoreEvent] = []
        events.reserveCapacity(min(count, 4))
        for _ in 0..<count {
            var kind: Int?
            var timestamp = 0.0
            if try reader.peekType() == .array {
                let elements = try reader.readArrayHeader()
                for position in 0..<elements {
                    switch position {
                    case 0: kind = try reader.readInt()
                    case 1: timestamp = try reader.readDouble()
                    default: try reader.skip()
                    }
                }
            } else {
                for _ in 0..<(try reader.readMapHeader()) {
                    switch try reader.readKey() {
                    case "type": kind = try reader.readInt()
                    case "timestamp": timestamp = try reader.readDouble()
                    default: try reader.skip()
                    }
                }
            }
            if let kind = kind.flatMap(Kind.init(rawValue:)) {
                events.append(EngineCoreEvent(kind: kind, timestamp: timestamp))
            }
        }
        return events
    }
}

extension PrefillStats {
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "num_prompt_tokens": numPromptTokens = try reader.readInt()
            case "num_computed_tokens": numComputedTokens = try reader.readInt()
            case "num_cached_tokens": numCachedTokens = try reader.readInt()
            case "num_local_cached_tokens": numLocalCachedTokens = try reader.readInt()
            case "num_external_cached_tokens": numExternalCachedTokens = try reader.readInt()
            case "num_cache_creation_tokens": numCacheCreationTokens = try reader.readInt()
            default: try reader.skip()
            }
        }
    }
}

extension EngineRequestError {
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init(code: "", message: "", retryable: false)
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            switch key {
            case "code": code = try reader.readString()
            case "message": message = try reader.readString()
            case "retryable": retryable = try reader.readBool()
            default: try reader.skip()
            }
        }
    }
}
