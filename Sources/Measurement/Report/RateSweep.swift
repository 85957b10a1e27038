/// The tail over the loads of a run, and where it leaves its flat part.
struct RateSweep {
    let metric: String
    /// By arm, ascending; with the load each belongs to.
    let steps: [[(step: SaturationKnee.Step, load: LoadReport)]]

    /// Of the part that the frontends add, if it was measured.
    init(_ report: Report) {
        func measured(_ name: String) -> Bool { report.loads.contains { $0.row(name) != nil } }
        let metric = ["p99_ttft_added", "p99_ttft"].first(where: measured) ?? "p99_e2el"
        self.metric = metric
        steps = report.run.arms.indices.map { arm in
            report.loads.compactMap { load in
                guard let tail = load.row(metric)?.values[arm] else { return nil }
                let offered = load.load.rate ?? load.arms[arm].offeredRate
                let step = SaturationKnee.Step(
                    offered: offered, achieved: offered * load.arms[arm].carriedShare, tail: tail)
                return (step, load)
            }.sorted { $0.step.offered < $1.step.offered }
        }
    }

    var title: String { Metric.named(metric)?.title ?? metric }

    /// Offered rate at the knee, by arm; without those that have none.
    var knees: [Int: Double] {
        Dictionary(
            uniqueKeysWithValues: steps.enumerated().compactMap { arm, steps in
                SaturationKnee.find(steps.map(\.step)).map { (arm, $0.offered) }
            })
    }
}
