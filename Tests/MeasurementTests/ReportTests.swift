import JSONBytes
import Measurement
import Testing

@Suite struct ReportTests {
    private let fast = DifferenceOptions(resamples: 200)

    private func report(_ synthetic: SyntheticRun = SyntheticRun()) -> Report {
        Report(synthetic.make(), options: fast)
    }

    @Test func oneRequestByHand() throws {
        // Sent 1 ms late at t = 10; engine receives at 13 and steps at 20, 30, 31 with 1, 1, 2 tokens; chunks come at 22, 33
        // (two tokens of two steps) and 35.
        let ms: Nanoseconds = 1_000_000
        var request = RequestRecord(
            arm: 0, block: 0, index: 0, item: 0, seed: 0, intendedSend: 9 * ms, actualSend: 10 * ms,
            firstToken: 22 * ms,
            end: 36 * ms, chunkOffsets: [12 * ms, 23 * ms, 25 * ms], chunkTokens: [1, 2, 1], status: 200)
        request.usage = TokenUsage(promptTokens: 5, completionTokens: 4)
        request.bytesReceived = 400
        request.segments = 3
        request.engine = EngineStamps(received: 13 * ms, steps: [20 * ms, 30 * ms, 31 * ms], stepTokens: [1, 1, 2])
        let usage = ProcessTreeUsage(cpu: 8000, systemCalls: 6, residentBytes: 5_000_000, processes: 1)
        let block = BlockRecord(
            purpose: .comparison, round: 0, position: 0, column: 0, arm: 0, load: 0, seed: 0, start: 9 * ms,
            end: 36 * ms,
            frontend: usage)
        var failed = request
        failed.status = 500
        failed.error = .status
        let rules = RunRules(stallThreshold: 10 * ms, goodput: ["ttft": 13, "tpot": 5, "e2el": 27])
        let measures = BlockMeasures(block: block, requests: [request, failed], rules: rules)
        func samples(_ family: SampleFamily) -> [Double] {
            (measures.samples[family] ?? []).map { ($0 * 1000).rounded() / 1000 }
        }
        #expect(samples(.ttft) == [13])
        #expect(samples(.ttftService) == [12])
        #expect(samples(.itl) == [11, 2])
        #expect(samples(.itlToken) == [11, 0, 2])
        #expect(samples(.tpot) == [4.333])
        #expect(samples(.e2el) == [27])
        #expect(samples(.e2elService) == [26])
        #expect(samples(.longestGap) == [11])
        #expect(samples(.requestPath) == [3])
        // 12 ms to the first chunk, of which the engine had 7.
        #expect(samples(.ttftAdded) == [5])
        #expect(samples(.e2elAdded) == [8])
        // Chunks come from the steps of their first tokens, 20, 30 and 31.
        #expect(samples(.tokenPath) == [2, 3, 4])
        #expect(samples(.itlAdded) == [1, 1])
        func ratio(_ metric: RatioMetric) -> Double? { measures.sums[metric].map { $0.numerator / $0.denominator } }
        #expect(ratio(.stalls) == 1000)
        #expect(ratio(.failedRequests) == 50)
        #expect(ratio(.frontendCPUPerToken) == 2)
        #expect(ratio(.frontendCPUPerRequest) == 4)
        #expect(ratio(.engineCPUPerToken) == nil)
        #expect(ratio(.systemCalls) == 1.5)
        #expect(ratio(.segmentsPerToken) == 1.5)
        #expect(ratio(.bytesPerToken) == 200)
        #expect(ratio(.residentMemory) == 5)
        #expect(ratio(.goodput).map { ($0 * 0.027 * 1000).rounded() } == 1000)
        #expect(measures.chunkSizes == [1: 2, 2: 1])
        #expect(measures.failures == [.status: 1])
    }

    @Test func knownDifferencesAreFound() throws {
        let report = report()
        let load = try #require(report.loads.first)
        #expect(load.rounds == 6 && load.noiseFloorRounds == 4)
        for name in ["p50_ttft_added", "p50_token_path", "mean_request_path"] {
            let comparison = try #require(load.row(name)?.comparisons.first)
            #expect(comparison.verdict == .faster, "\(name)")
            #expect(comparison.difference.low < -0.2 && comparison.difference.high > -0.2, "\(name)")
        }
        #expect(load.row("frontend_cpu_per_token")?.comparisons.first?.verdict == .cheaper)
        #expect(load.row("engine_cpu_per_token")?.comparisons.first?.verdict == .noDifferenceShown)
        #expect(load.row("bytes_per_token")?.comparisons.first?.verdict == .equal)
        #expect(load.row("zmq_bytes_per_token")?.values == [84 + 500.0 / 16, 84 + 500.0 / 16])
        #expect(load.row("zmq_bytes_per_request")?.values == [500, 500])
        #expect(load.row("tokens_per_chunk")?.comparisons.first?.verdict == .some(nil))
        let floor = try #require(load.row("p50_ttft")?.noiseFloor)
        #expect(floor > 0 && floor < 0.1)
        #expect(report.equivalence.first?.answersEqual == true)
    }

