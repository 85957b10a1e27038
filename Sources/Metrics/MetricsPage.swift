import Synchronization

/// Renders `/metrics`.
///
/// The two pages show the same numbers under the families of vLLM's two frontends: the Prometheus text of the Python
/// server for a scraper that accepts `text/plain` by name, and the OpenMetrics page of the Rust frontend for everybody
/// else. A family that this server has no use for (KV connectors) is there with zeros, so that
/// existing dashboards and alert rules find it.
package struct MetricsPage {
    package let contentType: String
    package let body: [UInt8]

    /// - Parameter accept: the request's `Accept` header.
    package init(_ metrics: FrontendMetrics, accept: String?) {
        if let accept, accept.contains("text/plain") {
            contentType = "text/plain; version=0.0.4; charset=utf-8"
            body = PageBuilder(metrics, format: .prometheus).pythonPage()
        } else {
            contentType = "application/openmetrics-text; version=1.0.0; charset=utf-8"
            body = PageBuilder(metrics, format: .openMetrics).rustPage()
        }
    }
}

private final class PageBuilder {
    typealias Labels = MetricsText.Labels

    private let metrics: FrontendMetrics
    private let reading: MetricReading
    private var text: MetricsText
    private let http: MetricReading.HTTP

    init(_ metrics: FrontendMetrics, format: MetricsText.Format) {
        self.metrics = metrics
        reading = MetricReading(
            metrics.memory.allBlocks, engineCount: metrics.engineCount, layout: metrics.layout)
        text = MetricsText(format: format, created: metrics.memory.earliestStart ?? metrics.startTime)
        http = reading.http()
    }

    func pythonPage() -> [UInt8] {
        // One of several processes says nothing about the service; vLLM leaves them out then too.
        if !metrics.memory.isShared { process() }
        httpFamilies(sizes: true)
        shared(tokenBounds: MetricBuckets.tokenCounts(upTo: metrics.maxModelLength.load(ordering: .relaxed)))
        configuration()
        text.counter(
            "vllm:admission_rejections", "Requests refused by a queue limit.",
            [("max_num_queued_reqs", AdmissionLimit.requests), ("max_num_queued_tokens", .tokens)].map {
                ([("model_name", metrics.modelName), ("reason", $0.0)], reading.admissionRejections($0.1))
            })
        let adapters = metrics.adapters.current
        if adapters.maximum > 0 {
            text.gauge(
                "vllm:lora_requests_info", Self.adapterHelp,
                adapters.names.map { [([("max_lora", "\(adapters.maximum)")] + labels($0), $0.time)] } ?? [])
        }
        // The Python server has these families only while the engines speculate.
        if engines.contains(where: { reading.counter(.specDrafts, engine: $0) > 0 }) { speculation() }
        counterPerEngine("vllm:mm_cache_queries", "Multi-modal cache look-ups, in items.") { _ in 0 }
        counterPerEngine("vllm:mm_cache_hits", "Multi-modal cache hits, in items.") { _ in 0 }
        text.end()
        return text.bytes
    }

    func rustPage() -> [UInt8] {
        httpFamilies(sizes: false)
        shared(tokenBounds: MetricBuckets.tokenCountsFixed)
        rareFeatures()
        text.end()
        return text.bytes
    }

    // MARK: - Families of both pages

    /// Families of this server that vLLM does not have.
    private func engineHealth() {
        guard let health = metrics.engineHealth else { return }
        let labels = [("model_name", metrics.modelName)]
        text.gauge(
            "vllm:engine_hung", "1 while an engine is alive but does not get on.", [(labels, health.isHung ? 1 : 0)])
        text.gauge(
            "vllm:engine_last_progress_seconds", "Seconds since the engines last showed that they get on.",
            [(labels, health.secondsSinceProgress)])
    }

