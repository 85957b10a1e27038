import JSONBytes
import Measurement
import Testing

@Suite struct EquivalenceTests {
    private let fast = DifferenceOptions(resamples: 50)

    /// A run whose arms also answered two requests for features.
    private func run(_ change: (inout MeasurementRun) -> Void) -> MeasurementRun {
        var run = SyntheticRun(rounds: 3, noiseFloorRounds: 0, requestsPerBlock: 4).make()
        run.description.features = ["n=2", "tool call"]
        for arm in run.equivalence.indices {
            run.equivalence[arm] += run.equivalence[arm].prefix(2)
        }
        change(&run)
        return run
    }

    @Test func featuresAreCountedApart() throws {
        let run = run {
            $0.equivalence[1][11].choices[0].toolCalls = [ToolCallRecord(name: "f", arguments: "{}")]
            $0.equivalence[1][10].choices[0].logprobs = "a -0.500 []; "
        }
        let report = Report(run, options: fast)
        let result = try #require(report.equivalence.first)
        #expect(result.answersEqual && result.unequalFeatures == 2)
        #expect(result.features.map(\.unequal) == [[.logprobs], [.toolCalls]])
        #expect(result.counts.allSatisfy { $0.compared <= 10 })
        let text = TerminalReport(report, colour: false).text
        #expect(text.contains("features equal: 0/2; different: n=2 (logprobs); tool call (tool calls)"))
        #expect(text.contains("cheaper, features differ") && !text.contains("answers differ"))
        guard case .failed = try FailRule("unequal_features > 1").evaluate(report) else {
            Issue.record("two features differ")
            return
        }
        var bytes: [UInt8] = []
        try RawRecords.write(run) { bytes += $0 }
        let back = Report(try RawRecords.read(bytes), options: fast)
        #expect(JSONReport(back).value == JSONReport(report).value)
    }

    @Test func examplesShowEveryKindOfDifference() throws {
        var run = SyntheticRun(rounds: 3, noiseFloorRounds: 0, requestsPerBlock: 4).make()
        let names = [
            "logprobs, chat, streamed", "logprobs, chat, whole", "logprobs, completions, whole", "n=2, chat, whole",
        ]
        run.description.features = names
        for arm in run.equivalence.indices { run.equivalence[arm] += run.equivalence[arm].prefix(names.count) }
        for index in run.equivalence[1].indices { run.equivalence[1][index].choices[0].text += "!" }
        run.equivalence[1][12].choices[0].logprobs = "a -0.500 []; "
        let result = try #require(Report(run, options: fast).equivalence.first)
        #expect(result.unequalAnswers == 10 && result.unequalFeatures == 4)
        let told = result.examples.filter { $0.aspect != .chunkings }.map { "\($0.place): \($0.aspect.title)" }
        #expect(
            told == (0..<EquivalenceReport.exampleLimit).map { "prompt \($0): texts" } + [
                "logprobs, chat, streamed: texts", "logprobs, completions, whole: logprobs", "n=2, chat, whole: texts",
            ])
    }

    @Test func refusalsOfOneArmAreNoDifference() throws {
        let run = run {
            $0.equivalence[1][10].status = 400
            $0.equivalence[1][10].error = .status
            // Both refuse.
            for arm in 0..<2 {
                $0.equivalence[arm][11].status = 400
                $0.equivalence[arm][11].error = .status
            }
        }
        let report = Report(run, options: fast)
        let result = try #require(report.equivalence.first)
        #expect(result.features.map(\.refusedBy) == [1, nil])
        #expect(result.answersEqual && result.unequalFeatures == 0 && result.unanswered == 0)
        #expect(TerminalReport(report, colour: false).text.contains("features equal: 1/1\nrefused by rust only: n=2\n"))
    }

    @Test func scriptedAnswersAreWrittenInOrder() throws {
        let check = FeatureCheck(model: "m", reasons: true)
        let names = check.features.map(\.name)
        #expect(Set(names).count == names.count)
        for word in ["n=2", "logprobs", "tool call", "stop string", "two prompts", "many scripts", "reasoning"] {
            #expect(names.contains { $0.hasPrefix(word) && $0.hasSuffix("streamed") }, "\(word)")
            #expect(names.contains { $0.hasPrefix(word) && $0.hasSuffix("whole") }, "\(word)")
        }
        for feature in check.features {
            let body = try JSONValue.parse(feature.body)
            #expect(body["model"]?.stringValue == "m")
            let prompts = body["prompt"]?.arrayValue?.count ?? 1
            let choices = (body["n"]?.numberValue?.intValue ?? 1) * prompts
            #expect(feature.answers.count == (feature.name.hasPrefix("refused") ? 0 : choices), "\(feature.name)")
        }
    }

    @Test func logprobsHaveOneFormForBothEndpoints() throws {
        let chat =
            #"{"content":[{"token":"a","logprob":-0.50001,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-2},{"token":"a","logprob":-0.5}]}]}"#
        let completions =
            #"{"tokens":["a"],"token_logprobs":[-0.49999],"top_logprobs":[{"a":-0.5,"b":-2.0}],"text_offset":[0]}"#
        @Sendable func chunk(_ logprobs: String, _ text: String) -> String {
            Answers.chunk(
                "data: {\"choices\":[{\"index\":0,\(text),\"logprobs\":\(logprobs),\"finish_reason\":\"stop\"}]}\n\n")
        }
        let server = try ScriptedServer { number, _ in
            switch number {
            case 1:
                [Answers.streamHead, chunk(chat, #""delta":{"content":"a"}"#), Answers.end(prompt: 1, completion: 1)]
            case 2: [Answers.streamHead, chunk(completions, #""text":"a""#), Answers.end(prompt: 1, completion: 1)]
            case 3:
                [
                    Answers.whole(
                        #"{"choices":[{"message":{"content":"a"},"finish_reason":"stop","logprobs":\#(chat)}]}"#)
                ]
            default:
                [Answers.whole(#"{"choices":[{"text":"a","finish_reason":"stop","logprobs":\#(completions)}]}"#)]
            }
        }
        defer { server.stop() }
        let generator = LoadGenerator()
        defer { generator.shutdown() }
        let target = LoadTarget(address: .tcp(host: "127.0.0.1", port: server.port))
        let plan = LoadPlan(
            templates: [RequestTemplate(path: "/v1/completions", body: "{}", target: target)],
            requests: (0..<4).map { _ in PlannedRequest(item: 0, seed: 0) }, offsets: nil, concurrency: 1)
        let answers = try generator.run(plan, for: target, arm: 0, block: 0).requests
        #expect(
            answers.map { $0.choices.first?.logprobs } == Array(repeating: "a -0.500 [a -0.500, b -2.000]; ", count: 4))
    }
}