    @Test func equalArmsShowNoDifference() throws {
        var synthetic = SyntheticRun()
        synthetic.slowdown = [1, 1]
        for row in try #require(report(synthetic).loads.first).rows where row.metric.headline {
            let verdict = row.comparisons.first?.verdict
            #expect(verdict == .equal || verdict == .noDifferenceShown || verdict == .tooNoisy, "\(row.metric.name)")
        }
    }

    @Test func aDroppedBlockTakesItsRoundAlong() throws {
        var run = SyntheticRun().make()
        let index = try #require(run.blocks.firstIndex { $0.purpose == .comparison && $0.round == 2 })
        run.blocks[index].dropped = "steal 40%"
        let report = Report(run, options: fast)
        #expect(report.loads.first?.rounds == 5)
        #expect(report.noise.dropped.map(\.block) == [index])
    }

    @Test func withoutStampsNothingIsCalledAdded() throws {
        var synthetic = SyntheticRun()
        synthetic.stamps = false
        synthetic.streaming = false
        let load = try #require(report(synthetic).loads.first)
        #expect(load.row("p50_ttft_added") == nil && load.row("p99_itl") == nil)
        #expect(load.row("p99_e2el") != nil)
    }

    @Test func oneArmHasValuesOnly() throws {
        var synthetic = SyntheticRun()
        synthetic.arms = ["swift"]
        synthetic.noiseFloorRounds = 0
        let report = report(synthetic)
        #expect(report.loads.first?.rows.allSatisfy { $0.comparisons.isEmpty } == true)
        #expect(TerminalReport(report, colour: false).text.contains("ttft p50"))
    }

    @Test func differentAnswersAreFlagged() throws {
        var run = SyntheticRun().make()
        run.equivalence[1][4].choices[0].text = "another answer \u{1B}[31m"
        run.equivalence[1][5].choices[0].finishReason = "length"
        run.equivalence[1][6].usage = nil
        run.equivalence[1][7].error = .incomplete
        run.equivalence[1][8].choices[0].toolCalls = [ToolCallRecord(name: "f", arguments: "{}")]
        let report = Report(run, options: fast)
        let result = try #require(report.equivalence.first)
        func count(_ aspect: EquivalenceReport.Aspect) -> EquivalenceReport.Count? {
            result.counts.first { $0.aspect == aspect }
        }
        #expect(count(.texts) == .init(aspect: .texts, equal: 8, compared: 10))
        #expect(count(.finishReasons) == .init(aspect: .finishReasons, equal: 8, compared: 9))
        #expect(count(.usage) == .init(aspect: .usage, equal: 8, compared: 9))
        #expect(count(.toolCalls) == .init(aspect: .toolCalls, equal: 0, compared: 1))
        #expect(count(.chunkings) == .init(aspect: .chunkings, equal: 8, compared: 9))
        #expect(result.unequalAnswers == 5 && result.unanswered == 1)
        let text = TerminalReport(report, colour: false).text
        #expect(text.contains("cheaper, but answers differ"))
        #expect(!text.contains("\u{1B}"))
    }

    @Test func terminalTable() throws {
        let report = report()
        let text = TerminalReport(report, colour: false).text
        let lines = text.split(separator: "\n").map(String.init)
        #expect(
            lines.first
                == "ab: swift 1.0 vs rust 1.0   engine=mock (itl 10 ms)   12 blocks   poisson 40.0/s   chat, 32 in, up to 16 out"
        )
        #expect(lines[1].hasPrefix("A/A noise floor: ttft p50 ±"))
        #expect(lines.contains { $0.hasPrefix("frontend cpu") && $0.contains("us/token") && $0.hasSuffix("cheaper") })
        #expect(
            lines.contains {
                $0.contains("output equal: 10/10 texts, 10/10 usage, 10/10 finish reasons, 9/10 chunkings")
            })
        #expect(lines.allSatisfy { !$0.hasSuffix(" ") })
        #expect(TerminalReport(report, colour: true).text.contains("\u{1B}[32mcheaper"))
        var void = SyntheticRun().make()
        void.voidReasons = ["the client was late"]
        let voidText = TerminalReport(Report(void, options: fast), colour: false).text
        #expect(voidText.contains("VOID: the client was late") && !voidText.contains("faster"))
    }

    @Test(arguments: [60, 90, 110, 140])
    func narrowTerminals(_ width: Int) throws {
        var synthetic = SyntheticRun(loads: [.poisson(rate: 20), .poisson(rate: 40), .poisson(rate: 80)])
        synthetic.rounds = 2
        let text = TerminalReport(report(synthetic), colour: false, width: width).text
        let lines = text.split(separator: "\n")
        // A part that does not fit alone is left to the terminal.
        #expect(lines.allSatisfy { $0.count <= width || !$0.contains("   ") }, "\(text)")
        #expect(text.contains("frontend cpu") && text.contains("cheaper"))
        #expect(lines.contains { $0.hasPrefix("knee of ttft added p99:") })
    }

    @Test func aLimitFarAwayIsNotSpeltOut() throws {
        var run = SyntheticRun(rounds: 2, noiseFloorRounds: 0).make()
        for index in run.blocks.indices where run.blocks[index].round == 1 && run.blocks[index].column == 0 {
            run.blocks[index].frontend.cpu *= 30
        }
        let text = TerminalReport(Report(run, options: fast), colour: false).text
        #expect(text.contains(">+999]"))
    }

    @Test func jsonDocument() throws {
        let text = JSONReport(report()).text
        let value = try JSONValue.parse(text)
        #expect(value["schema"]?.stringValue == "vllm-engine.measurement/1")
        let load = try #require(value["loads"]?.arrayValue?.first)
        let metric = try #require(
            load["metrics"]?.arrayValue?.first { $0["name"]?.stringValue == "frontend_cpu_per_token" })
        let comparison = try #require(metric["comparisons"]?.arrayValue?.first)
        #expect(comparison["verdict"]?.stringValue == "cheaper")
        #expect(comparison["blocks"]?.arrayValue?.count == 6)
        #expect(metric["unit"]?.stringValue == "us/token")
        #expect(!text.contains("NaN") && !text.contains("Infinity"))
    }

    @Test func recordsComeBackAsTheyWere() throws {
        var run = SyntheticRun().make()
        run.requests[3].error = .errorEvent
        run.requests[3].errorDetail = "line\nbreak \"quoted\""
        run.requests[4].engine = nil
        run.requests[5].seed = .max
        run.requests[6].usage?.cachedTokens = 4
        run.equivalence[0][0].choices[0].toolCalls = [ToolCallRecord(name: "f", arguments: "{\"a\":1}")]
        run.voidReasons = ["because"]
        var bytes: [UInt8] = []
        try RawRecords.write(run) { bytes += $0 }
        let back = try RawRecords.read(bytes)
        #expect(back.voidReasons == ["because"] && back.blocks.count == run.blocks.count)
        #expect(back.requests[3].error == .errorEvent && back.requests[3].errorDetail == run.requests[3].errorDetail)
        #expect(back.requests[5].seed == .max && back.requests[4].engine == nil)
        #expect(back.requests[6].usage == run.requests[6].usage)
        #expect(back.equivalence[0][0].choices == run.equivalence[0][0].choices)
        let last = run.requests.count - 1
        #expect(back.requests[last].engine?.steps == run.requests[last].engine?.steps)
        #expect(back.requests[last].chunkOffsets == run.requests[last].chunkOffsets)
        // Every number of the report can be computed again.
        #expect(JSONReport(Report(back, options: fast)).value == JSONReport(Report(run, options: fast)).value)
    }

    @Test func damagedRecordsAreRefusedWithTheirLine() throws {
        var bytes: [UInt8] = []
        try RawRecords.write(SyntheticRun(rounds: 1, noiseFloorRounds: 0, requestsPerBlock: 2).make()) { bytes += $0 }
        let text = String(decoding: bytes, as: UTF8.self)
        func error(_ text: String) -> String {
            do {
                _ = try RawRecords.read([UInt8](text.utf8))
                return "read"
            } catch { return error.description }
        }
        #expect(error(text) == "read")
        #expect(error("") == "line 1: the file is empty")
        #expect(error("{}\n") == "line 1: not the header of a vllm-engine.records/1 file")
        #expect(
            error(text.replacing("records/1", with: "records/9"))
                == "line 1: schema 'vllm-engine.records/9' is not vllm-engine.records/1")
        #expect(error(text + "{}\n").contains("lines too many"))
        #expect(error(String(text.dropLast(8))).hasPrefix("line 25: "))
        #expect(
            error(text.replacing("\"intended\":", with: "\"intended\":9223372036854775807,\"x\":")).contains(
                "out of range"))
        #expect(
            error(text.replacing("\"chunk_tokens\":[1", with: "\"chunk_tokens\":[-1")).contains("-1, which is no count")
        )
    }

    @Test func serveSummaryHasTheKeysOfVLLM() throws {
        let report = report()
        let labels = ServeSummary.Labels(
            backend: "openai-chat", model: "tiny", tokenizer: "tiny", date: "20260101-000000")
        let value = ServeSummary(
            report, load: report.loads[0], arm: 1, labels: labels, detailed: true,
            metrics: ["ttft", "tpot", "itl", "e2el"], percentiles: [99, 99.9]
        ).value
        #expect(value["completed"]?.numberValue?.intValue == 144)
        #expect(value["request_rate"]?.numberValue?.doubleValue == 40)
        #expect(value["itls"]?.arrayValue?.first?.arrayValue?.count == 15)
        for key in ["mean_ttft_ms", "std_tpot_ms", "median_itl_ms", "p99.9_e2el_ms", "max_output_tokens_per_s"] {
            #expect(value[key]?.numberValue != nil, "\(key)")
        }
        let times = try #require(value["ttfts"]?.arrayValue).compactMap { $0.numberValue?.doubleValue }
        let p99 = try #require(value["p99_ttft_ms"]?.numberValue?.doubleValue)
        #expect(abs(try #require(Percentiles.quantile(of: times, 0.99)) * 1000 - p99) < 1e-9)
    }
}
