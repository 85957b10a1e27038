/// Figures over the loads of a run: cost against concurrency, tail against rate.
enum SweepFigures {
    private struct Point {
        let x: Double
        let value: Double
        /// Lowest and highest block.
        let low: Double
        let high: Double
        let load: LoadReport
    }

    static func cost(_ report: Report) -> Figure? {
        let series = points(report, metric: "frontend_cpu_per_token") { $0.meanConcurrency }
        return figure(
            report, series, name: "cost", title: "CPU of the frontend per token against concurrency",
            xTitle: "requests under way (mean)", yTitle: "µs per output token", logarithmicY: false,
            caption: "User and system time of the frontend's processes. Whiskers: lowest and highest block. "
                + "A flat line scales; concurrency is the mean over each block, whatever the load was.",
            knees: [:])
    }

    static func tail(_ report: Report) -> Figure? {
        let sweep = RateSweep(report)
        let title = sweep.title
        let series = points(report, metric: sweep.metric) { $0.offeredRate }
        return figure(
            report, series, name: "tail", title: "Tail latency against offered rate",
            xTitle: "requests per second offered",
            yTitle: "\(title), ms (logarithmic)", logarithmicY: true,
            caption:
                "Knee: the last rate of which at least 95% is completed and whose \(title) is at most twice that of the "
                + "lowest rate; none is marked when every rate holds or there are fewer than three. A closed loop counts "
                + "with the rate it reached.",
            knees: sweep.knees)
    }

    private static func points(_ report: Report, metric: String, x: (ArmReport) -> Double) -> [[Point]] {
        report.run.arms.indices.map { arm in
            report.loads.compactMap { load -> Point? in
                guard let row = load.row(metric), let value = row.values[arm] else { return nil }
                let blocks = row.blockValues(arm)
                let place = load.load.rate ?? 0
                return Point(
                    x: metric.hasSuffix("per_token") || place == 0 ? x(load.arms[arm]) : place, value: value,
                    low: blocks.min() ?? value, high: blocks.max() ?? value, load: load)
            }.sorted { $0.x < $1.x }
        }
    }

    private static func figure(
        _ report: Report, _ series: [[Point]], name: String, title: String, xTitle: String, yTitle: String,
        logarithmicY: Bool,
        caption: String, knees: [Int: Double]
    ) -> Figure? {
        let all = series.flatMap { $0 }
        guard let lowX = all.map(\.x).min(), let highX = all.map(\.x).max(), let highY = all.map(\.high).max() else {
            return nil
        }
        let positive = all.map(\.low).filter { $0 > 0 }.min() ?? 0.001
        let wide = lowX > 0 && highX / lowX > 8
        let margin = max((highX - lowX) * 0.06, highX * 0.02)
        var frame = PlotFrame(
            x: wide ? (lowX * 0.85, highX * 1.15, true) : (max(0, lowX - margin), highX + margin, false),
            y: logarithmicY ? (positive * 0.8, max(highY, positive) * 1.25, true) : (0, highY * 1.12, false),
            xTitle: xTitle, yTitle: yTitle)
        let names = report.run.arms.map(\.name)
        for (arm, knee) in knees.sorted(by: { $0.key < $1.key }) {
            let place = frame.x.place(knee)
            frame.drawing.line(
                place, PlotFrame.top, place, PlotFrame.height - PlotFrame.bottom, "knee a\(arm % 3)")
            frame.drawing.text(
                place - 5, PlotFrame.top + 14 + Double(arm) * 16, "knee \(names[arm]) \(NumberFormat.tick(knee))/s",
                "legend k\(arm % 3)", anchor: place > PlotFrame.width / 2 ? .end : .start)
        }
        for (arm, points) in series.enumerated() {
            frame.drawing.polyline(points.map { (frame.x.place($0.x), frame.y.place($0.value)) }, "line a\(arm % 3)")
            for point in points {
                // Arms at the same load stand beside each other.
                let x = frame.x.place(point.x) + (Double(arm) - Double(series.count - 1) / 2) * 5
                frame.drawing.line(x, frame.y.place(point.low), x, frame.y.place(point.high), "whisker a\(arm % 3)")
                frame.drawing.marker(
                    x, frame.y.place(point.value), arm: arm,
                    hint: "\(names[arm]), \(point.load.load.title): \(NumberFormat.value(point.value)) "
                        + "(\(NumberFormat.value(point.low)) to \(NumberFormat.value(point.high)))")
            }
        }
        frame.legend(names.indices.map { ($0, names[$0]) })
        let rows = series.enumerated().flatMap { arm, points in
            points.map { point in
                [
                    escaped(names[arm]), escaped(point.load.load.title), NumberFormat.value(point.x),
                    NumberFormat.value(point.value), NumberFormat.value(point.low), NumberFormat.value(point.high),
                    knees[arm] == point.x ? "knee" : "",
                ]
            }
        }
        let words = zip(names, series).map { name, points in
            "\(name): "
                + points.map { "\(NumberFormat.value($0.value)) at \(NumberFormat.value($0.x))" }.joined(
                    separator: ", ")
        }
        return Figure(
            name: name, title: title, summary: "\(yTitle) against \(xTitle). " + words.joined(separator: "; ") + ".",
            caption: caption, drawing: frame.drawing,
            numbers: HTMLTable(
                caption: escaped("\(yTitle), by \(xTitle)"),
                header: ["arm", "load", "x", "value", "lowest block", "highest block", ""], rows: rows,
                textColumns: [1, 6]))
    }
}

extension ArmReport {
    /// Requests that were under way on average: the sum of their times over the time they ran in.
    var meanConcurrency: Double {
        let busy = requests.reduce(0.0) { sum, block in block.reduce(sum) { $0 + Double($1.end - $1.actualSend) * 1e-9 }
        }
        return wallSeconds > 0 ? busy / wallSeconds : 0
    }

    /// The part of the offered rate that was carried: how long the sends took over how long the ends took. Ends spread over
    /// more time than sends only when a queue grows, and chance in the schedule cancels out.
    var carriedShare: Double {
        var sends = 0.0
        var ends = 0.0
        for block in requests {
            let done = block.filter(\.succeeded)
            guard let firstSend = done.map(\.intendedSend).min(), let lastSend = done.map(\.intendedSend).max(),
                let firstEnd = done.map(\.end).min(), let lastEnd = done.map(\.end).max()
            else { continue }
            // Failed requests were not carried.
            sends += Double(lastSend - firstSend) * 1e-9 * Double(done.count) / Double(block.count)
            ends += Double(lastEnd - firstEnd) * 1e-9
        }
        return ends > 0 ? sends / ends : 1
    }

    /// Requests per second that the schedule asked for; in a closed loop what was reached.
    var offeredRate: Double { wallSeconds > 0 ? Double(requestCount) / wallSeconds : 0 }
}
