import Foundation
import Metrics
import Synchronization
import Testing

@Suite struct MetricsPageTests {
    private func lines(_ metrics: FrontendMetrics, accept: String? = nil) -> [String] {
        String(decoding: MetricsPage(metrics, accept: accept).body, as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    private func families(_ lines: [String]) -> [String: String] {
        var result: [String: String] = [:]
        for line in lines where line.hasPrefix("# TYPE ") {
            let words = line.split(separator: " ")
            result[String(words[2])] = String(words[3])
        }
        return result
    }

    /// A closure that went through a generic lock once came out with one more layer each time, until the stack was full.
    @Test func pagesDoNotDeepenTheSourceOfHealth() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let depths = Mutex<[Int]>([])
        metrics.setEngineHealth {
            depths.withLock { $0.append(Thread.callStackReturnAddresses.count) }
            return nil
        }
        for _ in 0..<50 { _ = MetricsPage(metrics, accept: nil) }
        let seen = depths.withLock { $0 }
        #expect(seen.count == 50)
        #expect(Set(seen).count == 1, "\(seen)")
    }

    @Test func countersAndHistogramsSumOverThreads() {
        let metrics = FrontendMetrics(modelName: "tiny", startTime: 1000)
        let first = metrics.makeRecorder()
        let second = metrics.makeRecorder()
        first.firstToken(timeToFirstToken: 0.03, promptTokens: 10, localCachedTokens: 4, generated: 1)
        second.firstToken(timeToFirstToken: 3, promptTokens: 5, generated: 2)
        first.nextTokens(gap: 0.02, generated: 1)
        second.nextTokens(gap: 100, generated: 3)
        let page = lines(metrics)
        let labels = "engine=\"0\",model_name=\"tiny\""
        #expect(page.contains("vllm:prompt_tokens_total{\(labels)} 15"))
        #expect(page.contains("vllm:prompt_tokens_cached_total{\(labels)} 4"))
        #expect(page.contains("vllm:prompt_tokens_by_source_total{\(labels),source=\"local_compute\"} 11"))
        #expect(page.contains("vllm:prompt_tokens_by_source_total{\(labels),source=\"local_cache_hit\"} 4"))
        #expect(page.contains("vllm:generation_tokens_total{\(labels)} 7"))
        #expect(page.contains("vllm:time_to_first_token_seconds_bucket{\(labels),le=\"0.02\"} 0"))
        #expect(page.contains("vllm:time_to_first_token_seconds_bucket{\(labels),le=\"0.04\"} 1"))
        #expect(page.contains("vllm:time_to_first_token_seconds_bucket{\(labels),le=\"5.0\"} 2"))
        #expect(page.contains("vllm:time_to_first_token_seconds_count{\(labels)} 2"))
        #expect(page.contains("vllm:time_to_first_token_seconds_sum{\(labels)} 3.03"))
        #expect(page.contains("vllm:inter_token_latency_seconds_bucket{\(labels),le=\"80.0\"} 1"))
        #expect(page.contains("vllm:inter_token_latency_seconds_bucket{\(labels),le=\"+Inf\"} 2"))
        #expect(page.suffix(2) == ["# EOF", ""])
    }

    @Test func bucketsCanBeSet() {
        let metrics = FrontendMetrics(
            modelName: "m", startTime: 0, customBuckets: [.timeToFirstToken: [0.5, 60], .requestTokens: [3]])
        let recorder = metrics.makeRecorder()
        recorder.firstToken(timeToFirstToken: 3, promptTokens: 5, generated: 1)
        recorder.sequenceFinished(FinishedSequence(reason: .stop, e2eLatency: 1, promptTokens: 5, generationTokens: 1))
        recorder.blockEvicted(engine: 0, lifetime: 3, idle: 0.5, reuseGaps: [1, 2])
        for accept in [nil, "text/plain"] {
            let page = lines(metrics, accept: accept)
            func bounds(_ family: String) -> [String] {
                page.filter { $0.hasPrefix("vllm:\(family)_bucket{") }
                    .map { String($0.split(separator: "le=\"")[1].split(separator: "\"")[0]) }
            }
            #expect(bounds("time_to_first_token_seconds") == ["0.5", "60.0", "+Inf"])
            #expect(bounds("request_prompt_tokens") == ["3.0", "+Inf"])
            #expect(bounds("request_params_n").count == 6, "as ever")
            let bucket = "vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"60.0\"} 1"
            #expect(page.contains { $0.hasPrefix(bucket) })
        }
        let gaps = "vllm:kv_block_reuse_gap_seconds_sum{engine=\"0\",model_name=\"m\"} 3"
        #expect(lines(metrics).contains { $0.hasPrefix(gaps) })
    }

    /// Only vLLM's own engines tell such things.
    @Test func connectedCachesAndDraftsAreCounted() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let recorder = metrics.makeRecorder()
        for _ in 0..<2 {
            recorder.externalPrefixCache(engine: 0, queries: 30, hits: 16)
            recorder.speculated(
                engine: 0, drafts: 1, draftTokens: 5, acceptedTokens: 3, acceptedPerPosition: [1, 1, 1, 0, 0])
        }
        let page = lines(metrics)
        let labels = "engine=\"0\",model_name=\"m\""
        for (name, value) in [
            ("external_prefix_cache_queries", 60), ("external_prefix_cache_hits", 32), ("spec_decode_num_drafts", 2),
            ("spec_decode_num_draft_tokens", 10), ("spec_decode_num_accepted_tokens", 6),
        ] {
            #expect(page.contains("vllm:\(name)_total{\(labels)} \(value)"), "\(name)")
        }
    }

