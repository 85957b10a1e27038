import Glibc
import Metrics
import Testing

/// Several frontends of one service keep their metrics in one folder. Here they live in one process, which makes no
/// difference to the files; the test of the end sends a real process.
@Suite struct SharedMetricsTests {
    private let folder: String

    init() {
        var template = Array("/tmp/metrics-test-XXXXXX".utf8CString)
        folder = String(cString: mkdtemp(&template))
    }

    private func frontend(_ index: Int, start: Double = 1000) -> FrontendMetrics {
        FrontendMetrics(
            modelName: "m", engineCount: 2, startTime: start, memory: MetricMemory(directory: folder, index: index)!)
    }

    private func remove() {
        for name in ["frontend-0.metrics", "frontend-1.metrics", "frontend-0-1.metrics"] { unlink("\(folder)/\(name)") }
        rmdir(folder)
    }

    /// The samples of a page by name and labels.
    private func samples(_ metrics: FrontendMetrics, accept: String? = "text/plain") -> [String: Double] {
        var result: [String: Double] = [:]
        for line in String(decoding: MetricsPage(metrics, accept: accept).body, as: UTF8.self).split(separator: "\n")
        where !line.hasPrefix("#") {
            let space = line.lastIndex(of: " ")!
            result[String(line[..<space])] = Double(line[line.index(after: space)...])
        }
        return result
    }

    private func labels(_ engine: Int) -> String { "{engine=\"\(engine)\",model_name=\"m\"}" }

