import ArgumentParser
import Glibc
import JSONBytes
import Supervision

/// The result file of `bench`, as `vllm bench serve` writes it.
struct ServeResultOptions: ParsableArguments {
    @Flag(help: "Write the result file under vLLM's name for it, if --result-filename gives none.")
    var saveResult = false

    @Option(
        help: ArgumentHelp(
            "Write the result with the keys of `vllm bench serve`; - for standard output.", valueName: "path"))
    var resultFilename: String?

    @Flag(help: "Add the result to the file as a line of its own instead of replacing it.")
    var appendResult = false

    @Option(help: ArgumentHelp("Folder of the result file.", valueName: "path"))
    var resultDir: String?

    @Flag(help: "With the lists of every request's values in that file.")
    var saveDetailed = false

    @Option(help: ArgumentHelp("Label of the result; default: the kind of endpoint.", valueName: "text"))
    var label: String?

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Members to add to the result file.", valueName: "key=value"))
    var metadata: [String] = []

    @Option(
        help: ArgumentHelp(
            "Which of \(ServeSummary.metricNames.joined(separator: ", ")) are in the result file, by commas. "
                + "(default: ttft,tpot,itl)",
            valueName: "list"))
    var percentileMetrics: NameList?

    @Option(help: ArgumentHelp("Which percentiles of them, by commas. (default: 99)", valueName: "list"))
    var metricPercentiles: PercentileList?

    var isWanted: Bool { saveResult || appendResult || resultFilename != nil }

    mutating func validate() throws {
        if !isWanted {
            let given: [(String, Bool)] = [
                ("--save-detailed", saveDetailed), ("--result-dir", resultDir != nil),
                ("--metadata", !metadata.isEmpty), ("--label", label != nil),
                ("--percentile-metrics", percentileMetrics != nil), ("--metric-percentiles", metricPercentiles != nil),
            ]
            if let (name, _) = given.first(where: \.1) {
                throw ValidationError("\(name) is about the result file: add --save-result or --result-filename")
            }
        }
        if appendResult, resultFilename == "-" { throw ValidationError("--append-result needs a file") }
        for entry in metadata { _ = try NamedValue("--metadata", entry, example: "version=0.3.3") }
        for name in percentileMetrics?.names ?? [] where !ServeSummary.metricNames.contains(name) {
            throw ValidationError(
                "--percentile-metrics \(name): known are "
                    + ServeSummary.metricNames.joined(separator: ", "))
        }
    }

    /// - Parameter concurrency: most requests at a time, if that was limited.
    func write(
        _ run: MeasurementRun, backend: String, model: String, tokenizer: String, concurrency: Int?
    ) throws {
        let report = Report(run)
        guard let load = report.loads.first else {
            throw SupervisionError(.failure, "every block was dropped, there is no result (see --noise-limit)")
        }
        let date = Self.date
        let summary = ServeSummary(
            report, load: load, arm: 0,
            labels: ServeSummary.Labels(
                backend: backend, label: label, model: model, tokenizer: tokenizer, date: date,
                concurrency: concurrency,
                metadata: try metadata.map {
                    let pair = try NamedValue("--metadata", $0, example: "")
                    return (pair.name, pair.value)
                }),
            detailed: saveDetailed, metrics: percentileMetrics?.names ?? ["ttft", "tpot", "itl"],
            percentiles: metricPercentiles?.values ?? [99])
        var path = resultFilename ?? ""
        if path.isEmpty {
            let rate = load.load.rate.map { NumberFormat.fixed($0, $0 == $0.rounded() ? 1 : 2) } ?? "inf"
            let limit = concurrency.map { "-concurrency\($0)" } ?? ""
            let name = model.split(separator: "/").last.map(String.init) ?? "model"
            path = "\(label ?? backend)-\(rate)qps\(limit)-\(name)-\(date).json"
        }
        if path != "-", let resultDir {
            mkdir(resultDir, 0o777)
            path = "\(resultDir)/\(path)"
        }
        var bytes = Array(summary.text.utf8)
        if appendResult, endsWithinLine(path) { bytes.insert(UInt8(ascii: "\n"), at: 0) }
        try writeFile(path, append: appendResult) { try $0(bytes) }
    }

    /// Files of vLLM end without a line break.
    private func endsWithinLine(_ path: String) -> Bool {
        let file = Supervision.FileDescriptor(owning: open(path, O_RDONLY | O_CLOEXEC))
        var last: UInt8 = 0
        guard file.isOpen, lseek(file.rawValue, -1, SEEK_END) >= 0, read(file.rawValue, &last, 1) == 1 else {
            return false
        }
        return last != UInt8(ascii: "\n")
    }

    /// UTC, as in vLLM's files.
    private static var date: String {
        var now = time(nil)
        var parts = tm()
        gmtime_r(&now, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return "\(parts.tm_year + 1900)\(two(parts.tm_mon + 1))\(two(parts.tm_mday))-"
            + two(parts.tm_hour) + two(parts.tm_min) + two(parts.tm_sec)
    }
}

/// `ttft,itl`
struct NameList: ExpressibleByArgument {
    let names: [String]

    init?(argument: String) {
        names = argument.split(separator: ",").map(String.init)
        if names.isEmpty { return nil }
    }
}

/// `50,99.9`
struct PercentileList: ExpressibleByArgument {
    let values: [Double]

    init?(argument: String) {
        values = argument.split(separator: ",").compactMap { Double($0) }.filter { (0...100).contains($0) }
        guard !values.isEmpty, values.count == argument.split(separator: ",").count else { return nil }
    }
}