    /// The numbers of vLLM's Rust frontend 0.32 for the same statistics, recorded.
    @Test func acceptedTokensAreCountedByTheirPlaceInTheDraft() {
        let metrics = FrontendMetrics(modelName: "m", engineCount: 2, startTime: 0)
        let name = "vllm:spec_decode_num_accepted_tokens_per_pos"
        func places(accept: String? = nil) -> [String] { lines(metrics, accept: accept).filter { $0.hasPrefix(name) } }
        #expect(places() == [])
        #expect(families(lines(metrics, accept: "text/plain"))[name + "_total"] == nil)
        let recorder = metrics.makeRecorder()
        func tell(_ counts: [Int], engine: Int = 1) {
            recorder.speculated(
                engine: engine, drafts: 5, draftTokens: 10, acceptedTokens: counts.reduce(0, +),
                acceptedPerPosition: counts)
        }
        func line(_ place: Int, _ count: Int) -> String {
            "\(name)_total{engine=\"1\",model_name=\"m\",position=\"\(place)\"} \(count)"
        }
        tell([4, 3])
        #expect(places() == [line(0, 4), line(1, 3)])
        tell([5, 0, 1])
        tell([])
        #expect(places() == [line(0, 9), line(1, 3), line(2, 1)])
        let python = lines(metrics, accept: "text/plain")
        #expect(families(python)[name + "_total"] == "counter")
        #expect(python.contains(line(2, 1)))
        #expect(python.contains("\(name)_created{engine=\"1\",model_name=\"m\",position=\"2\"} 0.0"))
        #expect(python.contains("vllm:spec_decode_num_drafts_total{engine=\"1\",model_name=\"m\"} 15"))
    }

    /// Labels as vLLM's two frontends 0.32 write them, recorded.
    @Test func adaptersOfTheEnginesAreNamedWithTheTime() throws {
        let metrics = FrontendMetrics(modelName: "m", engineCount: 2, startTime: 0)
        func series(accept: String? = nil) -> [String] {
            lines(metrics, accept: accept).filter { $0.hasPrefix("vllm:lora_requests_info{") }
                .map { String($0.prefix { $0 != "}" }) + "}" }
        }
        func python() -> [String] { series(accept: "text/plain") }
        metrics.setAdapters(engine: 0, running: [:], waiting: [:])
        #expect(series() == [] && python() == [])
        #expect(families(lines(metrics, accept: "text/plain"))["vllm:lora_requests_info"] == nil)
        metrics.setEngineConfiguration(
            EngineConfigurationInfo(
                blockSize: 16, numGPUBlocks: 1, maxModelLength: 2048, dtype: "bfloat16", maxLoRAs: 4))
        let before = Date().timeIntervalSince1970
        metrics.setAdapters(engine: 0, running: [:], waiting: [:])
        #expect(series() == [], "the Rust frontend shows nothing while no adapter is in use")
        let idle =
            #"vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""}"#
        #expect(python() == [idle])
        metrics.setAdapters(engine: 0, running: ["c": 1, "a": 2], waiting: ["b": 1, "z": 0])
        metrics.setAdapters(engine: 1, running: ["c": 1], waiting: [:])
        metrics.setAdapters(engine: 2, running: ["unknown": 1], waiting: [:])
        let names = #"running_lora_adapters="a,c",waiting_lora_adapters="b"}"#
        #expect(series() == ["vllm:lora_requests_info{" + names])
        #expect(python() == [#"vllm:lora_requests_info{max_lora="4","# + names])
        let line = try #require(lines(metrics).first { $0.hasPrefix("vllm:lora_requests_info{") })
        let time = try #require(line.split(separator: " ").last.flatMap { Double($0) })
        #expect(time >= before - 1 && time <= Date().timeIntervalSince1970 + 1)
        for engine in 0..<2 { metrics.setAdapters(engine: engine, running: [:], waiting: [:]) }
        #expect(series() == [] && python() == [idle])
    }

