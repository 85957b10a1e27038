import MessagePack

/// The engine's side of the output socket: used by scripted engines and coordinators.
extension EngineCoreOutputs {
    /// Arrays below this many bytes travel inside the payload, larger ones as frames of their own (vLLM:
    /// `VLLM_MSGPACK_ZERO_COPY_THRESHOLD`).
    package static let inlineArrayLimit = 256

    /// The frames of one message: the payload, then large arrays in the order of their indexes.
    package func encode(family: ProtocolFamily) -> [[UInt8]] {
        var payload: [UInt8] = []
        var auxiliary: [[UInt8]] = []
        payload.packArrayHeader(family.outputsLength)
        payload.pack(engineIndex)
        payload.packArrayHeader(outputs.count)
        for output in outputs { output.encode(into: &payload, auxiliary: &auxiliary, family: family) }
        if let schedulerStats { schedulerStats.encode(into: &payload) } else { payload.packNil() }
        payload.pack(timestamp)
        if let utilityOutput { utilityOutput.encode(into: &payload) } else { payload.packNil() }
        if let finishedRequests {
            payload.packArrayHeader(finishedRequests.count)
            for id in finishedRequests { payload.pack(id) }
        } else {
            payload.packNil()
        }
        payload.pack(optional: waveComplete)
        payload.pack(optional: startWave)
        if family.outputsLength > 8 { payload.pack(optional: weightVersion) }
        return [payload] + auxiliary
    }
}

extension EngineCoreOutput {
    func encode(into payload: inout [UInt8], auxiliary: inout [[UInt8]], family: ProtocolFamily) {
        let length = family.outputLength
        payload.packArrayHeader(length)
        payload.pack(requestID)
        payload.pack(newTokenIDs)
        for position in 2..<length {
            switch position >= 9 && !family.hasECTransferParams ? position + 1 : position {
            case 2:
                newLogprobs.encode(into: &payload, &auxiliary, types: ("<i4", "<f4", "<i8"), elements: 4)
            case 3:
                newPromptLogprobs.encode(
                    into: &payload, &auxiliary, types: ("int32", "float32", "int32"),
                    elements: family.promptLogprobsLength)
            case 5: payload.pack(optional: finishReason?.rawValue)
            case 6:
                switch stopReason {
                case .token(let id): payload.pack(id)
                case .text(let text): payload.pack(text)
                case nil: payload.packNil()
                }
            case 7: encodeEvents(into: &payload)
            case 8: if let kvTransferParams { payload.append(contentsOf: kvTransferParams) } else { payload.packNil() }
            case 9: if let ecTransferParams { payload.append(contentsOf: ecTransferParams) } else { payload.packNil() }
            case 11: if let prefillStats { prefillStats.encode(into: &payload) } else { payload.packNil() }
            case 13: payload.pack(0)
            case 18: if let error { error.encode(into: &payload) } else { payload.packNil() }
            default: payload.packNil()
            }
        }
    }

    private func encodeEvents(into payload: inout [UInt8]) {
        if events.isEmpty {
            payload.packNil()
            return
        }
        payload.packArrayHeader(events.count)
        for event in events {
            payload.packMapHeader(2)
            payload.pack(key: "type")
            payload.pack(event.kind.rawValue)
            payload.pack(key: "timestamp")
            payload.pack(event.timestamp)
        }
    }
}

extension UtilityOutput {
    func encode(into payload: inout [UInt8]) {
        payload.packArrayHeader(3)
        payload.pack(unsigned: callID)
        payload.pack(optional: failureMessage)
        if failureMessage != nil {
            payload.packNil()
        } else {
            payload.packArrayHeader(2)
            payload.packNil()
            if let result { payload.append(contentsOf: result) } else { payload.packNil() }
        }
    }
}

extension PrefillStats {
    func encode(into payload: inout [UInt8]) {
        payload.packMapHeader(6)
        payload.pack(key: "num_prompt_tokens")
        payload.pack(numPromptTokens)
        payload.pack(key: "num_computed_tokens")
        payload.pack(numComputedTokens)
        payload.pack(key: "num_cached_tokens")
        payload.pack(numCachedTokens)
        payload.pack(key: "num_local_cached_tokens")
        payload.pack(numLocalCachedTokens)
        payload.pack(key: "num_external_cached_tokens")
        payload.pack(numExternalCachedTokens)
        payload.pack(key: "num_cache_creation_tokens")
        payload.pack(numCacheCreationTokens)
    }
}

extension EngineRequestError {
    func encode(into payload: inout [UInt8]) {
        payload.packMapHeader(3)
        payload.pack(key: "code")
        payload.pack(code)
        payload.pack(key: "message")
        payload.pack(message)
        payload.pack(key: "retryable")
        payload.pack(retryable)
    }
}

extension LogprobRows? {
    fileprivate func encode(
        into payload: inout [UInt8], _ auxiliary: inout [[UInt8]],
        types: (ids: StaticString, logprobs: StaticString, ranks: StaticString), elements: Int
    ) {
        guard let rows = self else {
            payload.packNil()
            return
        }
        payload.packArrayHeader(elements)
        let shape = [rows.rows, rows.columns]
        Self.encodeArray(types.ids, shape, Self.bytes(rows.tokenIDs), into: &payload, &auxiliary)
        Self.encodeArray(
            types.logprobs, shape, Self.bytes(rows.logprobs.map { Int32(bitPattern: $0.bitPattern) }), into: &payload,
            &auxiliary)
        let wideRanks = types.ranks.utf8CodeUnitCount == 3
        Self.encodeArray(
            types.ranks, [rows.rows], wideRanks ? Self.bytes(rows.ranks.map { Int64($0) }) : Self.bytes(rows.ranks),
            into: &payload, &auxiliary)
        for _ in 3..<elements { payload.packNil() }
    }

    private static func bytes(_ values: [some FixedWidthInteger]) -> [UInt8] {
        values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    }

    private static func encodeArray(
        _ type: StaticString, _ shape: [Int], _ data: [UInt8], into payload: inout [UInt8],
        _ auxiliary: inout [[UInt8]]
    ) {
        payload.packArrayHeader(3)
        payload.pack(key: type)
        payload.packArrayHeader(shape.count)
        for extent in shape { payload.pack(extent) }
        if data.count < EngineCoreOutputs.inlineArrayLimit {
            data.withUnsafeBytes { payload.pack(ext: rawViewExtType, $0) }
        } else {
            auxiliary.append(data)
            payload.pack(auxiliary.count)
        }
    }
}
