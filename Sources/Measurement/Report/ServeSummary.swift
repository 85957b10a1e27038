import JSONBytes

/// One arm at one load with the result keys of `vllm bench serve`, so that tools made for its files read ours. Its
/// definitions too: latencies count from the moment a request was sent, gaps are between chunks, standard deviations
/// divide by n.
package struct ServeSummary: Sendable {
    /// What the request asked for and the report cannot know.
    package struct Labels: Sendable {
        package var backend: String
        package var label: String?
        package var model: String
        package var tokenizer: String
        /// UTC, `20260131-235959`.
        package var date: String
        /// Most requests at a time, if that was limited.
        package var concurrency: Int?
        package var metadata: [(String, String)]

        package init(
            backend: String, label: String? = nil, model: String, tokenizer: String, date: String,
            concurrency: Int? = nil, metadata: [(String, String)] = []
        ) {
            self.concurrency = concurrency
            self.metadata = metadata
            self.label = label
            self.backend = backend
            self.model = model
            self.tokenizer = tokenizer
            self.date = date
        }
    }

    /// The metrics by vLLM's names, in the order of its files.
    package static let families: [(key: String, family: SampleFamily)] = [
        ("ttft", .ttftService), ("tpot", .tpot), ("itl", .itl), ("e2el", .e2elService),
    ]

    private static let queueTime = "client_queue_time"
    private static let latencyWithQueue = "e2el_including_client_queue"
    /// Names of everything that can be asked for.
    package static let metricNames = families.map(\.key) + [queueTime, latencyWithQueue]

    private let arm: ArmReport
    private let load: LoadPoint
    private let labels: Labels
    private let hasServiceLevels: Bool
    /// Whether the lists with one entry per request are included (`--save-detailed`).
    private let detailed: Bool
    private let metrics: [String]
    private let percentiles: [Double]

    /// - Parameters:
    ///   - metrics: those of `metricNames` that are wanted.
    ///   - percentiles: 0 to 100.
    package init(
        _ report: Report, load: LoadReport, arm: Int, labels: Labels, detailed: Bool,
        metrics: [String] = ["ttft", "tpot", "itl"], percentiles: [Double] = [99]
    ) {
        self.metrics = metrics
        self.percentiles = percentiles
        self.arm = load.arms[arm]
        self.load = load.load
        self.labels = labels
        self.detailed = detailed
        hasServiceLevels = !report.run.rules.goodput.isEmpty
    }

    package var text: String { value.serialized(style: .python()) + "\n" }

    package var value: JSONValue {
        let requests = arm.requests.flatMap { $0 }
        let done = requests.filter(\.succeeded)
        let seconds = arm.wallSeconds
        func perSecond(_ count: Int) -> JSONValue { .finite(seconds > 0 ? Double(count) / seconds : 0) }
        let good = arm.measures.reduce(0) { $0 + ($1.sums[.goodput]?.numerator ?? 0) }
        var fields: [(String, JSONValue)] = [
            ("date", .string(labels.date)), ("endpoint_type", .string(labels.backend)),
            ("backend", .string(labels.backend)), ("label", .optional(labels.label)),
            ("model_id", .string(labels.model)),
            ("tokenizer_id", .string(labels.tokenizer)), ("num_prompts", .number(requests.count)),
        ]
        fields += labels.metadata.map { ($0, .string($1)) }
        fields += [
            ("request_rate", rate), ("burstiness", .finite(burstiness)),
            ("max_concurrency", .optional(load.concurrency ?? labels.concurrency)),
        ]
        if let ramp {
            fields += [
                ("ramp_up_strategy", .string(ramp.strategy)), ("ramp_up_start_rps", .finite(ramp.first)),
                ("ramp_up_end_rps", .finite(ramp.last)),
            ]
        }
        fields += [
            ("duration", .finite(seconds)), ("completed", .number(done.count)),
            ("failed", .number(requests.count - done.count)),
            ("total_input_tokens", .number(arm.inputTokens)), ("total_output_tokens", .number(arm.outputTokens)),
            ("request_throughput", perSecond(done.count)),
            ("request_goodput", hasServiceLevels ? .finite(seconds > 0 ? good / seconds : 0) : .null),
            ("output_throughput", perSecond(arm.outputTokens)),
            ("total_token_throughput", perSecond(arm.inputTokens + arm.outputTokens)),
        ]
        if detailed { fields += details(requests) }
        let peaks = self.peaks
        fields += [
            ("max_output_tokens_per_s", .finite(Double(peaks.tokens))),
            ("max_concurrent_requests", .number(peaks.requests)),
            ("rtfx", .number(0.0)),
        ]
        for (key, family) in Self.families where metrics.contains(key) {
            fields += statistics(key, arm.measures.flatMap { $0.samples[family] ?? [] })
        }
        // vLLM has them where requests may have to wait for their turn.
        if load.concurrency ?? labels.concurrency != nil {
            func milliseconds(_ span: (RequestRecord) -> Nanoseconds) -> [Double] {
                done.map { Double(span($0)) * 1e-6 }
            }
            if metrics.contains(Self.queueTime) {
                fields += statistics(Self.queueTime, milliseconds { $0.actualSend - $0.intendedSend })
            }
            if metrics.contains(Self.latencyWithQueue), load.rate != nil, ramp == nil {
                fields += statistics(Self.latencyWithQueue, milliseconds { $0.end - $0.intendedSend })
            }
        }
        return .object(JSONObject(fields))
    }

    private var ramp: (strategy: String, first: Double, last: Double)? {
        switch load {
        case .ramp(let first, let last): ("linear", first, last)
        case .exponentialRamp(let first, let last): ("exponential", first, last)
        default: nil
        }
    }

    /// With a ramp vLLM leaves it at its default.
    private var rate: JSONValue {
        if ramp != nil { return .string("inf") }
        return load.rate.map { .finite($0) } ?? .string("inf")
    }

    private var burstiness: Double {
        if case .gamma(_, let burstiness) = load { burstiness } else { 1 }
    }

    private func details(_ requests: [RequestRecord]) -> [(String, JSONValue)] {
        func seconds(_ span: Nanoseconds) -> JSONValue { .finite(Double(span) * 1e-9) }
        return [
            ("input_lens", .array(requests.map { .number($0.usage?.promptTokens ?? 0) })),
            ("output_lens", .array(requests.map { .number($0.succeeded ? $0.outputTokens : 0) })),
            (
                "ttfts",
                .array(
                    requests.map { request in seconds((request.firstToken ?? request.actualSend) - request.actualSend) }
                )
            ),
            (
                "itls",
                .array(
                    requests.map { request in
                        .array(zip(request.chunkOffsets.dropFirst(), request.chunkOffsets).map { seconds($0 - $1) })
                    })
            ),
            ("latencies", .array(requests.map { seconds($0.end - $0.actualSend) })),
            ("start_times", .array(requests.map { seconds($0.actualSend) })),
            ("queue_times", .array(requests.map { seconds($0.actualSend - $0.intendedSend) })),
            ("generated_texts", .array(requests.map { .string($0.choices.first?.text ?? "") })),
            (
                "errors",
                .array(requests.map { .string($0.succeeded ? "" : $0.errorDetail ?? $0.error?.rawValue ?? "") })
            ),
        ]
    }

    private func statistics(_ key: String, _ samples: [Double]) -> [(String, JSONValue)] {
        let sorted = samples.isEmpty ? [0] : samples.sorted()
        let mean = Percentiles.mean(sorted) ?? 0
        let squares = sorted.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        var fields: [(String, JSONValue)] = [
            ("mean_\(key)_ms", .finite(mean)),
            ("median_\(key)_ms", .finite(Percentiles.quantile(ofSorted: sorted, 0.5))),
            ("std_\(key)_ms", .finite((squares / Double(sorted.count)).squareRoot())),
        ]
        for percentile in percentiles {
            let word = percentile == percentile.rounded() ? String(Int(percentile)) : String(percentile)
            fields.append(
                ("p\(word)_\(key)_ms", .finite(Percentiles.quantile(ofSorted: sorted, percentile / 100))))
        }
        return fields
    }

    /// The busiest second of any block: chunks that arrived, and requests that were under way, in seconds counted from the
    /// block's first request.
    private var peaks: (tokens: Int, requests: Int) {
        var tokens = 0
        var concurrent = 0
        for block in arm.requests {
            let done = block.filter(\.succeeded)
            guard let start = done.map(\.actualSend).min() else { continue }
            var arrivals: [Int: Int] = [:]
            var underWay: [Int: Int] = [:]
            for request in done {
                func second(_ moment: Nanoseconds) -> Int { Int((moment - start) / 1_000_000_000) }
                for offset in request.chunkOffsets { arrivals[second(request.actualSend + offset), default: 0] += 1 }
                let last = second(max(request.end, request.actualSend))
                for second in second(request.actualSend)...last { underWay[second, default: 0] += 1 }
            }
            tokens = max(tokens, arrivals.values.max() ?? 0)
            concurrent = max(concurrent, underWay.values.max() ?? 0)
        }
        return (tokens, concurrent)
    }
}
