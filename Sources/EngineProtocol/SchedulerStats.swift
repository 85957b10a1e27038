import MessagePack

/// Gauges and per-message counter deltas of one engine (vLLM: `SchedulerStats`, a map).
package struct SchedulerStats: Sendable, Equatable {
    package var numRunningReqs = 0
    package var numWaitingReqs = 0
    package var numSkippedWaitingReqs = 0
    package var stepCounter = 0
    package var currentWave = 0
    /// 0...1
    package var kvCacheUsage = 0.0
    package var prefixCacheStats = PrefixCacheStats()
    package var connectorPrefixCacheStats: PrefixCacheStats?
    package var specDecodingStats: SpecDecodingStats?
    package var iterationDetails: IterationDetails?
    /// A sample of the blocks that were given up since the previous message.
    package var kvCacheEvictionEvents: [KVCacheEvictionEvent] = []
    /// Requests by the name of their adapter.
    package var waitingLoRAAdapters: [String: Int] = [:]
    package var runningLoRAAdapters: [String: Int] = [:]
    package var perfStats: PerfStats?
    package init() {}
}

/// Deltas since the previous message; queries and hits count tokens.
package struct PrefixCacheStats: Sendable, Equatable {
    package var reset = false
    package var requests = 0
    package var queries = 0
    package var hits = 0
    package var preemptedRequests = 0
    package var preemptedQueries = 0
    package var preemptedHits = 0
    package init() {}
}

/// Deltas since the previous message (vLLM: `SpecDecodingStats`).
package struct SpecDecodingStats: Sendable, Equatable {
    package var numSpecTokens = 0
    package var numDrafts = 0
    package var numDraftTokens = 0
    package var numAcceptedTokens = 0
    package var numAcceptedTokensPerPosition: [Int] = []
    package var numDraftTokensPerPosition: [Int] = []
    package init() {}
}

/// What one engine step computed (vLLM: `IterationDetails`).
package struct IterationDetails: Sendable, Equatable {
    package var iterationIndex = 0
    package var numContextRequests = 0
    package var numContextTokens = 0
    package var numGenerationRequests = 0
    package var numGenerationTokens = 0
    package var elapsedMilliseconds = 0.0
    package var isDummy = false
    package init() {}
}

extension SchedulerStats {
    /// Every key may be missing, unknown ones are passed over.
    package init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            // Every step brings all of them: the length rules out nearly all candidates.
            switch (key.count, key) {
            case (16, "num_running_reqs"): numRunningReqs = try reader.readInt()
            case (16, "num_waiting_reqs"): numWaitingReqs = try reader.readInt()
            case (24, "num_skipped_waiting_reqs"): numSkippedWaitingReqs = try reader.readInt()
            case (12, "step_counter"): stepCounter = try reader.readInt()
            case (12, "current_wave"): currentWave = try reader.readInt()
            case (14, "kv_cache_usage"): kvCacheUsage = try reader.readDouble()
            case (18, "prefix_cache_stats"): prefixCacheStats = try PrefixCacheStats(decoding: &reader)
            case (28, "connector_prefix_cache_stats"):
                connectorPrefixCacheStats = try PrefixCacheStats(decoding: &reader)
            case (19, "spec_decoding_stats"): specDecodingStats = try SpecDecodingStats(decoding: &reader)
            case (24, "kv_cache_eviction_events"):
                kvCacheEvictionEvents = try reader.readArray { r throws(MessagePackError) in
                    try KVCacheEvictionEvent(decoding: &r)
                }
            case (21, "waiting_lora_adapters"): waitingLoRAAdapters = try reader.readCounts()
            case (21, "running_lora_adapters"): runningLoRAAdapters = try reader.readCounts()
            case (10, "perf_stats"): perfStats = try PerfStats(decoding: &reader)
            case (17, "iteration_details"): iterationDetails = try IterationDetails(decoding: &reader)
            default: try reader.skip()
            }
        }
    }

    /// Appends a full map: Rust frontends refuse one without its required keys.
    package func encode(into output: inout [UInt8]) {
        output.packMapHeader(15)
        output.pack(key: "num_running_reqs")
        output.pack(numRunningReqs)
        output.pack(key: "num_waiting_reqs")
        output.pack(numWaitingReqs)
        output.pack(key: "num_skipped_waiting_reqs")
        output.pack(numSkippedWaitingReqs)
        output.pack(key: "step_counter")
        output.pack(stepCounter)
        output.pack(key: "current_wave")
        output.pack(currentWave)
        output.pack(key: "kv_cache_usage")
        output.pack(kvCacheUsage)
        output.pack(key: "iteration_details")
        if let iterationDetails { iterationDetails.encode(into: &output) } else { output.packNil() }
        output.pack(key: "prefix_cache_stats")
        prefixCacheStats.encode(into: &output)
        output.pack(key: "connector_prefix_cache_stats")
        if let connectorPrefixCacheStats {
            connectorPrefixCacheStats.encode(into: &output)
        } else {
            output.packNil()
        }
        output.pack(key: "kv_cache_eviction_events")
        output.packArrayHeader(kvCacheEvictionEvents.count)
        for event in kvCacheEvictionEvents { event.encode(into: &output) }
        output.pack(key: "spec_decoding_stats")
        if let specDecodingStats { specDecodingStats.encode(into: &output) } else { output.packNil() }
        output.pack(key: "kv_connector_stats")
        output.packNil()
        output.pack(key: "waiting_lora_adapters")
        output.pack(counts: waitingLoRAAdapters)
        output.pack(key: "running_lora_adapters")
        output.pack(counts: runningLoRAAdapters)
        output.pack(key: "perf_stats")
        if let perfStats { perfStats.encode(into: &output) } else { output.packNil() }
    }
}

