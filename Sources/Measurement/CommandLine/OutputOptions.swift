import ArgumentParser
import Glibc
import JSONBytes
import Supervision

/// What becomes of the results.
struct OutputOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Write every number of the report as JSON; - for standard output.", valueName: "path"))
    var json: String?

    @Option(
        help: ArgumentHelp(
            "Write the raw records, every chunk of every request, from which the report can be computed again.",
            valueName: "path"))
    var records: String?

    @Option(help: ArgumentHelp("Write a page with tables and figures, one HTML file.", valueName: "path"))
    var html: String?

    @Flag(help: "Show every metric instead of the important ones.")
    var allMetrics = false

    @Option(
        help: ArgumentHelp(
            "Exit with 1 if this holds, such as 'p99_ttft_added > +5%'; may be repeated.", valueName: "rule"))
    var failIf: [String] = []

    @Flag(name: [.long, .customLong("disable-tqdm")], help: "No progress bar.")
    var noProgress = false

    mutating func validate() throws {
        for rule in failIf {
            do { _ = try FailRule(rule) } catch { throw ValidationError("--fail-if: \(error)") }
        }
        if json == "-", records == "-" { throw ValidationError("--json and --records cannot both be -") }
    }

    /// Whether standard output is for a program.
    var isForPrograms: Bool { json == "-" || records == "-" }

    /// Writes what was asked for.
    /// - Throws: exit code 1 for a void run, one without a result, or a rule that holds.
    func deliver(_ run: MeasurementRun) throws {
        let report = Report(run)
        if !isForPrograms {
            let output = LogOutput(descriptor: STDOUT_FILENO)
            output.write(
                Array(
                    TerminalReport(
                        report, colour: output.isTerminal, everyMetric: allMetrics,
                        width: TerminalSize.columns(of: STDOUT_FILENO)
                    ).text.utf8))
        }
        if let json { try writeFile(json) { try $0(Array(JSONReport(report).text.utf8)) } }
        if let html { try writeFile(html) { try $0(Array(HTMLReport(report).text.utf8)) } }
        if let records { try writeFile(records) { try RawRecords.write(run, to: $0) } }
        var failed = report.isVoid
        if report.loads.isEmpty {
            LogOutput.standardError.write(
                line: "vllm-engine: nothing was measured: no round has all its blocks (see --noise-limit)")
            failed = true
        }
        for rule in failIf {
            let outcome = try FailRule(rule).evaluate(report)
            LogOutput.standardError.write(line: "vllm-engine: --fail-if \(outcome.message)")
            if case .passed = outcome { continue }
            failed = true
        }
        if failed { throw ArgumentParser.ExitCode(Supervision.ExitCode.failure.rawValue) }
    }
}
