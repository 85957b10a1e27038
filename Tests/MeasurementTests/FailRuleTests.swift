import Measurement
import Testing

@Suite struct FailRuleTests {
    private func problem(_ text: String) -> String {
        do {
            _ = try FailRule(text)
            return "none"
        } catch { return error.description }
    }

    @Test func rulesAreRead() throws {
        let rule = try FailRule("p99_ttft_added > +5% at 95%")
        #expect(rule.metric == "p99_ttft_added" && rule.comparison == .above && rule.level == 0.95)
        #expect(rule.limit == .relative(0.05))
        #expect(try FailRule("output_throughput<-10% vs rust").limit == .relative(-0.1))
        #expect(try FailRule("output_throughput<-10% vs rust").baseline == "rust")
        #expect(try FailRule("p99_itl > +200us").limit == .absolute(0.2))
        #expect(try FailRule("p99_itl > +0.2 ms at 90%").limit == .absolute(0.2))
        #expect(try FailRule("p50_ttft > 0.5s").limit == .value(500))
        #expect(try FailRule("frontend_cpu_per_token > 4us").limit == .value(4))
        #expect(try FailRule("failed_requests > 1%").limit == .value(1))
        #expect(try FailRule("unequal_answers > 0").limit == .value(0))
    }

    @Test func mistakesAreExplained() {
        #expect(problem("p99_ttfd > +5%").hasPrefix("unknown metric 'p99_ttfd'; known are: p50_ttft, "))
        #expect(problem("p99_ttft").hasPrefix("metric, operator or limit missing"))
        #expect(problem("p99_ttft = +5%").hasPrefix("the operator is not > or <"))
        #expect(problem("p99_ttft > 5%").hasPrefix("'5%' is not a limit such as +5%, +2ms or 50"))
        #expect(problem("p99_ttft > +5MB").contains("'+5MB' is not a limit"))
        #expect(problem("p99_ttft > +5% at 100%").contains("'100%' is not a percentage"))
        #expect(problem("p99_ttft > +5% at").contains("nothing after 'at'"))
        #expect(problem("p99_ttft > +5% or 3").contains("'or' is not expected"))
        #expect(problem("p99_ttft > 50 at 95%").contains("a level needs a difference"))
        #expect(problem("unequal_answers > +1").contains("is a count"))
        #expect(problem("p99_ttft > +1e999%").contains("is not a limit"))
    }

    @Test func rulesDecide() throws {
        let fast = DifferenceOptions(resamples: 200)
        let run = SyntheticRun(arms: ["slow", "quick"], slowdown: [1.25, 1]).make()
        let report = Report(run, options: fast)
        func outcome(_ rule: String, _ report: Report) throws -> String {
            switch try FailRule(rule).evaluate(report) {
            case .passed: "passed"
            case .failed: "failed"
            case .undecidable: "undecidable"
            }
        }
        #expect(try outcome("p50_ttft_added > +5% at 95%", report) == "failed")
        #expect(try outcome("p50_ttft_added > +25% at 95%", report) == "passed")
        #expect(try outcome("p50_ttft_added > +15%", report) == "failed")
        #expect(try outcome("p50_ttft_added > +0.05ms at 99%", report) == "failed")
        #expect(try outcome("p50_ttft_added < -1%", report) == "passed")
        #expect(try outcome("p50_ttft > 4", report) == "failed")
        #expect(try outcome("p50_ttft > 400", report) == "passed")
        #expect(try outcome("p50_ttft > +5% vs nobody", report) == "undecidable")
        #expect(try outcome("unequal_answers > 0", report) == "passed")
        #expect(try FailRule("p50_ttft_added > +5% at 95%").evaluate(report).message.contains("against quick"))
        var void = run
        void.voidReasons = ["late"]
        #expect(try outcome("p50_ttft > 400", Report(void, options: fast)) == "undecidable")
        var unstamped = SyntheticRun()
        unstamped.stamps = false
        #expect(try outcome("p99_ttft_added > +5%", Report(unstamped.make(), options: fast)) == "undecidable")
    }
}
