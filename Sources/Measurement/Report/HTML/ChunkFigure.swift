/// How many tokens the chunks carry.
enum ChunkFigure {
    static func make(_ report: Report, _ load: LoadReport) -> Figure? {
        let sizes = load.arms.map(\.chunkSizes)
        let totals = sizes.map { Double($0.values.reduce(0, +)) }
        // One token in every chunk needs no drawing.
        guard sizes.contains(where: { $0.contains { $0.key != 1 && $0.value > 0 } }) else { return nil }
        // Everything from the last bin on is one bin.
        let last = min(12, max(2, sizes.flatMap(\.keys).max() ?? 1))
        let bins = Array(0...last)
        func share(_ arm: Int, _ bin: Int) -> Double {
            let count = bin < last ? sizes[arm][bin] ?? 0 : sizes[arm].filter { $0.key >= last }.values.reduce(0, +)
            return totals[arm] > 0 ? Double(count) / totals[arm] : 0
        }
        let shown = bins.filter { bin in bin > 0 || sizes.indices.contains { share($0, 0) > 0 } }
        func name(_ bin: Int) -> String { bin < last ? String(bin) : "\(bin) or more" }
        var frame = PlotFrame(
            x: (Double(shown[0]) - 0.5, Double(last) + 0.5, false), y: (0, 1, false), xTitle: "tokens in a chunk",
            yTitle: "share of chunks",
            tickText: { $0 == $0.rounded() ? NumberFormat.tick($0) + (Int($0) == last ? "+" : "") : "" },
            yTickText: { NumberFormat.tick($0 * 100) + "%" })
        let names = report.run.arms.map(\.name)
        let slot = frame.x.place(1) - frame.x.place(0)
        let bar = slot * 0.7 / Double(names.count)
        for arm in names.indices {
            for bin in shown where share(arm, bin) > 0 {
                let x = frame.x.place(Double(bin)) - slot * 0.35 + Double(arm) * bar
                let top = frame.y.place(share(arm, bin))
                frame.drawing.rectangle(
                    x, top, bar - 1.5, frame.y.place(0) - top, "bar a\(arm % 3)",
                    hint: "\(names[arm]), \(name(bin)): \(NumberFormat.size(share(arm, bin), .relative))")
            }
        }
        frame.legend(names.indices.map { ($0, names[$0]) })
        let rows = shown.map { bin in
            [name(bin)] + names.indices.map { NumberFormat.size(share($0, bin), .relative) }
        }
        let words = names.indices.map { arm in
            "\(names[arm]): \(NumberFormat.size(share(arm, 1), .relative)) with one token"
        }
        return Figure(
            name: "chunks", title: "Tokens per chunk", summary: words.joined(separator: "; ") + ".",
            caption: "Many tokens in one chunk save writes and reach the reader in bursts.", drawing: frame.drawing,
            numbers: HTMLTable(
                caption: "Share of chunks by their tokens", header: ["tokens"] + names.map(escaped), rows: rows))
    }
}
