/// The report as text for a terminal, or for a log when `colour` is off.
package struct TerminalReport: Sendable {
    private let report: Report
    private let colour: Bool
    private let everyMetric: Bool

    /// - Parameters:
    ///   - colour: with ANSI colours; only for a terminal.
    ///   - everyMetric: all rows instead of the important ones.
    package init(_ report: Report, colour: Bool, everyMetric: Bool = false) {
        self.report = report
        self.colour = colour
        self.everyMetric = everyMetric
    }

    /// Lines with line breaks, ready to be written.
    package var text: String {
        var lines = [heading]
        lines += noiseLines
        lines += report.voidReasons.map { paint("VOID: \($0)", .bad) }
        for load in report.loads {
            lines.append("")
            if report.loads.count > 1 { lines.append(paint("\(load.load.title)", .strong)) }
            lines += table(load)
            lines += failureLines(load)
        }
        if report.loads.isEmpty { lines.append(paint("No complete round of blocks: nothing to compare.", .bad)) }
        lines += startLines
        lines += equivalenceLines
        return lines.map { $0 + "\n" }.joined()
    }

    private var heading: String {
        let run = report.run
        var parts = ["\(run.command): \(run.contestants)", "engine=\(run.engine)"]
        if let load = report.loads.first, report.loads.count == 1 {
            parts.append("\(load.rounds * run.arms.count) blocks")
            parts.append(load.load.title)
        } else {
            parts.append("\(report.loads.count) loads")
        }
        parts.append(run.workloadTitle)
        return paint(parts.map(printable).joined(separator: "   "), .strong)
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
            parts.append("A/A noise floor: " + (floors.isEmpty ? "–" : floors.joined(separator: "  ")))
        } else if report.run.arms.count > 1 {
            parts.append("no A/A blocks: noise floor unknown")
        }
        parts.append("client lateness p99 \(NumberFormat.value(noise.latenessP99)) ms")
        parts.append("steal \(NumberFormat.size(noise.steal, .relative))")
        parts.append("other CPU \(NumberFormat.size(noise.otherCPU, .relative))")
        var lines = [paint(parts.joined(separator: "   "), .faint)]
        if !noise.dropped.isEmpty {
            let reasons = Set(noise.dropped.map(\.reason)).sorted().map(printable).joined(separator: "; ")
            lines.append(paint("\(noise.dropped.count) blocks dropped, with their rounds: \(reasons)", .bad))
        }
        return lines
    }

    // MARK: - Table

    private struct Cell {
        var text: String
        var style = Style.plain
        var alignRight = true
    }

    private func table(_ load: LoadReport) -> [String] {
        let arms = report.run.arms
        let single = arms.count == 2
        var header = [Cell(text: "", alignRight: false), Cell(text: "", alignRight: false)]
        header += arms.map { Cell(text: printable($0.name)) }
        for baseline in arms.indices.dropFirst() {
            let level = Int((report.options.level * 100).rounded())
            header.append(Cell(text: (single ? "diff" : "vs \(printable(arms[baseline].name))") + " [\(level)% CI]"))
            header.append(Cell(text: "verdict", alignRight: false))
        }
        let rows = load.rows.filter { everyMetric || $0.metric.headline }.map { row in
            [
                Cell(text: row.metric.title, alignRight: false),
                Cell(text: row.metric.unit, style: .faint, alignRight: false),
            ] + row.values.map { Cell(text: NumberFormat.value($0)) }
                + arms.indices.dropFirst().flatMap { comparisonCells(row, baseline: $0) }
        }
        return align([header.map { Cell(text: $0.text, style: .faint, alignRight: $0.alignRight) }] + rows)
    }

    private func comparisonCells(_ row: MetricRow, baseline: Int) -> [Cell] {
        guard let comparison = row.comparisons.first(where: { $0.baseline == baseline }) else {
            return [Cell(text: ""), Cell(text: "", alignRight: false)]
        }
        return [
            Cell(text: NumberFormat.difference(comparison.difference)),
            verdictCell(comparison, unit: row.metric.unit),
        ]
    }

    private func verdictCell(_ comparison: MetricRow.Comparison, unit: String) -> Cell {
        guard let verdict = comparison.verdict else { return Cell(text: "", alignRight: false) }
        if report.isVoid { return Cell(text: "void", style: .bad, alignRight: false) }
        switch verdict {
        case .faster, .cheaper:
            if report.answersDiffer(from: comparison.baseline) {
                return Cell(text: "\(verdict.rawValue), but answers differ", style: .bad, alignRight: false)
            }
            return Cell(text: verdict.rawValue, style: .good, alignRight: false)
        case .slower, .dearer:
            return Cell(text: verdict.rawValue, style: .bad, alignRight: false)
        case .noDifferenceShown where comparison.detectable == 0:
            // The same in every block: nothing to detect.
            return Cell(text: verdict.rawValue, style: .faint, alignRight: false)
        case .noDifferenceShown, .tooNoisy:
            let kind = comparison.difference.kind
            let size =
                NumberFormat.size(comparison.detectable, kind) + (kind == .relative || unit.isEmpty ? "" : " \(unit)")
            return Cell(text: "\(verdict.rawValue) (min detectable \(size))", style: .faint, alignRight: false)
        }
    }

    private func align(_ rows: [[Cell]]) -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.compactMap { $0.count > column ? $0[column].text.count : nil }.max() ?? 0
        }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let padding = String(repeating: " ", count: widths[column] - cell.text.count)
                let text = paint(cell.text, cell.style)
                return cell.alignRight ? padding + text : text + padding
            }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }
    }

    // MARK: - Below the table

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
        return starts.isEmpty ? [] : ["start: " + starts.joined(separator: "   ")]
    }

    private var equivalenceLines: [String] {
        report.equivalence.flatMap { result -> [String] in
            let counts = result.counts.map { "\($0.equal)/\($0.compared) \($0.aspect.title)" }.joined(separator: ", ")
            let name = report.run.arms.count > 2 ? " to \(printable(report.run.arms[result.baseline].name))" : ""
            let style: Style = result.answersEqual ? .plain : .bad
            var lines = [paint("output equal\(name): \(counts)", style)]
            for example in result.examples where example.aspect != .chunkings || result.answersEqual {
                lines.append(
                    "  prompt \(example.item), \(example.aspect.title): "
                        + "\(report.run.arms[result.candidate].name) \"\(printable(example.candidate))\", "
                        + "\(report.run.arms[result.baseline].name) \"\(printable(example.baseline))\"")
            }
            return lines
        }
    }

    // MARK: - Styles

    private enum Style {
        case plain, strong, faint, good, bad

        var code: String? {
            switch self {
            case .plain: nil
            case .strong: "1"
            case .faint: "2"
            case .good: "32"
            case .bad: "31"
            }
        }
    }

    private func paint(_ text: String, _ style: Style) -> String {
        guard colour, let code = style.code, !text.isEmpty else { return text }
        return "\u{1B}[\(code)m\(text)\u{1B}[0m"
    }

    /// Answers and names come from elsewhere: no control character reaches the terminal.
    private func printable(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator:
                result += "\\u{\(String(scalar.value, radix: 16))}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