    @Test func aBrokenEngineCannotGrowThePageWithAdapters() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let names = Dictionary(uniqueKeysWithValues: (0..<10_000).map { ("adapter \($0)", 1) })
        metrics.setAdapters(engine: 0, running: names, waiting: [:])
        let line = lines(metrics).first { $0.hasPrefix("vllm:lora_requests_info{") }
        #expect(line?.filter { $0 == "," }.count == 256)
    }

    @Test func aBrokenEngineCannotGrowThePageWithPlaces() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let recorder = metrics.makeRecorder()
        for counts in [Array(repeating: 1, count: 100_000), [-1, 2]] {
            recorder.speculated(
                engine: 0, drafts: 1, draftTokens: 1, acceptedTokens: 1, acceptedPerPosition: counts)
        }
        let places = lines(metrics).filter { $0.hasPrefix("vllm:spec_decode_num_accepted_tokens_per_pos_total{") }
        #expect(places.count == 256)
        #expect(places[0].hasSuffix("position=\"0\"} 1") && places[1].hasSuffix("position=\"1\"} 3"))
    }

    @Test func aValueOnABoundBelongsToItsBucket() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        metrics.makeRecorder().requestFinished(n: 2, maxGenerationTokens: 131_072)
        let page = lines(metrics)
        let labels = "engine=\"0\",model_name=\"m\""
        #expect(page.contains("vllm:request_params_n_bucket{\(labels),le=\"1.0\"} 0"))
        #expect(page.contains("vllm:request_params_n_bucket{\(labels),le=\"2.0\"} 1"))
        #expect(page.contains("vllm:request_max_num_generation_tokens_bucket{\(labels),le=\"100000.0\"} 0"))
        #expect(page.contains("vllm:request_max_num_generation_tokens_bucket{\(labels),le=\"131072.0\"} 1"))
    }

    @Test func timesOfABrokenClockSpoilNoSum() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let recorder = metrics.makeRecorder()
        for time in [Double.infinity, -.infinity, .nan, 0.5] {
            recorder.sequenceFinished(
                FinishedSequence(
                    reason: .stop, e2eLatency: 1, promptTokens: 1, generationTokens: 2, queueTime: time,
                    decodeTime: time))
            recorder.blockEvicted(engine: 0, lifetime: time, idle: 1, reuseGaps: [time])
        }
        let page = lines(metrics)
        let labels = "{engine=\"0\",model_name=\"m\"}"
        for name in [
            "request_queue_time", "request_decode_time", "request_time_per_output_token", "kv_block_lifetime",
            "kv_block_reuse_gap",
        ] {
            #expect(page.contains("vllm:\(name)_seconds_sum\(labels) 0.5"), "\(name)")
            #expect(page.contains("vllm:\(name)_seconds_count\(labels) 1"), "\(name)")
        }
        #expect(page.contains("vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"m\"} 4"))
    }

    @Test func finishedSequencesAreCountedByReason() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let recorder = metrics.makeRecorder()
        for reason in [FinishedReason.stop, .stop, .length, .abort] {
            recorder.sequenceFinished(
                FinishedSequence(
                    reason: reason, e2eLatency: 0.4, promptTokens: 7, generationTokens: 5, cachedTokens: 4,
                    queueTime: 0.1, prefillTime: 0.1, decodeTime: 0.2, inferenceTime: 0.3, maxTokens: 16))
        }
        let page = lines(metrics)
        let labels = "engine=\"0\",model_name=\"m\""
        func success(_ reason: String) -> String {
            "vllm:request_success_total{engine=\"0\",finished_reason=\"\(reason)\",model_name=\"m\"}"
        }
        #expect(page.contains("\(success("stop")) 2"))
        #expect(page.contains("\(success("length")) 1"))
        #expect(page.contains("\(success("abort")) 1"))
        #expect(page.contains("\(success("error")) 0"))
        #expect(page.contains("vllm:e2e_request_latency_seconds_bucket{\(labels),le=\"0.3\"} 0"))
        #expect(page.contains("vllm:e2e_request_latency_seconds_bucket{\(labels),le=\"0.5\"} 4"))
        // 0.2 s for the four tokens after the first.
        #expect(page.contains("vllm:request_time_per_output_token_seconds_bucket{\(labels),le=\"0.025\"} 0"))
        #expect(page.contains("vllm:request_time_per_output_token_seconds_bucket{\(labels),le=\"0.05\"} 4"))
        #expect(page.contains("vllm:request_prefill_kv_computed_tokens_bucket{\(labels),le=\"2.0\"} 0"))
        #expect(page.contains("vllm:request_prefill_kv_computed_tokens_bucket{\(labels),le=\"5.0\"} 4"))
        #expect(page.contains("vllm:request_params_max_tokens_sum{\(labels)} 64.0"))
    }

    @Test func tokenBucketsFollowTheContextLengthOnThePythonPage() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        metrics.setEngineConfiguration(
            EngineConfigurationInfo(blockSize: 16, numGPUBlocks: 100, maxModelLength: 2048, dtype: "bfloat16"))
        let recorder = metrics.makeRecorder()
        recorder.sequenceFinished(
            FinishedSequence(reason: .stop, e2eLatency: 1, promptTokens: 2001, generationTokens: 2000))
        let python = lines(metrics, accept: "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
        let bounds = python.filter { $0.hasPrefix("vllm:request_prompt_tokens_bucket") }
            .compactMap { $0.split(separator: "\"").dropLast().last.map(String.init) }
        #expect(
            bounds == [
                "1.0", "2.0", "5.0", "10.0", "20.0", "50.0", "100.0", "200.0", "500.0", "1000.0", "2000.0", "+Inf",
            ])
        let labels = "engine=\"0\",model_name=\"m\""
        #expect(python.contains("vllm:request_prompt_tokens_bucket{\(labels),le=\"2000.0\"} 0"))
        #expect(python.contains("vllm:request_prompt_tokens_bucket{\(labels),le=\"+Inf\"} 1"))
        #expect(python.contains("vllm:request_generation_tokens_bucket{\(labels),le=\"2000.0\"} 1"))
        #expect(python.contains { $0.hasPrefix("vllm:cache_config_info{block_size=\"16\",cache_dtype=\"bfloat16\"") })
    }

    @Test func pythonPageDeclaresTotalsAndCreationTimes() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 1234)
        let page = lines(metrics, accept: "text/plain")
        let types = families(page)
        #expect(types["vllm:generation_tokens_total"] == "counter")
        #expect(types["vllm:generation_tokens_created"] == "gauge")
        #expect(types["vllm:e2e_request_latency_seconds_created"] == "gauge")
        #expect(types["process_resident_memory_bytes"] == "gauge")
        #expect(page.contains("vllm:generation_tokens_created{engine=\"0\",model_name=\"m\"} 1234.0"))
        #expect(!page.contains("# EOF"))
        #expect(MetricsPage(metrics, accept: "text/plain").contentType == "text/plain; version=0.0.4; charset=utf-8")
    }

    /// The families of vLLM's Rust frontend 0.32, recorded.
    @Test func openMetricsPageHasTheFamiliesOfTheRustFrontend() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        let counters = [
            "http_requests", "vllm:corrupted_requests", "vllm:estimated_flops_per_gpu",
            "vllm:estimated_read_bytes_per_gpu", "vllm:estimated_write_bytes_per_gpu",
            "vllm:external_prefix_cache_hits", "vllm:external_prefix_cache_queries", "vllm:generation_tokens",
            "vllm:mooncake_store_operation", "vllm:mooncake_store_operation_bytes",
            "vllm:mooncake_store_operation_failed_keys", "vllm:mooncake_store_operation_keys",
            "vllm:nixl_num_failed_notifications", "vllm:nixl_num_failed_transfers", "vllm:nixl_num_kv_expired_reqs",
            "vllm:num_preemptions", "vllm:prefix_cache_hits", "vllm:prefix_cache_queries", "vllm:prompt_tokens",
            "vllm:prompt_tokens_by_source", "vllm:prompt_tokens_cached", "vllm:prompt_tokens_cached_by_source",
            "vllm:request_success", "vllm:spec_decode_num_accepted_tokens",
            "vllm:spec_decode_num_accepted_tokens_per_pos", "vllm:spec_decode_num_draft_tokens",
            "vllm:spec_decode_num_drafts",
        ]
        let gauges = [
            "vllm:kv_cache_usage_perc", "vllm:lora_requests_info", "vllm:num_requests_running",
            "vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason",
            "vllm:rl_weight_update_operations_in_flight", "vllm:sleep_mode_operations_in_flight",
        ]
        let histograms = [
            "http_request_duration_highr_seconds", "http_request_duration_seconds", "vllm:e2e_request_latency_seconds",
            "vllm:inter_token_latency_seconds", "vllm:iteration_tokens_total",
            "vllm:kv_block_idle_before_evict_seconds", "vllm:kv_block_lifetime_seconds",
            "vllm:kv_block_reuse_gap_seconds", "vllm:mooncake_store_operation_time_seconds",
            "vllm:nixl_bytes_transferred", "vllm:nixl_num_descriptors", "vllm:nixl_post_time_seconds",
            "vllm:nixl_xfer_time_seconds", "vllm:request_decode_time_seconds", "vllm:request_generation_tokens",
            "vllm:request_inference_time_seconds", "vllm:request_max_num_generation_tokens",
            "vllm:request_num_preemptions", "vllm:request_params_max_tokens", "vllm:request_params_n",
            "vllm:request_prefill_kv_computed_tokens", "vllm:request_prefill_time_seconds",
            "vllm:request_prompt_tokens", "vllm:request_queue_time_seconds",
            "vllm:request_time_per_output_token_seconds", "vllm:rl_weight_update_operation_duration_seconds",
            "vllm:sleep_mode_operation_duration_seconds", "vllm:time_to_first_token_seconds",
        ]
        var expected: [String: String] = [:]
        for name in counters { expected[name] = "counter" }
        for name in gauges { expected[name] = "gauge" }
        for name in histograms { expected[name] = "histogram" }
        #expect(families(lines(metrics)) == expected)
    }

    @Test func httpFamiliesAreLabelledByRouteMethodAndStatusClass() {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        for status in [200, 201, 404] {
            metrics.recordHTTP(
                HTTPSample(
                    handler: "/v1/completions", method: "POST", status: status, duration: 0.3, requestBytes: 10,
                    responseBytes: 100))
        }
        let page = lines(metrics)
        #expect(page.contains("http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"2xx\"} 2"))
        #expect(page.contains("http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"4xx\"} 1"))
        #expect(
            page.contains(
                "http_request_duration_seconds_bucket{handler=\"/v1/completions\",method=\"POST\",le=\"0.5\"} 3"))
        #expect(page.contains("http_request_duration_highr_seconds_bucket{le=\"0.25\"} 0"))
        let python = lines(metrics, accept: "text/plain")
        #expect(python.contains("http_request_size_bytes_sum{handler=\"/v1/completions\"} 30"))
        #expect(python.contains("http_response_size_bytes_count{handler=\"/v1/completions\"} 3"))
    }

    @Test func enginesAreKeptApartAndUnknownOnesCountAsTheFirst() {
        let metrics = FrontendMetrics(modelName: "m", engineCount: 2, startTime: 0)
        let recorder = metrics.makeRecorder()
        recorder.nextTokens(engine: 1, gap: 1, generated: 3)
        recorder.nextTokens(engine: 7, gap: 1, generated: 1)
        recorder.nextTokens(engine: -1, gap: 1, generated: 1)
        metrics.setScheduler(engine: 1, running: 4, waiting: 2, deferred: 1, kvCacheUsage: 0.5)
        metrics.setScheduler(engine: 9, running: 99, waiting: 0, deferred: 0, kvCacheUsage: 0)
        let page = lines(metrics)
        #expect(page.contains("vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 2"))
        #expect(page.contains("vllm:generation_tokens_total{engine=\"1\",model_name=\"m\"} 3"))
        #expect(page.contains("vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 4.0"))
        #expect(page.contains("vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 3.0"))
        #expect(
            page.contains(
                "vllm:num_requests_waiting_by_reason{engine=\"1\",model_name=\"m\",reason=\"capacity\"} 2.0"))
        #expect(page.contains("vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.5"))
    }

    @Test func labelValuesAreEscaped() {
        let page = lines(FrontendMetrics(modelName: "a\"b\\c\nd", startTime: 0))
        #expect(page.contains("vllm:generation_tokens_total{engine=\"0\",model_name=\"a\\\"b\\\\c\\nd\"} 0"))
    }

    @Test func readingWhileWritingNeverLosesCounts() async {
        let metrics = FrontendMetrics(modelName: "m", startTime: 0)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let recorder = metrics.makeRecorder()
                    for _ in 0..<10_000 { recorder.nextTokens(gap: 0.001, generated: 1) }
                }
            }
            group.addTask { for _ in 0..<20 { _ = MetricsPage(metrics, accept: nil) } }
        }
        let page = lines(metrics)
        #expect(page.contains("vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 40000"))
        #expect(page.contains("vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"m\"} 40000"))
    }
}
