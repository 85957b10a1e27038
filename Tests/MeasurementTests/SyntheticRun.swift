import Measurement

/// A made-up run with known differences: the second arm's own part of every latency is `slowdown` times the first one's.
struct SyntheticRun {
    var arms = ["swift", "rust"]
    var slowdown = [1.0, 1.25]
    var loads: [LoadPoint] = [.poisson(rate: 40)]
    var rounds = 6
    var noiseFloorRounds = 4
    var requestsPerBlock = 24
    var outputTokens = 16
    var streaming = true
    var stamps = true
    var seed: UInt64 = 11

    private let millisecond = 1_000_000.0

    func make() -> MeasurementRun {
        var random = SeededGenerator(seed: seed)
        var run = MeasurementRun(description: description)
        var clock: Nanoseconds = 5_000_000_000
        for (load, point) in loads.enumerated() {
            for round in 0..<noiseFloorRounds {
                for column in 0..<2 {
                    addBlock(&run, .noiseFloor, round, column, arm: 0, load, point, &clock, &random)
                }
            }
            for round in 0..<rounds {
                for position in arms.indices {
                    let arm = round % 2 == 0 ? position : arms.count - 1 - position
                    addBlock(&run, .comparison, round, arm, arm: arm, load, point, &clock, &random)
                }
            }
        }
        run.equivalence = arms.indices.map { arm in
            (0..<10).map { item in
                var record = RequestRecord(
                    arm: arm, block: 0, index: item, item: item, seed: 1, intendedSend: clock, actualSend: clock,
                    end: clock + 1000, status: 200)
                record.usage = TokenUsage(promptTokens: 7, completionTokens: 3)
                record.choices = [
                    ChoiceRecord(
                        text: "answer <\(item)> & more", finishReason: "stop", pieces: item == 3 ? [3 + arm, 9] : [12])
                ]
                return record
            }
        }
        return run
    }

    private var description: RunDescription {
        RunDescription(
            command: "ab", arguments: ["--frontends", arms.joined(separator: ",")], version: "0.1",
            startedAt: 1_700_000_000,
            arms: arms.map {
                ArmDescription(name: $0, version: "1.0", startSeconds: 0.05, idleResidentBytes: 20_000_000)
            },
            workload: WorkloadDescription(
                name: "chat", summary: "chat", path: "/v1/chat/completions", streaming: streaming,
                requestsPerBlock: requestsPerBlock, inputTokens: 32, outputTokens: outputTokens),
            loads: loads, engine: "mock (itl 10 ms)", seed: seed,
            machine: MachineDescription(cpuModel: "Test <CPU>", cpus: 2, kernel: "6.1", memoryBytes: 8 << 30),
            rules: RunRules(goodput: ["ttft": 100]))
    }

    private func addBlock(
        _ run: inout MeasurementRun, _ purpose: BlockRecord.Purpose, _ round: Int, _ column: Int, arm: Int, _ load: Int,
        _ point: LoadPoint, _ clock: inout Nanoseconds, _ random: inout SeededGenerator
    ) {
        func uniform() -> Double { Double(random.next() >> 11) / Double(UInt64(1) << 53) }
        // Sum of uniforms: near enough to a bell, exact on every platform.
        func bell() -> Double { (0..<6).reduce(-3.0) { sum, _ in sum + uniform() } }
        let rate = point.rate ?? Double(point.concurrency ?? 10)
        let pressure = 1 + (rate / 100) * (rate / 100)
        let machine = 1 + 0.02 * bell()
        let start = clock
        let blockIndex = run.blocks.count
        var end = start
        for index in 0..<requestsPerBlock {
            let intended = start + Nanoseconds(Double(index) / rate * 1e9 * (0.9 + 0.2 * uniform()))
            let sent = intended + Nanoseconds(20_000 * uniform())
            func own(_ milliseconds: Double) -> Nanoseconds {
                let tail = uniform() < 0.02 ? 5.0 : 1
                let size = milliseconds * slowdown[arm] * machine * pressure * (1 + 0.3 * abs(bell())) * tail
                return Nanoseconds(size * millisecond)
            }
            let received = sent + own(0.4)
            var engine = EngineStamps(received: received)
            var offsets: [Nanoseconds] = []
            var step = received + Nanoseconds(5 * millisecond)
            for _ in 0..<outputTokens {
                engine.steps.append(step)
                engine.stepTokens.append(1)
                offsets.append(max(step + own(0.2) - sent, (offsets.last ?? 0) + 1))
                step += Nanoseconds((10 + 0.2 * bell()) * millisecond)
            }
            let last = sent + (offsets.last ?? 0) + own(0.05)
            var record = RequestRecord(
                arm: arm, block: blockIndex, index: index, item: index, seed: random.next(), intendedSend: intended,
                actualSend: sent, firstByte: sent + (offsets.first ?? 0) - 1000,
                firstToken: streaming ? sent + (offsets.first ?? 0) : last, end: last, status: 200)
            if streaming {
                record.chunkOffsets = offsets
                record.chunkTokens = offsets.map { _ in 1 }
            }
            record.usage = TokenUsage(promptTokens: 32, completionTokens: outputTokens)
            record.bytesReceived = 300 + outputTokens * 180
            record.reads = outputTokens
            record.segments = outputTokens
            if stamps { record.engine = engine }
            run.requests.append(record)
            end = max(end, last)
        }
        let tokens = Double(requestsPerBlock * outputTokens)
        func usage(_ microseconds: Double) -> ProcessTreeUsage {
            let cpu = Nanoseconds(microseconds * tokens * 1000 * (1 + 0.02 * bell()))
            return ProcessTreeUsage(
                cpu: cpu, user: cpu / 2, system: cpu - cpu / 2, voluntarySwitches: Int(tokens), involuntarySwitches: 3,
                systemCalls: Int(tokens * slowdown[arm]),
                residentBytes: Int(60e6 * slowdown[arm]),
                proportionalBytes: Int(55e6 * slowdown[arm]), peakResidentBytes: Int(61e6 * slowdown[arm]), threads: 4,
                processes: 1)
        }
        run.blocks.append(
            BlockRecord(
                purpose: purpose, round: round, position: column, column: column, arm: arm, load: load, seed: 1,
                start: start,
                end: end, frontend: usage(10 * slowdown[arm]), engine: usage(3), client: usage(5),
                noise: MachineNoise(steal: 0.003, otherCPU: 0.01, loadAverage: 1.2, megahertz: 2400),
                lateness: ClientLateness(p50: 10_000, p99: 20_000, highest: 20_000)))
        var traffic = EngineTraffic()
        traffic.requests = requestsPerBlock
        traffic.requestBytes = 500 * requestsPerBlock
        traffic.outputBytes = 84 * requestsPerBlock * outputTokens
        run.blocks[run.blocks.count - 1].traffic = traffic
        clock = end + 100_000_000
    }
}
