/// What a larger value of a metric means.
package enum MetricSense: String, Sendable, Equatable {
    /// Smaller is faster: latencies, gaps, stalls.
    case latency
    /// Larger is faster: tokens per second.
    case rate
    /// Smaller is cheaper: CPU, memory, bytes, system calls.
    case cost
}

/// The word printed beside a difference.
package enum Verdict: String, Sendable, Equatable, CaseIterable {
    case faster
    case slower
    case cheaper
    case dearer
    /// Perhaps a difference, but none that matters.
    case equal
    case noDifferenceShown = "no difference shown"
    case tooNoisy = "too noisy"

    /// - Parameters:
    ///   - noiseFloor: the largest difference that the same frontend against itself is compatible with, of the same kind;
    ///     nil without an A/A run.
    ///   - equalWithin: relative differences up to this size matter to nobody. Where interval and noise floor are within it the
    ///     arms are equal, even if the interval excludes 0.
    ///   - usefulDifference: when even a relative difference of this size could have been missed, the run says nothing.
    /// - Note: a difference is shown when its interval excludes 0 and its size exceeds the noise floor, a relative one as a
    ///   ratio: -50 % is as far from equal as +100 %, and no noise is too large for a frontend that takes next to no time.
    package static func of(
        _ difference: PairedDifference, sense: MetricSense, noiseFloor: Double?, equalWithin: Double = 0,
        usefulDifference: Double = 0.25
    ) -> Verdict {
        if difference.kind == .relative,
            max(abs(difference.low), abs(difference.high), noiseFloor ?? 0) <= equalWithin
        {
            return .equal
        }
        let excludesZero = difference.low > 0 || difference.high < 0
        if excludesZero, difference.exceeds(noiseFloor ?? 0) {
            let smaller = difference.difference < 0
            switch sense {
            case .latency: return smaller ? .faster : .slower
            case .rate: return smaller ? .slower : .faster
            case .cost: return smaller ? .cheaper : .dearer
            }
        }
        let detectable = max(difference.detectable, noiseFloor ?? 0)
        return difference.kind == .relative && detectable > usefulDifference ? .tooNoisy : .noDifferenceShown
    }
}

extension PairedDifference {
    fileprivate func exceeds(_ floor: Double) -> Bool {
        guard kind == .relative, difference < 0 else { return abs(difference) > floor }
        return difference <= -1 || 1 / (1 + difference) > 1 + floor
    }

    /// Read as an A/A result: the difference that the same frontend against itself shows, or may show in a comparison of
    /// `rounds` pairs of blocks, whichever is larger.
    package func noiseFloor(rounds: Int) -> Double {
        guard rounds > 1, !blocks.isEmpty else { return abs(difference) }
        let student = Distributions.studentQuantile((1 + level) / 2, degreesOfFreedom: Double(rounds - 1))
        let scale = (Double(blocks.count) / Double(rounds)).squareRoot()
        return max(abs(difference), student * standardError * scale)
    }
}
