/// What is measured of each request or gap, in milliseconds. `docs/measurement.md` has the formulas.
package enum SampleFamily: String, Sendable, CaseIterable {
    case ttft
    case ttftService = "ttft_service"
    case itl
    case itlToken = "itl_token"
    case tpot
    case e2el
    case e2elService = "e2el_service"
    case longestGap = "longest_gap"
    case ttftAdded = "ttft_added"
    case itlAdded = "itl_added"
    case e2elAdded = "e2el_added"
    case requestPath = "request_path"
    case tokenPath = "token_path"

    package var title: String {
        switch self {
        case .ttft: "ttft"
        case .ttftService: "ttft service"
        case .itl: "itl"
        case .itlToken: "itl per token"
        case .tpot: "tpot"
        case .e2el: "e2e"
        case .e2elService: "e2e service"
        case .longestGap: "longest gap"
        case .ttftAdded: "ttft added"
        case .itlAdded: "itl added"
        case .e2elAdded: "e2e added"
        case .requestPath: "request path"
        case .tokenPath: "token path"
        }
    }

    package var formula: String {
        switch self {
        case .ttft: "first chunk with output − intended send"
        case .ttftService: "first chunk with output − actual send"
        case .itl: "gap between two chunks of a stream, pooled over all streams"
        case .itlToken: "gap between two tokens of a stream, 0 within a chunk, pooled"
        case .tpot: "(last chunk − first chunk) / (output tokens − 1) of each stream"
        case .e2el: "last byte − intended send"
        case .e2elService: "last byte − actual send"
        case .longestGap: "longest gap of each stream"
        case .ttftAdded: "(first chunk − actual send) − (engine's first output − engine's receipt)"
        case .itlAdded: "gap between two chunks − gap between the engine steps they came from"
        case .e2elAdded: "(last byte − actual send) − (engine's last output − engine's receipt)"
        case .requestPath: "engine's receipt − actual send: HTTP, template, tokeniser, queue"
        case .tokenPath: "arrival of a chunk − the engine step of its first token: detokeniser, write, read"
        }
    }
}

/// What is measured of a block as a whole, as a ratio of sums over blocks.
package enum RatioMetric: String, Sendable, CaseIterable {
    case stalls = "stalls_per_1k"
    case stalledStreams = "stalled_streams"
    case outputThroughput = "output_throughput"
    case requestThroughput = "request_throughput"
    case goodput = "request_goodput"
    case frontendCPUPerToken = "frontend_cpu_per_token"
    case frontendCPUPerRequest = "frontend_cpu_per_request"
    case engineCPUPerToken = "engine_cpu_per_token"
    case engineCPUPerRequest = "engine_cpu_per_request"
    case clientCPUPerToken = "client_cpu_per_token"
    case clientCPUPerRequest = "client_cpu_per_request"
    case voluntarySwitches = "voluntary_switches_per_token"
    case involuntarySwitches = "involuntary_switches_per_token"
    case systemCalls = "system_calls_per_token"
    case residentMemory = "rss"
    case peakResidentMemory = "peak_rss"
    case proportionalMemory = "pss"
    case bytesPerToken = "bytes_per_token"
    case segmentsPerToken = "segments_per_token"
    case engineBytesPerToken = "zmq_bytes_per_token"
    case engineBytesPerRequest = "zmq_bytes_per_request"
    case tokensPerChunk = "tokens_per_chunk"
    case failedRequests = "failed_requests"
}

