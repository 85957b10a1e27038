import ArgumentParser
import JSONBytes
import Supervision

/// What requests are like and how they are offered: the same options for `ab` and `bench`, named as in `vllm bench serve`
/// where that has them.
struct WorkloadOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Where to start from; the options below change it.", valueName: "name"))
    var workload: String?

    @OptionGroup var endpoint: EndpointOptions
    @OptionGroup var sampling: SamplingOptions

    @Option(help: ArgumentHelp("Requests of each block.", valueName: "n"))
    var numPrompts: Int?

    @Option(
        help: ArgumentHelp(
            "Open loop: requests per second, or inf for all at once. Several, by commas, are a sweep.",
            valueName: "r"))
    var requestRate: RateList?

    @Option(help: ArgumentHelp("1 = Poisson, below burstier, above more even; inf = constant gaps.", valueName: "b"))
    var burstiness: Rate?

    @Option(help: "The rate grows from request to request.")
    var rampUpStrategy: RampStrategy?

    @Option(help: ArgumentHelp("First rate of the ramp.", valueName: "r"))
    var rampUpStartRps: Double?

    @Option(help: ArgumentHelp("Last rate of the ramp.", valueName: "r"))
    var rampUpEndRps: Double?

    @Option(
        help: ArgumentHelp(
            "Most requests at a time. Without --request-rate a closed loop; several, by commas, are a sweep.",
            valueName: "n"))
    var maxConcurrency: CountList?

    @Option(
        help:
            "random: made-up words; prefix_repetition: the same with shared beginnings; custom: JSON lines; sharegpt: a ShareGPT file; timed_trace: JSON lines with times."
    )
    var datasetName: DatasetName = .random

    @Option(help: ArgumentHelp("File of the data set.", valueName: "path"))
    var datasetPath: String?

    @OptionGroup var dataset: DatasetOptions

    @Option(
        name: [.customLong("random-input-len"), .customLong("input-len")],
        help: ArgumentHelp("Tokens of each made-up prompt.", valueName: "n"))
    var randomInputLen: Int?

    @Option(help: ArgumentHelp("Tokens of each answer to a made-up prompt.", valueName: "n"))
    var randomOutputLen: Int?

    @Option(help: ArgumentHelp("Tokens of each answer, whatever the data set.", valueName: "n"))
    var outputLen: Int?

    @Option(
        help: ArgumentHelp("Lengths are drawn from the given ones times 1 ± this, evenly.", valueName: "0…1"))
    var randomRangeRatio = 0.0

    @Option(help: ArgumentHelp("Tokens that all made-up prompts begin with.", valueName: "n"))
    var randomPrefixLen = 0

    @Option(
        name: [.customLong("custom-output-len"), .customLong("sharegpt-output-len")],
        help: ArgumentHelp("Answer length for data sets, in place of the file's.", valueName: "n"))
    var customOutputLen: Int?

    @Flag(help: "Prompts are token ids (completions only).")
    var tokenIds = false

    @Flag(help: "Ask for whole answers instead of streams.")
    var noStream = false

    @Flag(help: "Have the token ids in each chunk, which tells how many tokens were merged into it.")
    var returnTokenIds = false

    @Option(
        help: ArgumentHelp(
            "Folder with the tokenizer that lengths are counted with; default: the model's.", valueName: "path"))
    var tokenizer: String?

    @Option(help: ArgumentHelp("Decides prompts, order and times.", valueName: "n"))
    var seed: UInt64 = 0

    @Option(help: ArgumentHelp("Requests before the measurement starts, for each arm.", valueName: "n"))
    var numWarmups: Int?

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp(
            "Service level for goodput, such as ttft:200 tpot:50 e2el:3000 (ms).", valueName: "metric:ms"))
    var goodput: [GoodputLevel] = []

    @Option(help: ArgumentHelp("Gaps above count as stalls.", valueName: "ms"))
    var stallMs = 50.0

    @Option(
        help: ArgumentHelp("The run is void if the client's p99 of lateness is above.", valueName: "ms"))
    var latenessLimitMs = 1.0

    @Option(
        help: ArgumentHelp(
            "A block is dropped if more than this part of all CPUs was stolen, or used by others. Default: 0.25 for ab; bench "
                + "drops none.", valueName: "0…1"))
    var noiseLimit: Double?

    @Flag(
        help: ArgumentHelp(
            "Count the system calls of the frontends too; needs the right to trace, and makes each call a little dearer."
        ))
    var systemCalls = false

    @Option(help: ArgumentHelp("A request fails when nothing has come for this long.", valueName: "s"))
    var silenceTimeout = 60.0

    mutating func validate() throws {
        if let workload, Workload.presets.first(where: { $0.name == workload }) == nil {
            throw ValidationError(
                "--workload \(workload): known are " + Workload.presets.map(\.name).joined(separator: ", "))
        }
        for (name, value) in [
            ("--num-prompts", numPrompts), ("--random-input-len", randomInputLen),
            ("--random-output-len", randomOutputLen), ("--custom-output-len", customOutputLen),
            ("--output-len", outputLen),
        ] {
            if let value, !(1...10_000_000).contains(value) { throw ValidationError("\(name) must be at least 1") }
        }
        if datasetName.isMadeUp != (datasetPath == nil) {
            throw ValidationError("--dataset-path belongs to --dataset-name custom, sharegpt or timed_trace")
        }
        if rampUpStrategy != nil {
            guard let first = rampUpStartRps, let last = rampUpEndRps, first > 0, last > 0 else {
                throw ValidationError("--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps above 0")
            }
            if requestRate != nil { throw ValidationError("--ramp-up-strategy takes the place of --request-rate") }
        } else if rampUpStartRps != nil || rampUpEndRps != nil {
            throw ValidationError("--ramp-up-start-rps and --ramp-up-end-rps need --ramp-up-strategy")
        }
        if burstiness != nil, requestRate == nil { throw ValidationError("--burstiness needs --request-rate") }
        if (requestRate?.values.count ?? 1) > 1, (maxConcurrency?.values.count ?? 1) > 1 {
            throw ValidationError("one sweep at a time: give several rates or several concurrencies")
        }
        if requestRate != nil, (maxConcurrency?.values.count ?? 1) > 1 {
            throw ValidationError("with --request-rate, --max-concurrency is one number")
        }
        if outputLen != nil, randomOutputLen != nil || customOutputLen != nil {
            throw ValidationError("--output-len takes the place of --random-output-len and --custom-output-len")
        }
        if !(0..<1).contains(randomRangeRatio) {
            throw ValidationError("--random-range-ratio must be from 0 to below 1")
        }
        if let noiseLimit, !(0...1).contains(noiseLimit) { throw ValidationError("--noise-limit must be from 0 to 1") }
        for (name, value) in [
            ("--stall-ms", stallMs), ("--lateness-limit-ms", latenessLimitMs), ("--silence-timeout", silenceTimeout),
        ] where !(value > 0 && value < 1e6) { throw ValidationError("\(name) must be above 0") }
    }

    /// - Parameter fallback: the preset without `--workload`.
    func preset(fallback: String) -> Workload.Preset {
        let name = workload ?? fallback
        return Workload.presets.first { $0.name == name } ?? Workload.presets[0]
    }

    /// - Parameter noise: the limit unless one was given.
    func rules(noise: Double) -> RunRules {
        RunRules(
            latenessLimit: Nanoseconds(latenessLimitMs * 1e6), noiseLimit: noiseLimit ?? noise,
            stallThreshold: Nanoseconds(stallMs * 1e6),
            goodput: Dictionary(goodput.map { ($0.metric, $0.milliseconds) }, uniquingKeysWith: { $1 }))
    }

    /// What is offered: one point, or the points of a sweep.
    func loads(_ preset: Workload.Preset) -> [LoadPoint] {
        if let first = rampUpStartRps, let last = rampUpEndRps {
            return [
                rampUpStrategy == .exponential
                    ? .exponentialRamp(from: first, to: last) : .ramp(from: first, to: last)
            ]
        }
        if let requestRate {
            return requestRate.values.map { rate in
                if rate.isInfinite { return maxConcurrency.map { .concurrency($0.values[0]) } ?? .trace }
                guard let burstiness = burstiness?.value else { return .poisson(rate: rate) }
                if burstiness.isInfinite { return .constant(rate: rate) }
                return burstiness == 1 ? .poisson(rate: rate) : .gamma(rate: rate, burstiness: burstiness)
            }
        }
        if datasetName == .timedTrace { return [.trace] }
        if let maxConcurrency { return maxConcurrency.values.map { .concurrency($0) } }
        return [preset.load]
    }

    /// Requests of a block at each load: enough to keep every stream busy.
    func requestCounts(_ preset: Workload.Preset, loads: [LoadPoint], items: Int) -> [Int] {
        loads.map { load in
            // Not known yet at the first call.
            let most =
                items > 0 && (datasetName == .prefixRepetition || dataset.noOversample && !datasetName.isMadeUp)
                ? items : .max
            if let numPrompts { return min(numPrompts, most) }
            if datasetName == .timedTrace { return items }
            guard let streams = load.concurrency else { return min(preset.requests, most) }
            let usual = preset.load.concurrency ?? streams
            // As many turns for each stream as the preset has, down to the whole of a preset with few streams.
            return min(max(preset.requests / max(usual, 1) * streams, min(preset.requests, streams)), most)
        }
    }

    func makeWorkload(_ preset: Workload.Preset, maker: PromptMaker, count: Int) throws -> Workload {
        let ids = tokenIds || (preset.usesIDs && datasetName.isMadeUp && self.endpoint.kind != .chat)
        let endpoint = self.endpoint.kind ?? (ids ? .completions : preset.endpoint)
        if ids, endpoint == .chat { throw WorkloadError("--token-ids needs --endpoint-kind completions") }
        var items: [Workload.Item] = []
        let input = randomInputLen ?? preset.inputTokens
        let output = outputLen ?? randomOutputLen ?? preset.outputTokens
        switch datasetName {
        case .random:
            // Few enough to be made quickly, enough not to be served from a cache.
            let distinct = min(count, max(16, 2_000_000 / max(input, 1)))
            let prefix = randomPrefixLen > 0 ? maker.text(tokens: randomPrefixLen, seed: seed ^ 0xBEE5) + " " : ""
            let prefixIDs = randomPrefixLen > 0 ? maker.ids(tokens: randomPrefixLen, seed: seed ^ 0xBEE5) : []
            items = (0..<distinct).map { index in
                let key = seed &* 1_000_003 &+ UInt64(index)
                var generator = SeededGenerator(seed: key ^ 0x1E46)
                let input = length(around: input, &generator)
                return Workload.Item(
                    prompt: ids
                        ? .ids(prefixIDs + maker.ids(tokens: input, seed: key))
                        : .text(prefix + maker.text(tokens: input, seed: key)),
                    outputTokens: length(around: output, &generator))
            }
        case .prefixRepetition:
            items = try dataset.prefixRepetition(
                count: count, ids: ids, outputTokens: outputLen, maker: maker, seed: seed)
        case .custom, .timedTrace:
            items = try Datasets.lines(
                path: datasetPath ?? "", limit: numPrompts ?? .max, outputTokens: outputLen ?? customOutputLen,
                maker: maker, seed: seed, unit: dataset.timedTraceSecMultiplier, chunk: dataset.timedTraceChunkHashSize)
            if datasetName == .timedTrace, items.contains(where: { $0.arrival == nil }) {
                throw WorkloadError("\(datasetPath ?? ""): every line of a timed trace needs a timestamp")
            }
        case .sharegpt:
            items = try Datasets.shareGPT(
                path: datasetPath ?? "", limit: numPrompts ?? count, outputTokens: outputLen ?? customOutputLen,
                maker: maker)
        }
        let streaming = !noStream && preset.streaming
        var summary = (streaming ? "streaming " : "whole ") + (endpoint == .chat ? "chat" : "completions")
        if datasetName == .prefixRepetition {
            summary += ", " + dataset.prefixRepetitionSummary(output: outputLen)
        } else if datasetName != .random {
            summary += ", \(items.count) prompts of \(datasetPath ?? "")"
        } else {
            summary += ", \(randomPrefixLen > 0 ? "\(randomPrefixLen) shared + " : "")\(input) \(ids ? "ids " : "")in"
            summary +=
                ", \(output) out" + (randomRangeRatio > 0 ? ", ±\(Int((randomRangeRatio * 100).rounded())) %" : "")
        }
        return Workload(
            name: workload ?? (datasetName == .random ? preset.name : datasetName.rawValue), summary: summary,
            endpoint: endpoint, path: self.endpoint.endpoint, streaming: streaming, items: items,
            keepsOrder: dataset.disableShuffle,
            temperature: sampling.temperature ?? 0,
            ignoresEOS: datasetName.isMadeUp || datasetName == .timedTrace, asksForTokenIDs: returnTokenIds,
            extraBody: sampling.members(endpoint))
    }

    /// As vLLM: from the lower limit, rounded down, to the upper one, rounded up.
    private func length(around mean: Int, _ generator: inout SeededGenerator) -> Int {
        guard randomRangeRatio > 0 else { return mean }
        let low = max(1, Int((Double(mean) * (1 - randomRangeRatio)).rounded(.down)))
        let high = Int((Double(mean) * (1 + randomRangeRatio)).rounded(.up))
        return low + generator.draw(below: high - low + 1)
    }
}