    /// - Parameter standardBounds: of token counts, unless the operator has set others.
    private func shared(tokenBounds standardBounds: [Double]) {
        let tokenBounds = metrics.hasCustomTokenBuckets ? nil : standardBounds
        engineHealth()
        gaugePerEngine("vllm:num_requests_running", "Requests in the current batches of the engine.") {
            reading.gauge(.running, engine: $0)
        }
        gaugePerEngine("vllm:num_requests_waiting", "Requests that wait for the engine.") {
            reading.gauge(.waitingForCapacity, engine: $0) + reading.gauge(.waitingDeferred, engine: $0)
        }
        text.gauge(
            "vllm:num_requests_waiting_by_reason", "Requests that wait for the engine, by reason.",
            engines.flatMap { engine in
                [
                    (labels(engine, [("reason", "capacity")]), reading.gauge(.waitingForCapacity, engine: engine)),
                    (labels(engine, [("reason", "deferred")]), reading.gauge(.waitingDeferred, engine: engine)),
                ]
            })
        gaugePerEngine("vllm:kv_cache_usage_perc", "Used part of the KV cache; 1 is full.") {
            reading.gauge(.kvCacheUsage, engine: $0)
        }
        counterPerEngine("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", .prefixQueries)
        counterPerEngine("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", .prefixHits)
        counterPerEngine(
            "vllm:external_prefix_cache_queries", "Prompt tokens looked up in connected caches.", .externalQueries)
        counterPerEngine(
            "vllm:external_prefix_cache_hits", "Prompt tokens found in connected caches.", .externalHits)
        counterPerEngine("vllm:num_preemptions", "Requests that lost their place in a batch.", .preemptions)
        counterPerEngine("vllm:prompt_tokens", "Prompt tokens processed.", .promptTokens)
        counterPerEngine("vllm:prompt_tokens_cached", "Prompt tokens that needed no computation.", .promptTokensCached)
        sourced("vllm:prompt_tokens_by_source", "Prompt tokens by where their keys and values came from.") {
            [
                ("local_compute", reading.counter(.promptComputed, engine: $0)),
                ("local_cache_hit", reading.counter(.promptLocalHit, engine: $0)),
                ("external_kv_transfer", reading.counter(.promptExternal, engine: $0)),
            ]
        }
        sourced("vllm:prompt_tokens_cached_by_source", "Prompt tokens found in a cache, by its tier.") {
            [
                ("device", reading.counter(.cachedDevice, engine: $0)), ("host", 0), ("p2p", 0), ("disk", 0),
                ("external_unspecified", reading.counter(.promptExternal, engine: $0)),
            ]
        }
        counterPerEngine("vllm:generation_tokens", "Tokens generated.", .generationTokens)
        text.counter(
            "vllm:request_success", "Finished sequences by the reason of their end.",
            FinishedReason.allCases.flatMap { reason in
                engines.map { engine in
                    (
                        labels(engine, [("finished_reason", reason.label)]),
                        reading.counter(
                            EngineCounter(rawValue: EngineCounter.successStop.rawValue + reason.rawValue)!,
                            engine: engine)
                    )
                }
            })
        for (name, counter) in [
            ("flops", EngineCounter.flops), ("read_bytes", .readBytes), ("write_bytes", .writeBytes),
        ] {
            counterPerEngine(
                "vllm:estimated_\(name)_per_gpu", "Estimated \(name) of the model, if the engine counts.", counter)
        }
        histogram("vllm:iteration_tokens_total", "Tokens per engine step.", .iterationTokens)
        histogram("vllm:time_to_first_token_seconds", "Time from arrival to the first token.", .timeToFirstToken)
        histogram("vllm:inter_token_latency_seconds", "Time between outputs of a sequence.", .interToken)
        histogram(
            "vllm:request_time_per_output_token_seconds", "Mean time per token after the first, per sequence.",
            .timePerOutputToken)
        histogram("vllm:e2e_request_latency_seconds", "Time from arrival to the last token.", .e2eLatency)
        histogram("vllm:request_queue_time_seconds", "Time in the engine's waiting queue.", .queueTime)
        histogram("vllm:request_inference_time_seconds", "Time from scheduling to the last token.", .inferenceTime)
        histogram("vllm:request_prefill_time_seconds", "Time from scheduling to the first token.", .prefillTime)
        histogram("vllm:request_decode_time_seconds", "Time from the first to the last token.", .decodeTime)
        histogram("vllm:request_num_preemptions", "Preemptions per sequence.", .preemptions)
        histogram("vllm:request_params_n", "The parameter n of requests.", .paramsN)
        histogram("vllm:request_prompt_tokens", "Prompt tokens per sequence.", .promptTokens, tokenBounds)
        histogram("vllm:request_generation_tokens", "Generated tokens per sequence.", .generationTokens, tokenBounds)
        histogram(
            "vllm:request_max_num_generation_tokens", "Largest number of tokens that a request asked for.",
            .maxGenerationTokens, tokenBounds)
        histogram(
            "vllm:request_params_max_tokens", "The parameter max_tokens of requests.", .paramsMaxTokens, tokenBounds)
        histogram(
            "vllm:request_prefill_kv_computed_tokens", "Prompt tokens per sequence that were not cached.",
            .prefillComputedTokens, tokenBounds)
    }

