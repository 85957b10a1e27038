/// The samples and sums of one block.
package struct BlockMeasures: Sendable {
    package private(set) var samples: [SampleFamily: [Double]] = [:]
    package private(set) var sums: [RatioMetric: BlockSum] = [:]
    /// Chunks by the number of tokens they carry.
    package private(set) var chunkSizes: [Int: Int] = [:]
    package private(set) var requestCount = 0
    package private(set) var failures: [RequestFailure: Int] = [:]
    package private(set) var outputTokens = 0
    package private(set) var inputTokens = 0

    /// - Parameter requests: those of this block, of any outcome; latencies come from the successful ones.
    package init(block: BlockRecord, requests: [RequestRecord], rules: RunRules) {
        var counts = Counts()
        requestCount = requests.count
        for request in requests {
            counts.bytes += request.bytesReceived
            counts.segments = counts.segments.flatMap { sum in request.segments.map { sum + $0 } }
            guard request.succeeded else {
                failures[request.error ?? .status, default: 0] += 1
                continue
            }
            counts.completed += 1
            outputTokens += request.outputTokens
            inputTokens += request.usage?.promptTokens ?? 0
            let levels = addTimes(of: request)
            if levels.within(rules.goodput) { counts.good += 1 }
            addGaps(of: request, threshold: Double(rules.stallThreshold) * 1e-6, to: &counts)
            addEngineShare(of: request)
        }
        addSums(block: block, counts: counts, rules: rules)
    }

    private struct Counts {
        var completed = 0
        var good = 0
        var streams = 0
        var stalls = 0
        var stalledStreams = 0
        var chunks = 0
        var chunkTokens = 0
        var bytes = 0
        /// Nil if one of the answers does not tell.
        var segments: Int? = 0
    }

    /// What service levels are about, in milliseconds.
    private struct Levels {
        var ttft: Double?
        var tpot: Double?
        var e2el: Double

        func within(_ limits: [String: Double]) -> Bool {
            limits.allSatisfy { name, limit in
                switch name {
                case "ttft": ttft.map { $0 <= limit } ?? false
                // A single token has no time per token after the first.
                case "tpot": tpot.map { $0 <= limit } ?? true
                case "e2el": e2el <= limit
                default: false
                }
            }
        }
    }

    private mutating func add(_ value: Double, to family: SampleFamily) { samples[family, default: []].append(value) }

    private func milliseconds(_ span: Nanoseconds) -> Double { Double(span) * 1e-6 }

    private mutating func addTimes(of request: RequestRecord) -> Levels {
        var levels = Levels(e2el: milliseconds(request.end - request.intendedSend))
        add(levels.e2el, to: .e2el)
        add(milliseconds(request.end - request.actualSend), to: .e2elService)
        if let first = request.firstToken {
            let ttft = milliseconds(first - request.intendedSend)
            levels.ttft = ttft
            add(ttft, to: .ttft)
            add(milliseconds(first - request.actualSend), to: .ttftService)
        }
        if let first = request.chunkOffsets.first, let last = request.chunkOffsets.last,
            let tpot = Gaps.timePerOutputToken(
                first: milliseconds(first), last: milliseconds(last), tokens: request.outputTokens)
        {
            levels.tpot = tpot
            add(tpot, to: .tpot)
        }
        return levels
    }

    private mutating func addGaps(of request: RequestRecord, threshold: Double, to counts: inout Counts) {
        guard !request.chunkOffsets.isEmpty else { return }
        counts.streams += 1
        let arrivals = request.chunkOffsets.map(milliseconds)
        let gaps = Gaps.perChunk(arrivals: arrivals)
        samples[.itl, default: []].append(contentsOf: gaps)
        let stalls = gaps.count { $0 > threshold }
        counts.stalls += stalls
        if stalls > 0 { counts.stalledStreams += 1 }
        if let longest = gaps.max() { add(longest, to: .longestGap) }
        guard request.chunkTokens.count == arrivals.count else { return }
        let tokens = request.chunkTokens.map(Int.init)
        samples[.itlToken, default: []].append(contentsOf: Gaps.perToken(arrivals: arrivals, tokens: tokens))
        for count in tokens { chunkSizes[count, default: 0] += 1 }
        counts.chunks += tokens.count
        counts.chunkTokens += tokens.reduce(0, +)
    }

    private mutating func addEngineShare(of request: RequestRecord) {
        guard let engine = request.engine, let firstStep = engine.steps.first, let lastStep = engine.steps.last else {
            return
        }
        add(milliseconds(engine.received - request.actualSend), to: .requestPath)
        add(milliseconds((request.end - request.actualSend) - (lastStep - engine.received)), to: .e2elAdded)
        guard let firstOffset = request.chunkOffsets.first else { return }
        add(milliseconds(firstOffset - (firstStep - engine.received)), to: .ttftAdded)
        guard let steps = request.stepOfChunk else { return }
        var last: Nanoseconds?
        for (offset, step) in zip(request.chunkOffsets, steps) {
            let delay = request.actualSend + offset - step
            add(milliseconds(delay), to: .tokenPath)
            if let last { add(milliseconds(delay - last), to: .itlAdded) }
            last = delay
        }
    }

    private mutating func addSums(block: BlockRecord, counts: Counts, rules: RunRules) {
        func set(_ metric: RatioMetric, _ numerator: Double, per denominator: Double) {
            sums[metric] = BlockSum(numerator: numerator, denominator: denominator)
        }
        let tokens = Double(outputTokens)
        set(.failedRequests, Double(failures.values.reduce(0, +)) * 100, per: Double(requestCount))
        set(.outputThroughput, tokens, per: block.wallSeconds)
        set(.requestThroughput, Double(counts.completed), per: block.wallSeconds)
        if !rules.goodput.isEmpty { set(.goodput, Double(counts.good), per: block.wallSeconds) }
        set(.bytesPerToken, Double(counts.bytes), per: tokens)
        if let segments = counts.segments { set(.segmentsPerToken, Double(segments), per: tokens) }
        if let traffic = block.traffic, traffic.requests > 0 {
            set(.engineBytesPerToken, Double(traffic.requestBytes + traffic.outputBytes), per: tokens)
            set(.engineBytesPerRequest, Double(traffic.requestBytes), per: Double(traffic.requests))
        }
        if counts.streams > 0 {
            set(.stalls, Double(counts.stalls) * 1000, per: Double(counts.streams))
            set(.stalledStreams, Double(counts.stalledStreams) * 100, per: Double(counts.streams))
        }
        if counts.chunks > 0 { set(.tokensPerChunk, Double(counts.chunkTokens), per: Double(counts.chunks)) }
        for (usage, perToken, perRequest) in [
            (block.frontend, RatioMetric.frontendCPUPerToken, RatioMetric.frontendCPUPerRequest),
            (block.engine, .engineCPUPerToken, .engineCPUPerRequest),
            (block.client, .clientCPUPerToken, .clientCPUPerRequest),
        ] where usage.processes > 0 {
            set(perToken, Double(usage.cpu) * 1e-3, per: tokens)
            set(perRequest, Double(usage.cpu) * 1e-3, per: Double(requestCount))
        }
        // A frontend elsewhere, behind a URL, has no processes here.
        guard block.frontend.processes > 0 else { return }
        set(.voluntarySwitches, Double(block.frontend.voluntarySwitches), per: tokens)
        set(.involuntarySwitches, Double(block.frontend.involuntarySwitches), per: tokens)
        if let calls = block.frontend.systemCalls { set(.systemCalls, Double(calls), per: tokens) }
        set(.residentMemory, Double(block.frontend.residentBytes) * 1e-6, per: 1)
        set(.peakResidentMemory, Double(block.frontend.peakResidentBytes) * 1e-6, per: 1)
        if let bytes = block.frontend.proportionalBytes { set(.proportionalMemory, Double(bytes) * 1e-6, per: 1) }
    }
}

extension RequestRecord {
    /// For each chunk, when the engine handed on the step with its first token. Nil when the answer does not tell how many
    /// tokens its chunks have and there is not one chunk for every step.
    package var stepOfChunk: [Nanoseconds]? {
        guard let engine else { return nil }
        guard chunkTokens.count == chunkOffsets.count, engine.stepTokens.count == engine.steps.count else {
            // A last step may carry the end of sequence alone, which has no text.
            let missing = engine.steps.count - chunkOffsets.count
            return missing == 0 || missing == 1 ? Array(engine.steps.prefix(chunkOffsets.count)) : nil
        }
        var steps: [Nanoseconds] = []
        steps.reserveCapacity(chunkOffsets.count)
        var step = 0
        var tokensThroughStep = engine.stepTokens.first.map(Int.init) ?? 0
        var tokensBeforeChunk = 0
        for count in chunkTokens {
            while tokensThroughStep <= tokensBeforeChunk, step + 1 < engine.steps.count {
                step += 1
                tokensThroughStep += Int(engine.stepTokens[step])
            }
            guard step < engine.steps.count else { return nil }
            steps.append(engine.steps[step])
            tokensBeforeChunk += Int(count)
        }
        return steps
    }
}
