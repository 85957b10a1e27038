/// The highest offered rate a frontend carries before its tail leaves the flat part of the curve.
package enum SaturationKnee {
    /// One step of a rate sweep.
    package struct Step: Sendable, Equatable {
        /// Requests per second.
        package let offered: Double
        package let achieved: Double
        /// The p99 watched, in seconds.
        package let tail: Double

        package init(offered: Double, achieved: Double, tail: Double) {
            self.offered = offered
            self.achieved = achieved
            self.tail = tail
        }
    }

    /// The last step, going up from the lowest rate, that still completes `keptUp` of the offered rate with a tail of at most
    /// `growth` times the lowest step's; nil when there are fewer than three steps or even the highest one holds.
    package static func find(_ steps: [Step], growth: Double = 2, keptUp: Double = 0.95) -> Step? {
        let steps = steps.sorted { $0.offered < $1.offered }
        guard steps.count >= 3, let first = steps.first else { return nil }
        var knee: Step?
        for step in steps {
            guard step.achieved >= keptUp * step.offered, step.tail <= growth * first.tail else { return knee }
            knee = step
        }
        return nil
    }
}
