import Glibc

/// Gaps between chunks over time: one panel per arm, time in the block to the right, gap upwards, colour by count.
enum HeatMapFigure {
    private static let columns = 84
    private static let rows = 22
    private static let levels = 7
    private static let panelHeight = 150.0
    private static let left = 58.0
    private static let width = 2 * PlotFrame.width + 24

    static func make(_ report: Report, _ load: LoadReport) -> Figure? {
        let events = load.arms.map(gaps)
        let all = events.flatMap { $0 }
        guard let duration = all.map(\.time).max(), let largest = all.map(\.gap).max() else { return nil }
        let low = max(quantile(all.map(\.gap).filter { $0 > 0 }, 0.002), 0.01)
        let high = max(largest, low * 2)
        let counts = events.map { histogram($0, duration: duration, low: low, high: high) }
        let most = counts.flatMap { $0 }.max() ?? 1
        let arms = report.run.arms
        var drawing = SVGDrawing(width: width, height: Double(arms.count) * (panelHeight + 30) + 42)
        for arm in arms.indices {
            let top = 22 + Double(arm) * (panelHeight + 30)
            let y = Scale(low: low, high: high, logarithmic: true, from: top + panelHeight, to: top)
            panel(&drawing, counts[arm], most: most, top: top, arm: arm)
            drawing.text(left, top - 7, arms[arm].name, "legend")
            for tick in y.ticks(5) {
                drawing.line(left - 4, y.place(tick), left, y.place(tick), "axis")
                drawing.text(left - 8, y.place(tick) + 4, NumberFormat.tick(tick), anchor: .end)
            }
            stallLine(&drawing, report, y, until: width - 16)
            drawing.rectangle(left, top, width - 16 - left, panelHeight, "panel")
        }
        axis(&drawing, duration: duration, bottom: 22 + Double(arms.count - 1) * (panelHeight + 30) + panelHeight)
        return figure(drawing, report, events, most)
    }

    private static func stallLine(_ drawing: inout SVGDrawing, _ report: Report, _ y: Scale, until right: Double) {
        let threshold = Double(report.run.rules.stallThreshold) * 1e-6
        guard y.contains(threshold) else { return }
        drawing.line(left, y.place(threshold), right, y.place(threshold), "zero")
        drawing.text(right - 4, y.place(threshold) - 4, "stall, \(NumberFormat.tick(threshold)) ms", anchor: .end)
    }

    private static func axis(_ drawing: inout SVGDrawing, duration: Double, bottom: Double) {
        let x = Scale(low: 0, high: duration, from: left, to: width - 16)
        for tick in x.ticks(10) { drawing.text(x.place(tick), bottom + 17, NumberFormat.tick(tick), anchor: .middle) }
        drawing.text(
            (left + width) / 2, bottom + 38, "seconds since the block began, all blocks on top of each other", "label",
            anchor: .middle)
        drawing.text(14, bottom / 2 + 11, "gap, ms (logarithmic)", "label", anchor: .middle, vertical: true)
    }

    /// Cells of one level are one path: the page stays small however long the run was.
    private static func panel(_ drawing: inout SVGDrawing, _ counts: [Int], most: Int, top: Double, arm: Int) {
        let cellWidth = (width - 16 - left) / Double(columns)
        let cellHeight = panelHeight / Double(rows)
        var paths = [String](repeating: "", count: levels)
        func n(_ value: Double) -> String { SVGDrawing.number(value) }
        for row in 0..<rows {
            var column = 0
            while column < columns {
                let level = level(counts[row * columns + column], most: most)
                var end = column + 1
                while end < columns, self.level(counts[row * columns + end], most: most) == level { end += 1 }
                if let level {
                    let x = left + Double(column) * cellWidth
                    let y = top + panelHeight - Double(row + 1) * cellHeight
                    let right = left + Double(end) * cellWidth
                    paths[level] += "M\(n(x)) \(n(y))H\(n(right))V\(n(y + cellHeight))H\(n(x))Z"
                }
                column = end
            }
        }
        for (level, path) in paths.enumerated() where !path.isEmpty {
            drawing.raw(path: path, "heat a\(arm % 3) h\(level)")
        }
    }

    private static func level(_ count: Int, most: Int) -> Int? {
        guard count > 0 else { return nil }
        guard most > 1 else { return levels - 1 }
        return min(levels - 1, Int(log(Double(count)) / log(Double(most)) * Double(levels)))
    }

    private static func gaps(_ arm: ArmReport) -> [(time: Double, gap: Double)] {
        zip(arm.blocks, arm.requests).flatMap { block, requests in
            requests.filter(\.succeeded).flatMap { request in
                let start = Double(request.actualSend - block.start) * 1e-9
                return zip(request.chunkOffsets.dropFirst(), request.chunkOffsets).map { later, earlier in
                    (start + Double(later) * 1e-9, Double(later - earlier) * 1e-6)
                }
            }
        }
    }

    private static func histogram(
        _ events: [(time: Double, gap: Double)], duration: Double, low: Double, high: Double
    ) -> [Int] {
        var counts = [Int](repeating: 0, count: columns * rows)
        let span = log(high / low)
        for event in events {
            let column = min(columns - 1, max(0, Int(event.time / max(duration, 1e-9) * Double(columns))))
            let share = log(max(event.gap, low) / low) / span
            counts[min(rows - 1, Int(share * Double(rows))) * columns + column] += 1
        }
        return counts
    }

    private static func quantile(_ values: [Double], _ quantile: Double) -> Double {
        Percentiles.quantile(of: values, quantile) ?? 0.01
    }

    private static func figure(
        _ drawing: SVGDrawing, _ report: Report, _ events: [[(time: Double, gap: Double)]], _ most: Int
    ) -> Figure {
        let bounds = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
        let names = report.run.arms.map(\.name)
        var rows: [[String]] = []
        for (index, bound) in bounds.enumerated() {
            let lower = index == 0 ? 0 : bounds[index - 1]
            rows.append(
                ["\(NumberFormat.tick(lower)) to \(NumberFormat.tick(bound)) ms"]
                    + events.map { list in
                        NumberFormat.count(list.count { ($0.gap > lower || index == 0) && $0.gap <= bound })
                    })
        }
        rows.append(["above 1000 ms"] + events.map { list in NumberFormat.count(list.count { $0.gap > 1000 }) })
        let words = zip(names, events).map { name, list in
            "\(name): \(NumberFormat.count(list.count)) gaps, longest \(NumberFormat.value(list.map(\.gap).max() ?? 0)) ms"
        }
        return Figure(
            name: "heat", title: "Gaps between chunks over time", summary: words.joined(separator: "; ") + ".",
            caption:
                "Each cell counts gaps; the stronger the colour, the more (logarithmic, up to \(NumberFormat.count(most)) in a cell). "
                + "A horizontal line is a steady rhythm, a vertical streak a moment in which many streams waited.",
            drawing: drawing,
            numbers: HTMLTable(caption: "Gaps by length", header: ["gap"] + names.map(escaped), rows: rows))
    }
}

extension NumberFormat {
    /// A whole number with thousands apart.
    static func count(_ value: Int) -> String { value < 1000 ? String(value) : self.value(Double(value)) }
}
