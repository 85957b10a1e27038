/// The paired difference of each block beside the estimate with its interval and the noise floor, one line per metric.
enum DifferenceFigure {
    private static let rowHeight = 27.0

    static func make(_ report: Report, _ load: LoadReport, baseline: Int) -> Figure? {
        let rows: [(row: MetricRow, comparison: MetricRow.Comparison)] = load.rows.compactMap { row in
            guard row.metric.headline, row.metric.sense != nil,
                let comparison = row.comparisons.first(where: { $0.baseline == baseline }),
                comparison.difference.kind == .relative
            else { return nil }
            return (row, comparison)
        }
        guard !rows.isEmpty else { return nil }
        let limit = axisLimit(rows.map(\.comparison))
        let left = 164.0
        let width = 2 * PlotFrame.width + 24
        let top = 14.0
        let bottom = top + Double(rows.count) * rowHeight
        var drawing = SVGDrawing(width: width, height: bottom + 50)
        // Nothing falls below -100 %.
        let x = Scale(low: max(-limit, -1.04), high: limit, from: left, to: width - 232)
        for tick in x.ticks(8) {
            drawing.line(x.place(tick), top, x.place(tick), bottom, tick == 0 ? "zero" : "grid")
            drawing.text(x.place(tick), bottom + 17, NumberFormat.percent(tick), anchor: .middle)
        }
        let names = (report.run.arms[0].name, report.run.arms[baseline].name)
        drawing.text(
            x.place(0), bottom + 40, "\(names.0) lower  ←   difference to \(names.1)   →  \(names.0) higher", "label",
            anchor: .middle)
        for (index, item) in rows.enumerated() {
            let y = top + (Double(index) + 0.5) * rowHeight
            drawing.text(left - 12, y + 4, title(item.row, among: rows.map(\.row)), "legend", anchor: .end)
            draw(item.comparison, at: y, x, &drawing)
            let verdict = report.isVoid ? "void" : item.comparison.verdict.map(report.run.title) ?? ""
            let style = VerdictStyle.name(item.comparison.verdict, report, baseline)
            drawing.text(
                width - 152, y + 4, NumberFormat.percent(item.comparison.difference.difference), "legend \(style)",
                anchor: .end)
            drawing.text(width - 142, y + 4, verdict, "legend \(style)")
        }
        return figure(drawing, rows, names, baseline)
    }

    /// With its unit where others have the same title.
    private static func title(_ row: MetricRow, among rows: [MetricRow]) -> String {
        let title = row.metric.title
        return rows.count { $0.metric.title == title } > 1 ? "\(title) \(row.metric.unit)" : title
    }

    private static func draw(_ comparison: MetricRow.Comparison, at y: Double, _ x: Scale, _ drawing: inout SVGDrawing)
    {
        let difference = comparison.difference
        if let floor = comparison.noiseFloor {
            // As a ratio, as the verdict takes it: half as much is as far from equal as twice as much.
            let low = x.place(max(1 / (1 + floor) - 1, x.low))
            drawing.rectangle(
                low, y - rowHeight / 2 + 4, x.place(min(floor, x.high)) - low, rowHeight - 8, "floor",
                hint: "noise floor ±\(NumberFormat.size(floor, .relative))")
        }
        drawing.line(x.place(difference.low), y, x.place(difference.high), y, "interval")
        // An arrow where the interval goes on beyond the axis.
        func n(_ value: Double) -> String { SVGDrawing.number(value) }
        if !x.contains(difference.low) { drawing.raw(path: "M\(n(x.start - 7)) \(n(y))l8 -5v10Z", "estimate") }
        if !x.contains(difference.high) { drawing.raw(path: "M\(n(x.end + 7)) \(n(y))l-8 -5v10Z", "estimate") }
        for (block, value) in difference.blocks.enumerated() {
            // Dots beyond the axis sit on its end, hollow.
            drawing.marker(
                x.place(value), y, arm: 0, size: 2.6, style: x.contains(value) ? "dot" : "dot beyond",
                hint: "round \(block + 1): \(NumberFormat.percent(value))")
        }
        let place = x.place(difference.difference)
        drawing.raw(
            path: "M\(SVGDrawing.number(place)) \(SVGDrawing.number(y - 7))l5 7l-5 7l-5 -7Z", "estimate")
    }

    /// Wide enough for every estimate, and for every interval unless one is much wider than the rest or goes beyond 200 %: that
    /// one is cut so the others stay readable.
    private static func axisLimit(_ comparisons: [MetricRow.Comparison]) -> Double {
        let reaches = comparisons.map { max(abs($0.difference.low), abs($0.difference.high), 0.01) }.sorted()
        let typical = reaches[reaches.count * 3 / 4]
        let estimate = comparisons.reduce(2) { max($0, abs($1.difference.difference)) }
        return min(reaches[reaches.count - 1], typical * 2, estimate) * 1.08
    }

    private static func figure(
        _ drawing: SVGDrawing, _ rows: [(row: MetricRow, comparison: MetricRow.Comparison)], _ names: (String, String),
        _ baseline: Int
    ) -> Figure {
        let numbers = HTMLTable(
            caption: "Difference of each round, \(escaped(names.0)) to \(escaped(names.1))",
            header: ["metric", "difference", "Hodges–Lehmann", "rounds"],
            rows: rows.map { item in
                let difference = item.comparison.difference
                return [
                    escaped(item.row.metric.title), NumberFormat.difference(difference),
                    NumberFormat.percent(difference.shift),
                    difference.blocks.map(NumberFormat.percent).joined(separator: " "),
                ]
            }, textColumns: [3])
        let words = rows.map { item in
            "\(item.row.metric.title) \(NumberFormat.difference(item.comparison.difference))"
        }
        return Figure(
            name: "differences-\(baseline)", title: "Paired differences per block, \(names.0) against \(names.1)",
            summary: words.joined(separator: "; ") + ".",
            caption: "Dots: each round's blocks against each other. Diamond and line: estimate over all blocks and its "
                + "interval. Grey: what the same frontend shows against itself. A difference is called shown when the line "
                + "keeps clear of zero and the diamond is outside the grey.",
            drawing: drawing, numbers: numbers)
    }
}

/// How a verdict is coloured.
enum VerdictStyle {
    static func name(_ verdict: Verdict?, _ report: Report, _ baseline: Int) -> String {
        guard !report.isVoid, let verdict else { return "none" }
        switch verdict {
        case .faster, .cheaper: return report.answersDiffer(from: baseline) ? "bad" : "good"
        case .slower, .dearer: return "bad"
        case .equal, .noDifferenceShown, .tooNoisy: return "none"
        }
    }
}
