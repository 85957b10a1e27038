import MessagePack

/// First frame after the identity on the input socket (vLLM: `EngineCoreRequestType`).
package enum EngineRequestType: UInt8, Sendable {
    case add = 0
    case abort = 1
    /// Sent by a data-parallel coordinator only.
    case startDataParallelWave = 2
    case utility = 3
}

extension EngineCoreRequest {
    /// Appends the positional array with every field of `family`.
    ///
    /// `requestID`, `clientIndex` and `currentWave` may be given apart, so that a sender need not copy the request.
    package func encode(
        into output: inout [UInt8], family: ProtocolFamily, requestID: String? = nil, clientIndex: Int? = nil,
        currentWave: Int? = nil
    ) {
        let length = family.requestLength
        output.packArrayHeader(length)
        output.pack(requestID ?? self.requestID)
        output.pack(promptTokenIDs)
        output.packNil()  // 2 mm_features
        samplingParams.encode(into: &output, family: family)
        output.packNil()  // 4 pooling_params
        output.pack(arrivalTime)
        output.packNil()  // 6 lora_request
        output.pack(optional: cacheSalt)
        output.pack(optional: dataParallelRank)
        output.packNil()  // 9 prompt_embeds
        output.packNil()  // 10 prompt_is_token_ids
        output.pack(clientIndex ?? self.clientIndex)
        output.pack(currentWave ?? self.currentWave)
        output.pack(priority)
        if let traceHeaders {
            output.packMapHeader(traceHeaders.count)
            for (name, value) in traceHeaders {
                output.pack(name)
                output.pack(value)
            }
        } else {
            output.packNil()
        }
        output.pack(false)  // 15 resumable
        output.pack(optional: externalRequestID)
        output.pack(optional: reasoningEnded)
        output.packNil()  // 18 reasoning_parser_kwargs
        output.pack(false)  // 19 abort_immediately
        if length > 20 { output.pack(optional: sessionID) }
        if length > 21 { output.packNil() }  // 21 kv_hints
    }

    /// Decodes an ADD as an engine would: at least the nine required fields, missing later ones default, further ones
    /// are ignored. Fields this type does not have (multimodal, pooling, LoRA …) are passed over.
    package init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count >= 9 else {
            throw MessagePackError(.invalid("EngineCoreRequest has only \(count) of 9 required fields"), offset: start)
        }
        let id = try reader.readString()
        let prompt = try reader.readOptional { r throws(MessagePackError) in
            try r.readArray { r throws(MessagePackError) in try r.readInt32() }
        }
        try reader.skip()
        let params = try reader.readOptional { r throws(MessagePackError) in try SamplingParams(decoding: &r) }
        try reader.skip()
        self.init(
            requestID: id, promptTokenIDs: prompt ?? [], samplingParams: params ?? SamplingParams(),
            arrivalTime: try reader.readDouble())
        for position in 6..<count {
            if try reader.skipNil() { continue }
            switch position {
            case 7: cacheSalt = try reader.readString()
            case 8: dataParallelRank = try reader.readInt()
            case 11: clientIndex = try reader.readInt()
            case 12: currentWave = try reader.readInt()
            case 13: priority = try reader.readInt()
            case 14: traceHeaders = try Self.readTraceHeaders(&reader)
            case 16: externalRequestID = try reader.readString()
            case 17: reasoningEnded = try reader.readBool()
            case 20: sessionID = try reader.readString()
            default: try reader.skip()
            }
        }
    }
}

extension EngineCoreRequest {
    static func readTraceHeaders(_ reader: inout MessagePackReader) throws(MessagePackError) -> [(String, String)] {
        var headers: [(String, String)] = []
        for _ in 0..<(try reader.readMapHeader()) {
            headers.append((try reader.readString(), try reader.readString()))
        }
        return headers
    }
}

/// Request ids that an engine should stop (the payload of ``EngineRequestType/abort``).
package enum AbortRequest {
    package static func encode(_ ids: some Collection<String>, into output: inout [UInt8]) {
        output.packArrayHeader(ids.count)
        for id in ids { output.pack(id) }
    }

    package static func decode(_ reader: inout MessagePackReader) throws(MessagePackError) -> [String] {
        try reader.readArray { r throws(MessagePackError) in try r.readString() }
    }
}

/// A call of an engine method (the payload of ``EngineRequestType/utility``).
package struct UtilityCall: Sendable, Equatable {
    package var clientIndex: Int
    /// Opaque: Rust counts, Python sends random 64-bit values; the answer repeats it.
    package var callID: UInt64
    package var method: String
    /// One msgpack array.
    package var arguments: [UInt8]

    package init(clientIndex: Int, callID: UInt64, method: String, arguments: [UInt8]) {
        self.clientIndex = clientIndex
        self.callID = callID
        self.method = method
        self.arguments = arguments
    }

    package func encode(into output: inout [UInt8]) {
        output.packArrayHeader(4)
        output.pack(clientIndex)
        output.pack(unsigned: callID)
        output.pack(method)
        output.append(contentsOf: arguments)
    }

    package init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count >= 4 else { throw MessagePackError(.invalid("utility call of \(count) elements"), offset: start) }
        clientIndex = try reader.readInt()
        callID = try reader.readBits64()
        method = try reader.readString()
        guard try reader.peekType() == .array else {
            throw MessagePackError(.invalid("utility arguments are not an array"), offset: reader.offset)
        }
        arguments = [UInt8](try reader.readRaw())
        try reader.skip(count - 4)
    }
}

extension [UInt8] {
    mutating func pack(optional value: String?) {
        if let value { pack(value) } else { packNil() }
    }
    mutating func pack(optional value: Int?) {
        if let value { pack(value) } else { packNil() }
    }
    mutating func pack(optional value: Bool?) {
        if let value { pack(value) } else { packNil() }
    }
    mutating func pack(optional value: Double?) {
        if let value { pack(value) } else { packNil() }
    }
    mutating func pack(key: StaticString) {
        pack(utf8: UnsafeRawBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
    }

    /// Whether these bytes are exactly one msgpack value of the given kind.
    package func isSingleMessagePackValue(_ type: MessagePackType) -> Bool {
        let valid = try? MessagePackReader.read(self) { r throws(MessagePackError) in
            let found = try r.peekType()
            try r.skip()
            return r.isAtEnd && found == type
        }
        return valid ?? false
    }
}
