/// Order statistics of samples, defined as numpy's default (linear interpolation, Hyndman–Fan type 7): with the sorted samples
/// `x[0] … x[n-1]` and `h = (n - 1)·q`, the quantile is `x[⌊h⌋] + (h - ⌊h⌋)·(x[⌊h⌋+1] - x[⌊h⌋])`.
///
/// `vllm bench serve` uses the same definition, so its percentiles and ours can be compared.
package enum Percentiles {
    /// - Parameters:
    ///   - sorted: ascending samples, at least one.
    ///   - quantile: 0 … 1.
    package static func quantile(ofSorted sorted: [Double], _ quantile: Double) -> Double {
        let place = Double(sorted.count - 1) * quantile
        let lower = Int(place.rounded(.down))
        let upper = min(lower + 1, sorted.count - 1)
        return interpolate(sorted[lower], sorted[upper], place - Double(lower))
    }

    /// The quantile of unsorted samples; nil when there are none.
    package static func quantile(of samples: [Double], _ quantile: Double) -> Double? {
        samples.isEmpty ? nil : Self.quantile(ofSorted: samples.sorted(), quantile)
    }

    package static func median(_ samples: [Double]) -> Double? { quantile(of: samples, 0.5) }

    package static func mean(_ samples: [Double]) -> Double? {
        samples.isEmpty ? nil : samples.reduce(0, +) / Double(samples.count)
    }

    /// The sample standard deviation (divisor n - 1); nil below two samples.
    package static func standardDeviation(_ samples: [Double]) -> Double? {
        guard samples.count > 1, let mean = mean(samples) else { return nil }
        let squares = samples.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return (squares / Double(samples.count - 1)).squareRoot()
    }

    /// Between two neighbours; the same from either end, and exact at both.
    static func interpolate(_ low: Double, _ high: Double, _ fraction: Double) -> Double {
        fraction < 0.5 ? low + (high - low) * fraction : high - (high - low) * (1 - fraction)
    }
}