enum RampStrategy: String, ExpressibleByArgument, CaseIterable { case linear, exponential }

enum DatasetName: String, ExpressibleByArgument, CaseIterable {
    case random, custom, sharegpt
    case prefixRepetition = "prefix_repetition"
    case timedTrace = "timed_trace"

    /// Whether it needs no file.
    var isMadeUp: Bool { self == .random || self == .prefixRepetition }
}

/// A positive number, or `inf`.
struct Rate: ExpressibleByArgument {
    let value: Double

    init?(argument: String) {
        guard let value = argument == "inf" ? .infinity : Double(argument), value > 0, !value.isNaN else { return nil }
        self.value = value
    }
}

struct RateList: ExpressibleByArgument {
    let values: [Double]

    init?(argument: String) {
        let rates = argument.split(separator: ",").map { Rate(argument: String($0)) }
        guard !rates.isEmpty, rates.allSatisfy({ $0 != nil }) else { return nil }
        values = rates.compactMap { $0?.value }
        if values.count > 1, values.contains(.infinity) { return nil }
    }
}

struct CountList: ExpressibleByArgument {
    let values: [Int]

    init?(argument: String) {
        values = argument.split(separator: ",").compactMap { Int($0) }.filter { (1...100_000).contains($0) }
        guard !values.isEmpty, values.count == argument.split(separator: ",").count else { return nil }
    }
}

/// `ttft:200`
struct GoodputLevel: ExpressibleByArgument {
    let metric: String
    let milliseconds: Double

    init?(argument: String) {
        let parts = argument.split(separator: ":")
        guard parts.count == 2, ["ttft", "tpot", "e2el"].contains(parts[0]), let value = Double(parts[1]), value > 0
        else {
            return nil
        }
        metric = String(parts[0])
        milliseconds = value
    }
}
