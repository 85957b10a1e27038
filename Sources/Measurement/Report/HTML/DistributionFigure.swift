import Glibc

/// Empirical distribution functions of a sample family, one curve per arm with its band, on a logarithmic axis.
enum DistributionFigure {
    private static let steps = 220

    static func make(_ report: Report, _ load: LoadReport, _ family: SampleFamily, title: String) -> Figure? {
        let pooled = load.arms.map { $0.pooled(family) }
        let positive = pooled.flatMap { samples in
            // Sorted: the first positive sample and the last one bound an arm.
            [samples.merged.first { $0 > 0 }, samples.merged.last].compactMap { $0 }.filter { $0 > 0 }
        }
        guard let lowest = positive.min(), let highest = positive.max() else { return nil }
        // A microsecond is as fine as the clocks are.
        let low = max(lowest, 0.001) * 0.95
        let high = max(highest, low * 1.2) * 1.02
        var frame = PlotFrame(
            x: (low, high, true), y: (0, 1, false), xTitle: "\(family.title), ms (logarithmic)",
            yTitle: "share of samples",
            yTickText: { NumberFormat.tick($0 * 100) + "%" })
        let values = (0...steps).map { low * exp(log(high / low) * Double($0) / Double(steps)) }
        let names = report.run.arms.map(\.name)
        let curves = pooled.map { EmpiricalDistribution($0, at: values) }
        for (arm, curve) in curves.enumerated() {
            frame.drawing.band(
                curve.points.map { (frame.x.place($0.value), frame.y.place($0.high)) },
                curve.points.map { (frame.x.place($0.value), frame.y.place($0.low)) }, "band a\(arm % 3)")
        }
        for (arm, curve) in curves.enumerated() {
            frame.drawing.polyline(
                curve.points.map { (frame.x.place($0.value), frame.y.place($0.share)) }, "line a\(arm % 3)")
            for quantile in [0.5, 0.9, 0.99] where !pooled[arm].merged.isEmpty {
                let value = Percentiles.quantile(ofSorted: pooled[arm].merged, quantile)
                frame.drawing.marker(
                    frame.x.place(value), frame.y.place(quantile), arm: arm, size: 3.5,
                    hint: "\(names[arm]) p\(NumberFormat.tick(quantile * 100)): \(NumberFormat.value(value)) ms")
            }
        }
        frame.legend(names.indices.map { ($0, names[$0]) })
        let quantiles = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]
        let numbers = HTMLTable(
            caption: "Quantiles of \(escaped(family.title)) in ms", header: ["quantile"] + names.map(escaped),
            rows: quantiles.map { quantile in
                [NumberFormat.tick(quantile * 100) + "%"]
                    + pooled.map {
                        $0.merged.isEmpty
                            ? "–" : NumberFormat.value(Percentiles.quantile(ofSorted: $0.merged, quantile))
                    }
            } + [["samples"] + pooled.map { NumberFormat.value(Double($0.merged.count)) }])
        let medians = zip(names, pooled).map { name, samples in
            "\(name): median \(samples.merged.isEmpty ? "none" : NumberFormat.value(Percentiles.quantile(ofSorted: samples.merged, 0.5)) + " ms")"
        }
        return Figure(
            name: "ecdf-\(family.rawValue.replacing("_", with: "-"))", title: title,
            summary: "Empirical distribution functions on a logarithmic axis. " + medians.joined(separator: ", ") + ".",
            caption: "Further left is better. Bands: 95% limits from drawing blocks; markers: p50, p90, p99. "
                + "What is measured: \(family.formula).",
            drawing: frame.drawing, numbers: numbers)
    }
}