    @Test func everyPageShowsTheSums() {
        defer { remove() }
        let all = [frontend(0, start: 1005), frontend(1, start: 1000)]
        for (index, metrics) in all.enumerated() {
            let recorder = metrics.makeRecorder()
            recorder.firstToken(
                engine: index, timeToFirstToken: 0.5, promptTokens: 10, localCachedTokens: 4, generated: 1)
            recorder.firstToken(engine: 0, timeToFirstToken: 3, promptTokens: 5, generated: 1)
            recorder.sequenceFinished(
                engine: 1,
                FinishedSequence(
                    reason: .stop, e2eLatency: 1, promptTokens: 5, generationTokens: 1, cachedTokens: 0, maxTokens: 7))
            metrics.recordHTTP(
                HTTPSample(
                    handler: "/v1/completions", method: "POST", status: 200, duration: 0.2, requestBytes: 10,
                    responseBytes: 100 * (index + 1)))
            metrics.recordAdmissionRejection(.requests)
            metrics.changeUnfinishedSequences(by: 3)
            metrics.changeServerLoad(by: 2)
        }
        all[1].recordHTTP(
            HTTPSample(
                handler: "/v1/models", method: "GET", status: 404, duration: 2, requestBytes: 0, responseBytes: 1))
        for metrics in all {
            let page = samples(metrics)
            #expect(page["vllm:prompt_tokens_total\(labels(0))"] == 20)
            #expect(page["vllm:prompt_tokens_total\(labels(1))"] == 10)
            #expect(page["vllm:prompt_tokens_cached_total\(labels(0))"] == 4)
            #expect(page["vllm:time_to_first_token_seconds_count\(labels(0))"] == 3)
            #expect(page["vllm:time_to_first_token_seconds_sum\(labels(0))"] == 6.5)
            #expect(
                page["vllm:time_to_first_token_seconds_bucket{engine=\"0\",model_name=\"m\",le=\"0.5\"}"] == 1)
            #expect(
                page["vllm:request_success_total{engine=\"1\",finished_reason=\"stop\",model_name=\"m\"}"] == 2)
            #expect(page["vllm:admission_rejections_total{model_name=\"m\",reason=\"max_num_queued_reqs\"}"] == 2)
            #expect(page["vllm:admission_rejections_total{model_name=\"m\",reason=\"max_num_queued_tokens\"}"] == 0)
            #expect(metrics.totalUnfinishedSequences() == 6)
            let route = "{handler=\"/v1/completions\",method=\"POST\""
            #expect(page["http_requests_total\(route),status=\"2xx\"}"] == 2)
            #expect(page["http_requests_total{handler=\"/v1/models\",method=\"GET\",status=\"4xx\"}"] == 1)
            #expect(page["http_request_duration_seconds_count\(route)}"] == 2)
            #expect(page["http_request_duration_highr_seconds_count"] == 3)
            #expect(page["http_response_size_bytes_sum{handler=\"/v1/completions\"}"] == 300)
            #expect(page["vllm:prompt_tokens_created\(labels(0))"] == 1000)
            #expect(page["process_resident_memory_bytes"] == nil, "it would be that of one process")
            #expect(metrics.totalServerLoad() == 4 && metrics.serverLoad == 2)
            #expect(metrics.totals().promptTokens == 15, "the log line of a frontend is about itself")
        }
    }

    /// An engine tells its state to one frontend at a time: adding these up would be wrong.
    /// Counts of other buckets cannot be added to one's own.
    @Test func frontendsWithOtherBucketsAreNotSummed() {
        defer { remove() }
        let usual = frontend(0)
        let other = FrontendMetrics(
            modelName: "m", engineCount: 2, startTime: 1, customBuckets: [.requestParamsN: [1, 2, 3, 4, 7]],
            memory: MetricMemory(directory: folder, index: 1)!)
        for metrics in [usual, other] { metrics.makeRecorder().requestFinished(n: 1, maxGenerationTokens: 1) }
        #expect(samples(usual)["vllm:request_params_n_count" + labels(0)] == 1)
        #expect(samples(other)["vllm:request_params_n_count" + labels(0)] == 1)
    }

    @Test func ofEngineGaugesTheLatestCounts() {
        defer { remove() }
        let all = [frontend(0), frontend(1)]
        all[0].setScheduler(engine: 0, running: 5, waiting: 2, deferred: 0, kvCacheUsage: 0.5)
        all[1].setScheduler(engine: 0, running: 3, waiting: 1, deferred: 1, kvCacheUsage: 0.25)
        all[0].setScheduler(engine: 1, running: 1, waiting: 0, deferred: 0, kvCacheUsage: 0.125)
        for metrics in all {
            let page = samples(metrics)
            #expect(page["vllm:num_requests_running\(labels(0))"] == 3)
            #expect(page["vllm:num_requests_waiting\(labels(0))"] == 2)
            #expect(page["vllm:kv_cache_usage_perc\(labels(0))"] == 0.25)
            #expect(page["vllm:num_requests_running\(labels(1))"] == 1)
        }
    }

    @Test func aSuccessorGoesOnWithTheCountersOfADeadFrontend() {
        defer { remove() }
        let other = frontend(1)
        do {
            let first = frontend(0)
            for _ in 0..<2 { first.makeRecorder().firstToken(timeToFirstToken: 1, promptTokens: 10, generated: 1) }
            first.changeServerLoad(by: 7)
        }
        #expect(samples(other)["vllm:prompt_tokens_total\(labels(0))"] == 20, "dead, but not forgotten")
        #expect(other.totalServerLoad() == 0, "nobody answers those any more")
        let second = frontend(0, start: 2000)
        let recorder = second.makeRecorder()
        recorder.firstToken(timeToFirstToken: 1, promptTokens: 1, generated: 1)
        for metrics in [other, second] {
            #expect(samples(metrics)["vllm:prompt_tokens_total\(labels(0))"] == 21)
            #expect(samples(metrics)["vllm:prompt_tokens_created\(labels(0))"] == 1000)
            #expect(metrics.totalServerLoad() == 0)
        }
        #expect(access("\(folder)/frontend-0-1.metrics", F_OK) != 0, "it is the same file")
    }

    @Test func acceptedPlacesAreAddedUpOverFrontendsAndSuccessors() {
        defer { remove() }
        func tell(_ metrics: FrontendMetrics, _ counts: [Int]) {
            metrics.makeRecorder().speculated(
                engine: 1, drafts: 1, draftTokens: 3, acceptedTokens: 1, acceptedPerPosition: counts)
        }
        let other = frontend(1)
        tell(other, [1, 1])
        do { tell(frontend(0), [5, 2]) }
        let second = frontend(0)
        tell(second, [1, 0, 1])
        for metrics in [other, second] {
            let page = samples(metrics, accept: nil)
            let places = (0..<4).map {
                page[
                    "vllm:spec_decode_num_accepted_tokens_per_pos_total{engine=\"1\",model_name=\"m\",position=\"\($0)\"}"
                ]
            }
            #expect(places == [7, 3, 1, nil])
        }
    }

    @Test func aFileThatIsInUseIsLeftToItsOwner() {
        defer { remove() }
        let all = [frontend(0), frontend(0)]
        for metrics in all { metrics.makeRecorder().firstToken(timeToFirstToken: 1, promptTokens: 10, generated: 1) }
        for metrics in all { #expect(samples(metrics)["vllm:prompt_tokens_total\(labels(0))"] == 20) }
        #expect(access("\(folder)/frontend-0-1.metrics", F_OK) == 0)
    }

    /// Whatever is in a file: the page is served.
    @Test(arguments: 0..<40)
    func damagedFilesHarmNobody(seed: Int) {
        defer { remove() }
        do {
            let damaged = frontend(1)
            damaged.makeRecorder().firstToken(timeToFirstToken: 1, promptTokens: 10, generated: 1)
            damaged.recordHTTP(
                HTTPSample(
                    handler: "/x", method: "GET", status: 200, duration: 0.2, requestBytes: 10, responseBytes: 1))
        }
        let descriptor = open("\(folder)/frontend-1.metrics", O_RDWR)
        var state = UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 &+ 1
        func random() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 16
        }
        for _ in 0..<4 {
            var word = seed % 2 == 0 ? random() : [0, 1, 7, UInt64.max, 1 << 32, 0xffff_ffff][Int(random() % 6)]
            pwrite(descriptor, &word, 8, off_t(random() % 60) * 8)
        }
        if seed % 5 == 0 { ftruncate(descriptor, off_t(random() % 5000)) }
        close(descriptor)
        let healthy = frontend(0)
        healthy.makeRecorder().firstToken(timeToFirstToken: 1, promptTokens: 10, generated: 1)
        // What the damage did to the number itself cannot be known.
        #expect(samples(healthy)["vllm:prompt_tokens_total\(labels(0))"] != nil)
    }

    @Test func withoutAFolderThereIsNoSharing() {
        defer { remove() }
        #expect(MetricMemory(directory: "\(folder)/missing", index: 0) == nil)
    }
}
