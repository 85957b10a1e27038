/// Bucket bounds, as vLLM defines them.
package enum MetricBuckets {
    static let highResolution: [Double] = [
        0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60,
    ]
    static let handlerDuration: [Double] = [0.1, 0.5, 1]
    static let requestLatency: [Double] = [
        0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
    ]
    static let interToken: [Double] = [
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
    ]
    static let iterationTokens: [Double] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    static let preemptions: [Double] = [1, 2, 3, 4, 5, 10, 20]
    static let sequencesPerRequest: [Double] = [1, 2, 5, 10, 20]
    static let firstToken: [Double] = [
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
        2560,
    ]
    static let blockLife: [Double] = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800,
    ]
    static let transferTime: [Double] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 5]
    /// What token counts are stored with; every page's own series is a subset.
    static let tokenCounts: [Double] = [
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100_000, 131_072, 200_000, 500_000,
        1_000_000, 2_000_000, 5_000_000, 10_000_000,
    ]
    /// The fixed series of vLLM's Rust frontend.
    static let tokenCountsFixed = Array(tokenCounts.prefix { $0 <= 131_072 })

    /// The 1-2-5 series up to `limit` (vLLM: `build_1_2_5_buckets`).
    static func tokenCounts(upTo limit: Int) -> [Double] {
        var bounds: [Double] = []
        var decade = 1
        while true {
            for step in [1, 2, 5] {
                let bound = step * decade
                if bound > limit || Double(bound) > tokenCounts[tokenCounts.count - 1] { return bounds }
                bounds.append(Double(bound))
            }
            decade *= 10
        }
    }
}

/// Histograms whose buckets are set together (vLLM: the keys of `--custom-histogram-buckets`).
package enum HistogramFamily: String, CaseIterable, Sendable {
    case requestLatency = "request_latency"
    case timeToFirstToken = "time_to_first_token"
    case interTokenLatency = "inter_token_latency"
    case iterationTokens = "iteration_tokens"
    case requestParamsN = "request_params_n"
    case requestNumPreemptions = "request_num_preemptions"
    case requestTokens = "request_tokens"
    case kvCacheResidency = "kv_cache_residency"
}

extension HistogramFamily {
    var bounds: [Double] {
        switch self {
        case .requestLatency: MetricBuckets.requestLatency
        case .timeToFirstToken: MetricBuckets.firstToken
        case .interTokenLatency: MetricBuckets.interToken
        case .iterationTokens: MetricBuckets.iterationTokens
        case .requestParamsN: MetricBuckets.sequencesPerRequest
        case .requestNumPreemptions: MetricBuckets.preemptions
        case .requestTokens: MetricBuckets.tokenCounts
        case .kvCacheResidency: MetricBuckets.blockLife
        }
    }
}

package enum FinishedReason: Int, CaseIterable, Sendable {
    case stop, length, abort, error, repetition

    package var label: String {
        switch self {
        case .stop: "stop"
        case .length: "length"
        case .abort: "abort"
        case .error: "error"
        case .repetition: "repetition"
        }
    }
}

/// Counters that exist once per engine.
enum EngineCounter: Int, CaseIterable {
    case generationTokens, promptTokens, promptTokensCached
    case promptComputed, promptLocalHit, promptExternal
    case cachedDevice
    case prefixQueries, prefixHits
    case externalQueries, externalHits
    case specDrafts, specDraftTokens, specAcceptedTokens
    case preemptions, corrupted
    case flops, readBytes, writeBytes
    case successStop, successLength, successAbort, successError, successRepetition
}

/// Histograms that exist once per engine.
enum EngineHistogram: Int, CaseIterable {
    case timeToFirstToken, interToken, timePerOutputToken
    case e2eLatency, queueTime, prefillTime, decodeTime, inferenceTime
    case promptTokens, generationTokens, maxGenerationTokens, paramsMaxTokens, prefillComputedTokens
    case paramsN, preemptions, iterationTokens
    case blockLifetime, blockIdle, blockReuseGap

    var family: HistogramFamily {
        switch self {
        case .timeToFirstToken: .timeToFirstToken
        case .interToken, .timePerOutputToken: .interTokenLatency
        case .e2eLatency, .queueTime, .prefillTime, .decodeTime, .inferenceTime: .requestLatency
        case .promptTokens, .generationTokens, .maxGenerationTokens, .paramsMaxTokens, .prefillComputedTokens:
            .requestTokens
        case .paramsN: .requestParamsN
        case .preemptions: .requestNumPreemptions
        case .iterationTokens: .iterationTokens
        case .blockLifetime, .blockIdle, .blockReuseGap: .kvCacheResidency
        }
    }
}

/// Where each metric of one engine lives in a recorder's block; engine `e` starts at `e * cellCount`.
struct EngineMetricLayout: Sendable {
    let histograms: [HistogramSlot]
    let cellCount: Int
    /// What tells blocks of other buckets from these: the service's frontends may have been started with different ones.
    let labels: [String]

    init(customBuckets: [HistogramFamily: [Double]] = [:]) {
        labels = customBuckets.sorted { $0.key.rawValue < $1.key.rawValue }
            .map { family, bounds in family.rawValue + ":" + bounds.map { "\($0)" }.joined(separator: ",") }
        var offset = EngineCounter.allCases.count
        var slots: [HistogramSlot] = []
        for histogram in EngineHistogram.allCases {
            let slot = HistogramSlot(
                bounds: customBuckets[histogram.family] ?? histogram.family.bounds, offset: offset)
            offset += slot.cellCount
            slots.append(slot)
        }
        histograms = slots
        cellCount = offset
    }
}