    private func httpFamilies(sizes: Bool) {
        text.counter(
            "http_requests", "HTTP requests by route, method and status class.",
            http.requests.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map { key, count in
                ([("handler", key[0]), ("method", key[1]), ("status", key[2])], count)
            })
        if sizes {
            let sizes = http.sizes.sorted { $0.key < $1.key }
            text.summary(
                "http_request_size_bytes", "Bytes of request bodies by route.",
                sizes.map { ([("handler", $0)], $1[.requests], $1[.requestBytes]) })
            text.summary(
                "http_response_size_bytes", "Bytes of response bodies by route.",
                sizes.map { ([("handler", $0)], $1[.responses], $1[.responseBytes]) })
        }
        text.histogram(
            "http_request_duration_highr_seconds", "Duration of HTTP requests, fine buckets.",
            [([], http.highResolution)])
        text.histogram(
            "http_request_duration_seconds", "Duration of HTTP requests by route and method.",
            http.durations.sorted { $0.key.lexicographicallyPrecedes($1.key) }.map { key, snapshot in
                ([("handler", key[0]), ("method", key[1])], snapshot)
            })
    }

    // MARK: - Families of one page

    private func process() {
        let process = ProcessStatistics.read()
        text.gauge("process_virtual_memory_bytes", "Virtual memory size.", [([], process.virtualBytes)])
        text.gauge("process_resident_memory_bytes", "Resident memory size.", [([], process.residentBytes)])
        text.gauge("process_start_time_seconds", "Unix time of the start.", [([], metrics.startTime)])
        text.secondsCounter("process_cpu_seconds", "User and system time.", process.cpuSeconds)
        text.gauge("process_open_fds", "Open file descriptors.", [([], Double(process.openDescriptors))])
        text.gauge("process_max_fds", "Limit of open file descriptors.", [([], Double(process.maxDescriptors))])
    }

    private func configuration() {
        guard let info = metrics.information.withLock({ $0 }) else { return }
        text.gauge(
            "vllm:cache_config_info", "The engine's cache configuration.",
            engines.map { engine in
                (
                    [
                        ("block_size", "\(info.blockSize)"), ("cache_dtype", info.dtype), ("engine", "\(engine)"),
                        (
                            "kv_cache_size_tokens",
                            "\(info.blockSize.multipliedReportingOverflow(by: info.numGPUBlocks).partialValue)"
                        ),
                        ("num_gpu_blocks", "\(info.numGPUBlocks)"),
                    ], 1
                )
            })
    }

    /// What vLLM's Rust frontend registers for features that few engines have, or none.
    private func rareFeatures() {
        counterPerEngine("vllm:corrupted_requests", "Sequences with NaN logits, if the engine checks.", .corrupted)
        histogram(
            "vllm:kv_block_lifetime_seconds", "Time from the allocation of a KV block to its eviction.", .blockLifetime)
        histogram(
            "vllm:kv_block_idle_before_evict_seconds", "Time from the last use of a KV block to its eviction.",
            .blockIdle)
        histogram("vllm:kv_block_reuse_gap_seconds", "Time between uses of a KV block.", .blockReuseGap)
        speculation()
        // The Rust frontend has a series while requests use adapters, and does not tell their maximum.
        let adapters = metrics.adapters.current.names.flatMap { $0.running.isEmpty && $0.waiting.isEmpty ? nil : $0 }
        text.gauge("vllm:lora_requests_info", Self.adapterHelp, adapters.map { [(labels($0), $0.time)] } ?? [])
        emptyHistogram("vllm:nixl_xfer_time_seconds", "NIXL connector; not used.", MetricBuckets.transferTime)
        emptyHistogram("vllm:nixl_post_time_seconds", "NIXL connector; not used.", [0.001] + MetricBuckets.transferTime)
        emptyHistogram(
            "vllm:nixl_bytes_transferred", "NIXL connector; not used.",
            (0..<12).map { Double(2048 << (2 * $0)) })
        emptyHistogram(
            "vllm:nixl_num_descriptors", "NIXL connector; not used.",
            [10, 20, 30, 50, 75, 100, 200, 400, 1000, 2000, 4000, 10000, 20000, 50000])
        for name in ["failed_transfers", "failed_notifications", "kv_expired_reqs"] {
            counterPerEngine("vllm:nixl_num_\(name)", "NIXL connector; not used.") { _ in 0 }
        }
        for (suffix, type) in [
            ("", "counter"), ("_bytes", "counter"), ("_keys", "counter"), ("_failed_keys", "counter"),
            ("_time_seconds", "histogram"),
        ] {
            text.empty("vllm:mooncake_store_operation\(suffix)", "Mooncake connector; not used.", type)
        }
        for name in ["rl_weight_update", "sleep_mode"] {
            text.empty("vllm:\(name)_operation_duration_seconds", "Duration of such operations.", "histogram")
            text.empty("vllm:\(name)_operations_in_flight", "Such operations that are running.", "gauge")
        }
    }

