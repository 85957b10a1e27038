/// The report as text for a terminal, or for a log when `colour` is off.
package struct TerminalReport: Sendable {
    private let report: Report
    private let colour: Bool
    private let everyMetric: Bool
    private let width: Int

    /// - Parameters:
    ///   - colour: with ANSI colours; only for a terminal.
    ///   - everyMetric: all rows instead of the important ones.
    ///   - width: columns of the terminal; nil = no limit. Tables that are wider get by with less, or with two lines for each
    ///     metric.
    package init(_ report: Report, colour: Bool, everyMetric: Bool = false, width: Int? = nil) {
        self.report = report
        self.colour = colour
        self.everyMetric = everyMetric
        self.width = width ?? .max
    }

    /// Lines with line breaks, ready to be written.
    package var text: String {
        var lines = heading
        lines += noiseLines
        lines += report.voidReasons.map { paint("VOID: \(printable($0))", .bad) }
        for load in report.loads {
            lines.append("")
            if report.loads.count > 1 { lines.append(paint("\(load.load.title)", .strong)) }
            lines += table(load)
            lines += failureLines(load)
        }
        if report.loads.isEmpty { lines.append(paint("No complete round of blocks: nothing to compare.", .bad)) }
        if report.loads.count > 1 { lines += sweepLines }
        lines += startLines
        lines += equivalenceLines
        return lines.map { $0 + "\n" }.joined()
    }

    private var heading: [String] {
        let run = report.run
        var parts = ["\(run.command): \(run.contestants)", "engine=\(run.engine)"]
        if run.loads.count == 1 {
            parts.append("\((report.loads.first?.rounds ?? 0) * run.arms.count) blocks")
            parts.append(run.loads[0].title)
        } else {
            parts.append("\(run.loads.count) loads")
        }
        parts.append(run.workloadTitle)
        return flow(parts.map(printable), "   ", .strong)
    }

    private var noiseLines: [String] {
        let noise = report.noise
        var parts: [String] = []
        if let load = report.loads.first, load.noiseFloorRounds > 0 {
            // The plain latency says more about the machine than the small part the frontend adds.
            let names = ["p50_ttft", "p99_ttft"]
            let floors = names.compactMap { name -> String? in
                guard let row = load.row(name), let floor = row.noiseFloor, let kind = row.noiseFloorKind else {
                    return nil
                }
                let unit = kind == .relative ? "" : " \(row.metric.unit)"
                return "\(name == names[0] ? "ttft p50" : "p99") ±\(NumberFormat.size(floor, kind))\(unit)"
            }
            parts.append(
                "A/A noise floor: "
                    + (floors.isEmpty
                        ? "unknown (needs two complete rounds of a frontend)" : floors.joined(separator: "  ")))
        } else if report.run.arms.count > 1 {
            parts.append("no A/A blocks: noise floor unknown")
        }
        parts.append("client lateness p99 \(NumberFormat.value(noise.latenessP99)) ms in the worst block")
        parts.append("steal \(NumberFormat.size(noise.steal, .relative))")
        parts.append("other CPU \(NumberFormat.size(noise.otherCPU, .relative))")
        var lines = flow(parts, "   ", .faint)
        if !noise.dropped.isEmpty {
            let reasons = Set(noise.dropped.map(\.reason)).sorted().map(printable).joined(separator: "; ")
            lines.append(paint("\(noise.dropped.count) blocks dropped, with their rounds: \(reasons)", .bad))
        }
        return lines
    }

    // MARK: - Table

    private typealias Cell = TerminalTable.Cell

    private func table(_ load: LoadReport) -> [String] {
        let rows = load.rows.filter { everyMetric || $0.metric.headline }
        for full in [true, false] {
            let table = TerminalTable([header] + rows.map { cells($0) + comparisonCells($0, full: full) })
            if table.width <= width || rows.isEmpty { return table.lines(colour: colour) }
        }
        // The comparisons get lines of their own.
        let arms = report.run.arms
        let values = TerminalTable([Array(header.prefix(2 + arms.count))] + rows.map(cells)).lines(colour: colour)
        let comparisons = rows.map { row in
            arms.indices.dropFirst().compactMap { baseline -> String? in
                let cells = comparisonCells(row, baseline: baseline, full: false)
                guard !cells[0].text.isEmpty else { return nil }
                let name = arms.count > 2 ? "vs \(printable(arms[baseline].name)) " : ""
                return "    \(name)" + cells.map { paint($0.text, $0.style) }.joined(separator: "  ")
            }
        }
        return values.prefix(1) + zip(values.dropFirst(), comparisons).flatMap { [$0] + $1 }
    }

    private var header: [Cell] {
        let arms = report.run.arms
        let level = Int((report.options.level * 100).rounded())
        var header = [Cell(text: "", alignRight: false), Cell(text: "", alignRight: false)]
        header += arms.map { Cell(text: printable($0.name)) }
        for arm in arms.dropFirst() {
            header.append(Cell(text: (arms.count == 2 ? "diff" : "vs \(printable(arm.name))") + " [\(level)% CI]"))
            header.append(Cell(text: "verdict", alignRight: false))
        }
        return header.map { Cell(text: $0.text, style: .faint, alignRight: $0.alignRight) }
    }

    /// Name, unit and values.
    private func cells(_ row: MetricRow) -> [Cell] {
        [
            Cell(text: row.metric.title, alignRight: false),
            Cell(text: row.metric.unit, style: .faint, alignRight: false),
        ] + row.values.map { Cell(text: NumberFormat.value($0)) }
    }

    private func comparisonCells(_ row: MetricRow, full: Bool) -> [Cell] {
        report.run.arms.indices.dropFirst().flatMap { comparisonCells(row, baseline: $0, full: full) }
    }

    /// - Parameter full: with what could have been detected.
    private func comparisonCells(_ row: MetricRow, baseline: Int, full: Bool) -> [Cell] {
        guard let comparison = row.comparisons.first(where: { $0.baseline == baseline }) else {
            return [Cell(text: ""), Cell(text: "", alignRight: false)]
        }
        return [
            Cell(text: NumberFormat.difference(comparison.difference)),
            verdictCell(comparison, unit: row.metric.unit, full: full),
        ]
    }

    private func verdictCell(_ comparison: MetricRow.Comparison, unit: String, full: Bool) -> Cell {
        guard let verdict = comparison.verdict else { return Cell(text: "", alignRight: false) }
        if report.isVoid { return Cell(text: "void", style: .bad, alignRight: false) }
        switch verdict {
        case .faster, .cheaper:
            if report.answersDiffer(from: comparison.baseline) {
                return Cell(text: "\(verdict.rawValue), but answers differ", style: .bad, alignRight: false)
            }
            let flag = report.featuresDiffer(from: comparison.baseline) ? ", features differ" : ""
            return Cell(text: verdict.rawValue + flag, style: .good, alignRight: false)
        case .slower, .dearer:
            return Cell(text: verdict.rawValue, style: .bad, alignRight: false)
        case .equal: return Cell(text: report.run.title(verdict), style: .faint, alignRight: false)
        case .noDifferenceShown where comparison.detectable == 0 || !full, .tooNoisy where !full:
            // The same in every block: nothing to detect.
            return Cell(text: verdict.rawValue, style: .faint, alignRight: false)
        case .noDifferenceShown, .tooNoisy:
            let kind = comparison.difference.kind
            let size =
                NumberFormat.size(comparison.detectable, kind) + (kind == .relative || unit.isEmpty ? "" : " \(unit)")
            return Cell(text: "\(verdict.rawValue) (min detectable \(size))", style: .faint, alignRight: false)
        }
    }

    // MARK: - Below the tables

    /// The loads of a sweep side by side, and how far each arm goes.
    private var sweepLines: [String] {
        let sweep = RateSweep(report)
        let names = report.run.arms.map { printable($0.name) }
        let columns = [sweep.metric, "frontend_cpu_per_token", "output_throughput"].filter { name in
            report.loads.contains { $0.row(name) != nil }
        }
        var lines: [String] = []
        for name in columns {
            let title = Metric.named(name).map { "\($0.title) \($0.unit)" } ?? name
            let header = [title] + names
            let rows = report.loads.map { load in
                [load.load.title] + names.indices.map { NumberFormat.value(load.row(name)?.values[$0]) }
            }
            lines.append("")
            lines += TerminalTable(
                ([header] + rows).enumerated().map { line, texts in
                    texts.enumerated().map { place, text in
                        Cell(text: text, style: line == 0 ? .faint : .plain, alignRight: place > 0)
                    }
                }
            ).lines(colour: colour)
        }
        guard report.loads.contains(where: { $0.load.rate != nil }) else { return lines }
        let knees = sweep.knees
        let parts = names.enumerated().map { arm, name in
            "\(name) \(knees[arm].map { NumberFormat.value($0) + "/s" } ?? "none")"
        }
        lines += flow(["knee of \(sweep.title):"] + parts, "  ", .plain)
        return lines
    }

    private func failureLines(_ load: LoadReport) -> [String] {
        load.arms.compactMap { arm in
            let failures = arm.failures
            guard !failures.isEmpty else { return nil }
            let kinds = failures.sorted { $0.value > $1.value }.map { "\($0.value) \($0.key.rawValue)" }
            let total = failures.values.reduce(0, +)
            return paint(
                "\(printable(report.run.arms[arm.arm].name)): \(total) of \(arm.requestCount) requests failed "
                    + "(\(kinds.joined(separator: ", "))); latencies are those of the others", .bad)
        }
    }

    private var startLines: [String] {
        let starts = report.run.arms.compactMap { arm -> String? in
            guard let seconds = arm.startSeconds else { return nil }
            let memory = arm.idleResidentBytes.map { ", idle rss \(NumberFormat.value(Double($0) * 1e-6)) MB" } ?? ""
            return "\(printable(arm.name)) \(NumberFormat.value(seconds * 1000)) ms\(memory)"
        }
        return starts.isEmpty ? [] : flow(["start: " + starts[0]] + starts.dropFirst(), "   ", .plain)
    }

    private var equivalenceLines: [String] {
        report.equivalence.flatMap { result -> [String] in
            let counts = result.counts.map { "\($0.equal)/\($0.compared) \($0.aspect.title)" }
            let name = report.run.arms.count > 2 ? " to \(printable(report.run.arms[result.baseline].name))" : ""
            let style: TerminalStyle = result.answersEqual ? .plain : .bad
            var lines = flow(["output equal\(name): " + (counts.first ?? "")] + counts.dropFirst(), ", ", style)
            lines += featureLines(result, name)
            for example in result.examples where example.aspect != .chunkings || result.answersEqual {
                lines.append(
                    "  \(printable(example.place)): \(example.aspect.title): "
                        + "\(report.run.arms[result.candidate].name) \"\(printable(example.candidate))\", "
                        + "\(report.run.arms[result.baseline].name) \"\(printable(example.baseline))\"")
            }
            return lines
        }
    }

    private func featureLines(_ result: EquivalenceReport, _ name: String) -> [String] {
        guard !result.features.isEmpty else { return [] }
        let unequal = result.features.filter { !$0.unequal.isEmpty }
        let refused = result.features.filter { $0.refusedBy != nil }
        let compared = result.features.count - refused.count
        let differences = unequal.map {
            "\(printable($0.name)) (\($0.unequal.map(\.title).joined(separator: ", ")))"
        }
        let refusals = [result.candidate, result.baseline].compactMap { arm -> String? in
            let names = refused.filter { $0.refusedBy == arm }.map { printable($0.name) }
            return names.isEmpty
                ? nil : "refused by \(printable(report.run.arms[arm].name)) only: \(names.joined(separator: "; "))"
        }
        return flow(
            ["features equal\(name): \(compared - unequal.count)/\(compared)"]
                + (differences.isEmpty ? [] : ["different: \(differences[0])"] + differences.dropFirst()), "; ",
            unequal.isEmpty ? .plain : .bad) + refusals.flatMap { flow([$0], "", .plain) }
    }

    private func paint(_ text: String, _ style: TerminalStyle) -> String { style.paint(text, colour) }

    /// As many parts on a line as fit.
    private func flow(_ parts: [String], _ separator: String, _ style: TerminalStyle) -> [String] {
        var lines: [String] = []
        for part in parts {
            if let last = lines.last, last.count + separator.count + part.count <= width {
                lines[lines.count - 1] = last + separator + part
            } else {
                lines.append(part)
            }
        }
        return lines.map { paint($0, style) }
    }
}
