import MessagePack

/// What an engine says about itself when it registers on an input socket (vLLM: `EngineCoreReadyResponse`, a map).
///
/// Fields that a family does not have keep their defaults; those that it requires are checked when decoding.
package struct EngineCoreReadyResponse: Sendable, Equatable {
    package var maxModelLength = 0
    package var numGPUBlocks = 0
    package var blockSize = 0
    package var dataParallelStatsAddress: String?
    package var dtype = ""
    package var vllmVersion = ""
    package var worldSize = 1
    package var dataParallelSize = 1
    package var kvCacheSizeTokens: Int?
    package var kvCacheMaxConcurrency: Double?
    package var tensorParallelSize = 1
    package var pipelineParallelSize = 1
    package var decodeContextParallelSize = 1
    package var dataParallelRank = 0
    package var maxNumSeqs = 0
    package var maxNumBatchedTokens = 0
    /// Differs from one engine process to the next.
    package var instanceID: String?
    /// `kv_events_config` as a msgpack map.
    package var kvEventsConfig: [UInt8]?
    package var weightTransferBackend: String?
    package var enableSleepMode = false
    package var supportsDraftWeightUpdates = false
    package var supportsLoRA = false
    package var maxLoRAs = 0
    package var mambaBlockSize: Int?
    package var effectiveAttentionBlockSize: Int?
    package var coordStorePort: Int?
    package var coordinatorInputAddress: String?
    package var coordinatorOutputAddress: String?

    /// Answers the utility call `heartbeat` also during a long step. Our engine's own, not vLLM's.
    package var answersHeartbeat = false
    /// Whether answers can be kept to a grammar. Said by our engine only; vLLM's always can.
    package var supportsStructuredOutputs = true
    /// Seconds it took to load the model. Our engine's own.
    package var loadSeconds: Double?

    package init() {}

    private static let required: [(since: ProtocolFamily, names: [String])] = [
        (.v0_22, ["max_model_len", "num_gpu_blocks"]),
        (.v0_25, ["block_size", "dtype", "vllm_version", "world_size", "data_parallel_size"]),
        (
            .v0_28,
            [
                "tensor_parallel_size", "pipeline_parallel_size", "decode_context_parallel_size", "data_parallel_rank",
                "max_num_seqs", "max_num_batched_tokens", "instance_id",
            ]
        ),
        (.v0_30, ["supports_lora", "max_loras"]),
    ]

    /// - Parameter family: the configured family; nil takes the one that `vllm_version` belongs to.
    /// - Returns: also the family. A missing field, or a version that names no family, is an error: guessing would
    ///   misread every later message.
    package static func decode(
        _ payload: UnsafeRawBufferPointer, family configured: ProtocolFamily?
    ) throws(MessagePackError) -> (EngineCoreReadyResponse, ProtocolFamily) {
        var reader = MessagePackReader(payload)
        var response = EngineCoreReadyResponse()
        var seen: Set<String> = []
        for _ in 0..<(try reader.readMapHeader()) {
            let name = try reader.readString()
            if try reader.skipNil() { continue }
            do throws(MessagePackError) {
                try response.readField(name, &reader)
            } catch {
                throw MessagePackError(.invalid("field '\(name.prefix(64))': \(error)"), offset: error.offset)
            }
            seen.insert(name)
        }
        try reader.requireEnd()
        guard let family = configured ?? ProtocolFamily(vllmVersion: response.vllmVersion) else {
            if !seen.contains("vllm_version") { throw MessagePackError(.missingField("vllm_version"), offset: 0) }
            let version = response.vllmVersion.prefix(64)
            throw MessagePackError(.invalid("vllm_version '\(version)' is no release since 0.22"), offset: 0)
        }
        for (since, names) in required where family >= since {
            for name in names where !seen.contains(name) {
                throw MessagePackError(.missingField(name), offset: 0)
            }
        }
        guard response.maxModelLength > 0 else {
            throw MessagePackError(.invalid("field 'max_model_len' is \(response.maxModelLength)"), offset: 0)
        }
        guard response.supportsLoRA == (response.maxLoRAs > 0) else {
            throw MessagePackError(
                .invalid("supports_lora is \(response.supportsLoRA) but max_loras is \(response.maxLoRAs)"), offset: 0)
        }
        return (response, family)
    }

    private mutating func readField(_ name: String, _ reader: inout MessagePackReader) throws(MessagePackError) {
        switch name {
        case "max_model_len": maxModelLength = try reader.readInt()
        case "num_gpu_blocks": numGPUBlocks = try reader.readInt()
        case "block_size": blockSize = try reader.readInt()
        case "dp_stats_address": dataParallelStatsAddress = try reader.readString()
        case "dtype": dtype = try reader.readString()
        case "vllm_version": vllmVersion = try reader.readString()
        case "world_size": worldSize = try reader.readInt()
        case "data_parallel_size": dataParallelSize = try reader.readInt()
        case "kv_cache_size_tokens": kvCacheSizeTokens = try reader.readInt()
        case "kv_cache_max_concurrency": kvCacheMaxConcurrency = try reader.readDouble()
        case "tensor_parallel_size": tensorParallelSize = try reader.readInt()
        case "pipeline_parallel_size": pipelineParallelSize = try reader.readInt()
        case "decode_context_parallel_size": decodeContextParallelSize = try reader.readInt()
        case "data_parallel_rank": dataParallelRank = try reader.readInt()
        case "max_num_seqs": maxNumSeqs = try reader.readInt()
        case "max_num_batched_tokens": maxNumBatchedTokens = try reader.readInt()
        case "instance_id": instanceID = try reader.readString()
        case "kv_events_config": kvEventsConfig = [UInt8](try reader.readRaw())
        case "weight_transfer_backend": weightTransferBackend = try reader.readString()
        case "enable_sleep_mode": enableSleepMode = try reader.readBool()
        case "supports_draft_weight_updates": supportsDraftWeightUpdates = try reader.readBool()
        case "supports_lora": supportsLoRA = try reader.readBool()
        case "max_loras": maxLoRAs = try reader.readInt()
        case "mamba_block_size": mambaBlockSize = try reader.readInt()
        case "effective_attention_block_size": effectiveAttentionBlockSize = try reader.readInt()
        case "coord_store_port": coordStorePort = try reader.readInt()
        case "coordinator_input_address": coordinatorInputAddress = try reader.readString()
        case "coordinator_output_address": coordinatorOutputAddress = try reader.readString()
        case "heartbeat": answersHeartbeat = try reader.readBool()
        case "structured_outputs": supportsStructuredOutputs = try reader.readBool()
        case "load_seconds": loadSeconds = try reader.readDouble()
        default: try reader.skip()
        }
    }

    /// Appends the full map; frontends of every version ignore keys that they do not know.
    package func encode(into output: inout [UInt8]) {
        output.append(contentsOf: [0xde, 0, 28])
        output.pack("max_model_len", maxModelLength)
        output.pack("num_gpu_blocks", numGPUBlocks)
        output.pack("block_size", blockSize)
        output.pack("dp_stats_address", dataParallelStatsAddress)
        output.pack("dtype", dtype)
        output.pack("vllm_version", vllmVersion)
        output.pack("world_size", worldSize)
        output.pack("data_parallel_size", dataParallelSize)
        output.pack("kv_cache_size_tokens", kvCacheSizeTokens)
        output.pack(key: "kv_cache_max_concurrency")
        output.pack(optional: kvCacheMaxConcurrency)
        output.pack("tensor_parallel_size", tensorParallelSize)
        output.pack("pipeline_parallel_size", pipelineParallelSize)
        output.pack("decode_context_parallel_size", decodeContextParallelSize)
        output.pack("data_parallel_rank", dataParallelRank)
        output.pack("max_num_seqs", maxNumSeqs)
        output.pack("max_num_batched_tokens", maxNumBatchedTokens)
        output.pack("instance_id", instanceID)
        output.pack(key: "kv_events_config")
        if let kvEventsConfig { output.append(contentsOf: kvEventsConfig) } else { output.packNil() }
        output.pack("weight_transfer_backend", weightTransferBackend)
        output.pack(key: "enable_sleep_mode")
        output.pack(enableSleepMode)
        output.pack(key: "supports_draft_weight_updates")
        output.pack(supportsDraftWeightUpdates)
        output.pack(key: "supports_lora")
        output.pack(supportsLoRA)
        output.pack("max_loras", maxLoRAs)
        output.pack("mamba_block_size", mambaBlockSize)
        output.pack("effective_attention_block_size", effectiveAttentionBlockSize)
        output.pack("coord_store_port", coordStorePort)
        output.pack("coordinator_input_address", coordinatorInputAddress)
        output.pack("coordinator_output_address", coordinatorOutputAddress)
    }
}

extension [UInt8] {
    fileprivate mutating func pack(_ key: StaticString, _ value: Int?) {
        pack(key: key)
        pack(optional: value)
    }

    fileprivate mutating func pack(_ key: StaticString, _ value: String?) {
        pack(key: key)
        pack(optional: value)
    }
}