    private func speculation() {
        counterPerEngine("vllm:spec_decode_num_drafts", "Drafts of speculative decoding.", .specDrafts)
        counterPerEngine("vllm:spec_decode_num_draft_tokens", "Tokens of these drafts.", .specDraftTokens)
        counterPerEngine(
            "vllm:spec_decode_num_accepted_tokens", "Tokens of these drafts that were accepted.", .specAcceptedTokens)
        text.counter(
            "vllm:spec_decode_num_accepted_tokens_per_pos", "Accepted tokens by their place in the draft.",
            engines.flatMap { engine in
                reading.acceptedPositions(engine: engine).enumerated().map { place, count in
                    (labels(engine, [("position", "\(place)")]), count)
                }
            })
    }

    private static let adapterHelp = "Unix time at which engines told which adapters their requests use."

    private func labels(_ adapters: AdapterUse.Names) -> Labels {
        [
            ("running_lora_adapters", adapters.running.joined(separator: ",")),
            ("waiting_lora_adapters", adapters.waiting.joined(separator: ",")),
        ]
    }

    // MARK: - Helpers

    private var engines: Range<Int> { 0..<metrics.engineCount }

    /// Sorted by name, as prometheus_client does.
    private func labels(_ engine: Int, _ extra: Labels = []) -> Labels {
        ([("engine", String(engine)), ("model_name", metrics.modelName)] + extra).sorted { $0.0 < $1.0 }
    }

    private func gaugePerEngine(_ name: String, _ help: String, _ value: (Int) -> Double) {
        text.gauge(name, help, engines.map { (labels($0), value($0)) })
    }

    private func counterPerEngine(_ name: String, _ help: String, _ counter: EngineCounter) {
        let reading = reading
        counterPerEngine(name, help) { reading.counter(counter, engine: $0) }
    }

    private func counterPerEngine(_ name: String, _ help: String, _ value: (Int) -> UInt64) {
        text.counter(name, help, engines.map { (labels($0), value($0)) })
    }

    private func sourced(_ name: String, _ help: String, _ values: (Int) -> [(String, UInt64)]) {
        text.counter(
            name, help,
            engines.flatMap { engine in
                values(engine).map { (labels(engine, [("source", $0.0)]), $0.1) }
            })
    }

    private func histogram(
        _ name: String, _ help: String, _ histogram: EngineHistogram, _ bounds: [Double]? = nil
    ) {
        text.histogram(
            name, help,
            engines.map { engine in
                let snapshot = reading.histogram(histogram, engine: engine)
                return (labels(engine), bounds.map(snapshot.rebucketed(to:)) ?? snapshot)
            })
    }

    private func emptyHistogram(_ name: String, _ help: String, _ bounds: [Double]) {
        text.histogram(name, help, engines.map { (labels($0), HistogramSnapshot(bounds: bounds)) })
    }
}

extension HistogramSnapshot {
    /// The same observations in wider buckets; `bounds` must be a subset of the own ones.
    func rebucketed(to wider: [Double]) -> HistogramSnapshot {
        var result = HistogramSnapshot(bounds: wider)
        result.sum = sum
        for (index, count) in counts.enumerated() {
            let bound = index < bounds.count ? bounds[index] : .infinity
            result.counts[wider.firstIndex { bound <= $0 } ?? wider.count] += count
        }
        return result
    }
}