/// A number with a name: a statistic of a sample family, or a ratio.
package struct Metric: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        case samples(SampleFamily, Statistic)
        case ratio(RatioMetric)
    }

    package let source: Source
    /// As in `--fail-if` and the JSON document: `p99_ttft_added`.
    package let name: String
    /// As in tables: `ttft added p99`.
    package let title: String
    package let unit: String
    /// Nil for numbers that are neither good nor bad.
    package let sense: MetricSense?
    package let kind: DifferenceKind
    /// Whether the terminal shows it.
    package let headline: Bool
    package let formula: String

    package var statistic: Statistic {
        if case .samples(_, let statistic) = source { statistic } else { .ratio }
    }

    /// Every metric, in the order of tables.
    package static let all: [Metric] = {
        let latencies = SampleFamily.allCases.flatMap { family in
            statistics.map { Metric(family, $0.name, $0.statistic) }
        }
        return latencies + RatioMetric.allCases.map(Metric.init)
    }()

    package static func named(_ name: String) -> Metric? { all.first { $0.name == name } }

    private static let statistics: [(name: String, statistic: Statistic)] = [
        ("p50", .quantile(0.5)), ("p90", .quantile(0.9)), ("p99", .quantile(0.99)), ("p99.9", .quantile(0.999)),
        ("mean", .ratio),
    ]

    private static let headlines: Set<String> = [
        "p50_ttft", "p99_ttft", "p50_ttft_added", "p99_ttft_added", "p50_itl", "p99_itl", "p99_itl_added",
        "p50_token_path", "p99_token_path", "mean_tpot", "p50_e2el", "p99_e2el",
    ]

    private init(_ family: SampleFamily, _ statisticName: String, _ statistic: Statistic) {
        source = .samples(family, statistic)
        name = "\(statisticName)_\(family.rawValue)"
        title = "\(family.title) \(statisticName)"
        unit = "ms"
        sense = .latency
        // A gap's addition is as often negative as positive: its size relative to the other's means nothing near 0.
        kind =
            family == .itlAdded && statistic != .quantile(0.99) && statistic != .quantile(0.999) ? .absolute : .relative
        headline = Self.headlines.contains(name)
        formula = "\(statisticName) of: \(family.formula)"
    }

    private init(_ ratio: RatioMetric) {
        let row = Self.row(of: ratio)
        source = .ratio(ratio)
        name = ratio.rawValue
        title = row.title
        unit = row.unit
        sense = row.sense
        kind = row.kind
        headline = row.headline
        formula = row.formula
    }

    private struct Row {
        let title: String
        let unit: String
        let sense: MetricSense?
        var kind: DifferenceKind = .relative
        var headline = false
        let formula: String
    }

    private static func row(of ratio: RatioMetric) -> Row {
        switch ratio {
        case .stalls:
            Row(
                title: "stalls", unit: "/1k", sense: .latency, kind: .absolute, headline: true,
                formula: "gaps above the stall threshold per 1,000 streams")
        case .stalledStreams:
            Row(
                title: "stalled streams", unit: "%", sense: .latency, kind: .absolute,
                formula: "streams with a gap above the stall threshold")
        case .outputThroughput:
            Row(
                title: "output throughput", unit: "tok/s", sense: .rate, headline: true,
                formula: "output tokens / (last byte of the block − first intended send)")
        case .requestThroughput:
            Row(
                title: "request throughput", unit: "req/s", sense: .rate,
                formula: "completed requests / (last byte of the block − first intended send)")
        case .goodput:
            Row(
                title: "goodput", unit: "req/s", sense: .rate, headline: true,
                formula: "completed requests within every service level / duration of the block")
        case .frontendCPUPerToken: cpu("frontend", per: "token", headline: true)
        case .frontendCPUPerRequest: cpu("frontend", per: "request", headline: true)
        case .engineCPUPerToken: cpu("engine", per: "token")
        case .engineCPUPerRequest: cpu("engine", per: "request")
        case .clientCPUPerToken: cpu("client", per: "token")
        case .clientCPUPerRequest: cpu("client", per: "request")
        case .voluntarySwitches:
            Row(
                title: "voluntary switches", unit: "/token", sense: .cost, headline: true,
                formula: "times the frontend's threads went to sleep / output tokens")
        case .involuntarySwitches:
            Row(
                title: "involuntary switches", unit: "/token", sense: .cost,
                formula: "times the frontend's threads were displaced / output tokens")
        case .systemCalls:
            Row(
                title: "system calls", unit: "/token", sense: .cost, headline: true,
                formula: "system calls of the frontend, of every kind / output tokens")
        case .residentMemory:
            Row(
                title: "rss", unit: "MB", sense: .cost, headline: true,
                formula: "resident memory of the frontend's processes at the end of a block, mean over blocks")
        case .peakResidentMemory:
            Row(
                title: "peak rss", unit: "MB", sense: .cost,
                formula: "highest resident memory of the frontend, mean over blocks")
        case .proportionalMemory:
            Row(
                title: "pss", unit: "MB", sense: .cost,
                formula: "resident memory of the frontend, shared pages by share, mean over blocks")
        case .bytesPerToken:
            Row(
                title: "HTTP bytes", unit: "/token", sense: .cost, headline: true,
                formula: "bytes received by the client / output tokens")
        case .segmentsPerToken:
            Row(
                title: "HTTP writes", unit: "/token", sense: .cost, headline: true,
                formula: "TCP segments with data received by the client, one for each write / output tokens")
        case .engineBytesPerToken:
            Row(
                title: "ZMQ bytes", unit: "/token", sense: .cost, headline: true,
                formula: "bytes of the messages between frontend and engine, both ways / output tokens")
        case .engineBytesPerRequest:
            Row(
                title: "ZMQ bytes asked", unit: "/req", sense: .cost,
                formula: "bytes of the ADD messages to the engine / requests")
        case .tokensPerChunk:
            Row(title: "tokens per chunk", unit: "", sense: nil, formula: "output tokens / chunks that carry output")
        case .failedRequests:
            Row(
                title: "failed requests", unit: "%", sense: .latency, kind: .absolute,
                formula: "requests without a complete, successful answer")
        }
    }

    private static func cpu(_ part: String, per: String, headline: Bool = false) -> Row {
        Row(
            title: "\(part) cpu", unit: "us/\(per == "request" ? "req" : per)", sense: .cost, headline: headline,
            formula: "user and system CPU of the \(part)'s processes / \(per == "token" ? "output tokens" : "requests")"
        )
    }
}
