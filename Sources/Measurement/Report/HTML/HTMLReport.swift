/// The report as one HTML file: no script, no outside resource, readable in light and dark and on paper.
package struct HTMLReport: Sendable {
    private let report: Report

    package init(_ report: Report) { self.report = report }

    package var text: String {
        """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="generator" content="vllm-engine \(escaped(report.run.version))">
        <title>\(escaped(report.run.contestants))</title>
        <style>
        \(ReportStyle.css)
        </style>
        </head>
        <body><main>
        \(head)\(cards)\(report.loads.count > 1 ? sweepSection : "")\(report.loads.map(loadSection).joined())\(equivalenceSection)\(armSection)\(allNumbers)\(foot)</main></body>
        </html>

        """
    }

    // MARK: - Top

    private var head: String {
        let run = report.run
        let noise = report.noise
        var facts = [
            ("engine", run.engine), ("load", report.loads.map(\.load.title).joined(separator: ", ")),
            ("workload", run.workloadTitle), ("rounds", report.loads.map { String($0.rounds) }.joined(separator: ", ")),
            ("machine", "\(run.machine.cpuModel), \(run.machine.cpus) CPUs, \(run.machine.kernel)"),
            ("client lateness p99", "\(NumberFormat.value(noise.latenessP99)) ms"),
            ("steal", NumberFormat.size(noise.steal, .relative)),
            ("other CPU", NumberFormat.size(noise.otherCPU, .relative)),
        ]
        if let row = report.loads.first?.row("p50_ttft"), let floor = row.noiseFloor, let kind = row.noiseFloorKind {
            facts.append(("noise floor of ttft p50", "±" + NumberFormat.size(floor, kind)))
        }
        let items = facts.filter { !$0.1.isEmpty }.map { "<li>\(escaped($0.0)) <b>\(escaped($0.1))</b></li>" }.joined()
        return """
            <header>
            <h1>\(escaped(run.contestants))</h1>
            <p class="sub">\(escaped(run.command == "bench" ? "Measurement" : "Comparison")) of \(Timestamp.utc(run.startedAt))</p>
            <ul class="facts">\(items)</ul>
            \(banners)</header>

            """
    }

    private var banners: String {
        var lines = report.voidReasons.map { "<p class=\"banner\"><b>Void.</b> \(escaped($0))</p>" }
        for result in report.equivalence where !result.answersEqual {
            let names = (report.run.arms[result.candidate].name, report.run.arms[result.baseline].name)
            lines.append(
                "<p class=\"banner\"><b>Answers differ.</b> \(escaped(names.0)) and \(escaped(names.1)) do not say the same to "
                    + "\(result.unequalAnswers) of the compared prompts; being faster does not count.</p>")
        }
        for load in report.loads {
            for arm in load.arms where !arm.failures.isEmpty {
                let total = arm.failures.values.reduce(0, +)
                lines.append(
                    "<p class=\"banner\"><b>Failed requests.</b> \(total) of \(arm.requestCount) requests to "
                        + "\(escaped(report.run.arms[arm.arm].name)) failed at \(escaped(load.load.title)).</p>")
            }
        }
        if !report.noise.dropped.isEmpty {
            let reasons = Set(report.noise.dropped.map(\.reason)).sorted().joined(separator: "; ")
            lines.append(
                "<p class=\"banner\"><b>Dropped blocks.</b> \(report.noise.dropped.count) with their rounds: "
                    + "\(escaped(reasons))</p>")
        }
        if report.loads.isEmpty {
            lines.append("<p class=\"banner\">No complete round of blocks: nothing to compare.</p>")
        }
        return lines.map { $0 + "\n" }.joined()
    }

    /// The four numbers most people look for, at the first load, against the first other arm.
    private var cards: String {
        guard let load = report.loads.first else { return "" }
        let wanted = [
            ["p50_ttft_added", "p50_ttft", "p50_e2el"], ["p99_ttft_added", "p99_ttft", "p99_e2el"],
            ["p99_token_path", "p99_itl", "mean_e2el"], ["frontend_cpu_per_token", "output_throughput"],
        ]
        let rows = wanted.compactMap { names in names.lazy.compactMap { load.row($0) }.first }
        let cards = rows.map { row -> String in
            let unit = escaped(row.metric.unit)
            guard let comparison = row.comparisons.first else {
                return card(
                    row.metric.title, NumberFormat.value(row.values[0]) + " <span class=\"unit\">\(unit)</span>", "", ""
                )
            }
            let difference = comparison.difference
            let big = NumberFormat.difference(difference.difference, difference.kind)
            let values = row.values.map { NumberFormat.value($0) }
            let others = report.run.arms.count > 2 ? " (\(escaped(report.run.arms[comparison.baseline].name)))" : ""
            return card(
                row.metric.title, big, "\(values[0]) against \(values[comparison.baseline]) \(unit)\(others)",
                badge(comparison, unit: row.metric.unit))
        }
        let place = report.loads.count > 1 ? "<p class=\"sub place\">At \(escaped(load.load.title)):</p>\n" : ""
        return "\(place)<section class=\"cards\" aria-label=\"Main results\">\n\(cards.joined())</section>\n"
    }

    private func card(_ name: String, _ big: String, _ detail: String, _ badge: String) -> String {
        "<div class=\"card\"><div class=\"name\">\(escaped(name))</div><div class=\"big\">\(big)</div>"
            + "<div class=\"detail\">\(detail)</div>\(badge)</div>\n"
    }

    private func badge(_ comparison: MetricRow.Comparison, unit: String) -> String {
        guard let verdict = comparison.verdict else { return "" }
        let style = VerdictStyle.name(verdict, report, comparison.baseline)
        var text = report.isVoid ? "void" : report.run.title(verdict)
        if !report.isVoid, [.faster, .cheaper].contains(verdict) {
            if style == "bad" {
                text += ", answers differ"
            } else if report.featuresDiffer(from: comparison.baseline) {
                text += ", features differ"
            }
        }
        let sign = style == "good" ? "✓ " : style == "bad" ? "✗ " : ""
        let kind = comparison.difference.kind
        let size = NumberFormat.size(comparison.detectable, kind) + (kind == .relative ? "" : " \(unit)")
        return
            "<span class=\"badge \(style)\" title=\"smallest detectable difference \(escaped(size))\">\(sign)\(escaped(text))</span>"
    }

    // MARK: - Sections

    private func loadSection(_ load: LoadReport) -> String {
        let heading = report.loads.count > 1 ? "Results at \(load.load.title)" : "Results"
        let streaming = load.arms.contains { !$0.pooled(.itl).merged.isEmpty }
        let added = load.arms.contains { !$0.pooled(.ttftAdded).merged.isEmpty }
        var figures: [Figure?] = report.run.arms.indices.dropFirst().map {
            DifferenceFigure.make(report, load, baseline: $0)
        }
        if streaming {
            figures.append(
                added
                    ? DistributionFigure.make(
                        report, load, .ttftAdded, title: "Time to first token added by the frontend")
                    : DistributionFigure.make(report, load, .ttft, title: "Time to first token"))
            figures.append(
                added
                    ? DistributionFigure.make(report, load, .tokenPath, title: "From engine step to reader")
                    : DistributionFigure.make(report, load, .itl, title: "Gap between chunks"))
            figures.append(HeatMapFigure.make(report, load))
            figures.append(ChunkFigure.make(report, load))
        } else {
            figures.append(
                added || load.row("p50_e2el_added") != nil
                    ? DistributionFigure.make(report, load, .e2elAdded, title: "Time added by the frontend")
                    : DistributionFigure.make(report, load, .e2el, title: "Time to the whole answer"))
        }
        if report.loads.count == 1 { figures += sweepFigures.map(Optional.some) }
        let suffix = report.loads.count > 1 ? "-l\(load.index)" : ""
        let drawn = figures.compactMap { $0?.renamed(suffix).html }.joined()
        return """
            <section><h2>\(escaped(heading))</h2>
            <div class="panelbox">
            \(table(load, rows: load.rows.filter(\.metric.headline), caption: "\(load.load.title), \(load.rounds) rounds"))</div></section>
            <section class="figures">
            \(drawn)</section>

            """
    }

    private var sweepFigures: [Figure] { [SweepFigures.cost(report), SweepFigures.tail(report)].compactMap { $0 } }

    /// With several loads, what they show together comes first.
    private var sweepSection: String {
        let figures = sweepFigures.map(\.html)
        return figures.isEmpty
            ? "" : "<h2>Across loads</h2>\n<section class=\"figures\">\n\(figures.joined())</section>\n"
    }

    private func table(_ load: LoadReport, rows: [MetricRow], caption: String) -> String {
        let arms = report.run.arms
        var header = ["metric"] + arms.map { escaped($0.name) }
        var textColumns: Set<Int> = []
        let level = Int((report.options.level * 100).rounded())
        for baseline in arms.indices.dropFirst() {
            header.append(
                (arms.count > 2 ? "against \(escaped(arms[baseline].name))" : "difference") + " [\(level)% interval]")
            textColumns.insert(header.count)
            header.append("verdict")
        }
        let cells = rows.map { row -> [String] in
            let unit = row.metric.unit.isEmpty ? "" : " <span class=\"unit\">\(escaped(row.metric.unit))</span>"
            var line = ["<span title=\"\(escaped(row.metric.formula))\">\(escaped(row.metric.title))</span>\(unit)"]
            line += row.values.map { NumberFormat.value($0) }
            for baseline in arms.indices.dropFirst() {
                let comparison = row.comparisons.first { $0.baseline == baseline }
                line.append(comparison.map { NumberFormat.difference($0.difference) } ?? "–")
                line.append(comparison.map { badge($0, unit: row.metric.unit) } ?? "")
            }
            return line
        }
        return HTMLTable(caption: escaped(caption), header: header, rows: cells, textColumns: textColumns).html
    }

    private var equivalenceSection: String {
        guard !report.equivalence.isEmpty else { return "" }
        let parts = report.equivalence.map { result -> String in
            let names = (report.run.arms[result.candidate].name, report.run.arms[result.baseline].name)
            let counts = HTMLTable(
                caption: "\(escaped(names.0)) and \(escaped(names.1)), the same greedy prompts",
                header: ["equal", "answers", "compared"],
                rows: result.counts.map { [escaped($0.aspect.title), String($0.equal), String($0.compared)] })
            let features =
                result.features.isEmpty
                ? ""
                : HTMLTable(
                    caption: "Other features of the API, on scripted tokens", header: ["feature", "answers"],
                    rows: result.features.map {
                        [
                            escaped($0.name),
                            $0.refusedBy.map { "refused by \(escaped(report.run.arms[$0].name))" }
                                ?? ($0.unequal.isEmpty
                                    ? "equal" : "different: " + $0.unequal.map(\.title).joined(separator: ", ")),
                        ]
                    }, textColumns: [0, 1]
                ).html
            guard !result.examples.isEmpty else { return counts.html + features }
            let examples = HTMLTable(
                caption: "First differences", header: ["where", "in", escaped(names.0), escaped(names.1)],
                rows: result.examples.map {
                    [escaped($0.place), escaped($0.aspect.title)]
                        + [$0.candidate, $0.baseline].map { "<span class=\"sample\">\(escaped($0))</span>" }
                }, textColumns: [0, 1, 2, 3])
            return counts.html + features + examples.html
        }
        return "<section><h2>Same answers?</h2>\n<div class=\"panelbox\">\n\(parts.joined())</div></section>\n"
    }

    private var armSection: String {
        let rows = report.run.arms.map { arm in
            [
                escaped(arm.name), escaped(arm.version ?? "–"), escaped(arm.program ?? "–"),
                NumberFormat.value(arm.startSeconds.map { $0 * 1000 }),
                NumberFormat.value(arm.idleResidentBytes.map { Double($0) * 1e-6 }),
                NumberFormat.value(arm.idleProportionalBytes.map { Double($0) * 1e-6 }),
            ]
        }
        let table = HTMLTable(
            caption: "Start: until the first answer of /health. Memory before any load.",
            header: ["frontend", "version", "program", "start, ms", "idle rss, MB", "idle pss, MB"], rows: rows,
            textColumns: [1, 2])
        return "<section><h2>Frontends</h2>\n<div class=\"panelbox\">\n\(table.html)</div></section>\n"
    }

    private var allNumbers: String {
        let tables = report.loads.map { load in
            "<div class=\"panelbox\">\n\(table(load, rows: load.rows, caption: load.load.title))</div>\n"
        }
        return tables.isEmpty ? "" : "<section><h2>All numbers</h2>\n\(tables.joined())</section>\n"
    }

    private var foot: String {
        let rules = report.run.rules
        let command = ([report.run.command] + report.run.arguments).joined(separator: " ")
        return """
            <footer class="foot">
            <p>Latencies count from the moment the schedule wanted a request sent. A block is one draw: intervals come from
            drawing \(report.options.resamples) times from the rounds (seed \(report.options.seed)), widened for few rounds.
            Stalls are gaps above \(NumberFormat.tick(Double(rules.stallThreshold) * 1e-6)) ms. Void if the client is later than
            \(NumberFormat.tick(Double(rules.latenessLimit) * 1e-6)) ms at p99.</p>
            <p><code>vllm-engine \(escaped(command))</code></p>
            </footer>

            """
    }
}

extension Figure {
    /// With another id, when a page has several of a kind.
    func renamed(_ suffix: String) -> Figure {
        Figure(
            name: name + suffix, title: title, summary: summary, caption: caption, drawing: drawing, numbers: numbers)
    }
}
