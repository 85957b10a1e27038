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
            case 4: if let poolingOutput { poolingOutput.encode(into: &payload, &auxiliary) } else { payload.packNil() }
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
            case 10:
                guard let traceHeaders else {
                    payload.packNil()
                    break
                }
                payload.packMapHeader(traceHeaders.count)
                for (name, value) in traceHeaders {
                    payload.pack(name)
                    payload.pack(value)
                }
            case 12:
                if let routedExperts { routedExperts.encode(into: &payload, &auxiliary) } else { payload.packNil() }
            case 13: payload.pack(numNaNsInLogits)
            case 14:
                if mmCacheMissHashes.isEmpty {
                    payload.packNil()
                } else {
                    payload.packArrayHeader(mmCacheMissHashes.count)
                    for hash in mmCacheMissHashes { payload.pack(hash) }
                }
            case 15:
                if let newSamplingMask { newSamplingMask.encode(into: &payload, &auxiliary) } else { payload.packNil() }
            case 16: if let specDecodeMetrics { specDecodeMetrics.encode(into: &payload) } else { payload.packNil() }
            case 17:
                if let scores = promptTokenIDLogprobs {
                    scores.encode(into: &payload, &auxiliary)
                } else {
                    payload.packNil()
                }
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