extension PrefixCacheStats {
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "reset": reset = try reader.readBool()
            case "requests": requests = try reader.readInt()
            case "queries": queries = try reader.readInt()
            case "hits": hits = try reader.readInt()
            case "preempted_requests": preemptedRequests = try reader.readInt()
            case "preempted_queries": preemptedQueries = try reader.readInt()
            case "preempted_hits": preemptedHits = try reader.readInt()
            default: try reader.skip()
            }
        }
    }

    func encode(into output: inout [UInt8]) {
        output.packMapHeader(7)
        output.pack(key: "reset")
        output.pack(reset)
        output.pack(key: "requests")
        output.pack(requests)
        output.pack(key: "queries")
        output.pack(queries)
        output.pack(key: "hits")
        output.pack(hits)
        output.pack(key: "preempted_requests")
        output.pack(preemptedRequests)
        output.pack(key: "preempted_queries")
        output.pack(preemptedQueries)
        output.pack(key: "preempted_hits")
        output.pack(preemptedHits)
    }
}

extension SpecDecodingStats {
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "num_spec_tokens": numSpecTokens = try reader.readInt()
            case "num_drafts": numDrafts = try reader.readInt()
            case "num_draft_tokens": numDraftTokens = try reader.readInt()
            case "num_accepted_tokens": numAcceptedTokens = try reader.readInt()
            case "num_accepted_tokens_per_pos": numAcceptedTokensPerPosition = try reader.readInts()
            case "num_draft_tokens_per_pos": numDraftTokensPerPosition = try reader.readInts()
            default: try reader.skip()
            }
        }
    }

    func encode(into output: inout [UInt8]) {
        output.packMapHeader(6)
        output.pack(key: "num_spec_tokens")
        output.pack(numSpecTokens)
        output.pack(key: "num_drafts")
        output.pack(numDrafts)
        output.pack(key: "num_draft_tokens")
        output.pack(numDraftTokens)
        output.pack(key: "num_accepted_tokens")
        output.pack(numAcceptedTokens)
        output.pack(key: "num_accepted_tokens_per_pos")
        output.pack(integers: numAcceptedTokensPerPosition)
        output.pack(key: "num_draft_tokens_per_pos")
        output.pack(integers: numDraftTokensPerPosition)
    }
}

extension IterationDetails {
    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "iteration_index": iterationIndex = try reader.readInt()
            case "num_ctx_requests": numContextRequests = try reader.readInt()
            case "num_ctx_tokens": numContextTokens = try reader.readInt()
            case "num_generation_requests": numGenerationRequests = try reader.readInt()
            case "num_generation_tokens": numGenerationTokens = try reader.readInt()
            case "elapsed_ms": elapsedMilliseconds = try reader.readDouble()
            case "is_dummy": isDummy = try reader.readBool()
            default: try reader.skip()
            }
        }
    }

    func encode(into output: inout [UInt8]) {
        output.packMapHeader(9)
        output.pack(key: "iteration_index")
        output.pack(iterationIndex)
        output.pack(key: "num_ctx_requests")
        output.pack(numContextRequests)
        output.pack(key: "num_ctx_tokens")
        output.pack(numContextTokens)
        output.pack(key: "num_generation_requests")
        output.pack(numGenerationRequests)
        output.pack(key: "num_generation_tokens")
        output.pack(numGenerationTokens)
        output.pack(key: "elapsed_ms")
        output.pack(elapsedMilliseconds)
        output.pack(key: "num_encoder_inputs")
        output.pack(0)
        output.pack(key: "num_encoder_output_tokens")
        output.pack(0)
        output.pack(key: "is_dummy")
        output.pack(isDummy)
    }
}

extension MessagePackReader {
    mutating func readInts() throws(MessagePackError) -> [Int] {
        try readArray { r throws(MessagePackError) in try r.readInt() }
    }
}
