import Glibc

/// When an open loop sends its requests. Depends on the seed alone, so that both arms of a round see the same schedule.
package enum ArrivalSchedule {
    /// Offsets from the start of the block, ascending; nil for loads that have no schedule (closed loop, trace).
    package static func offsets(_ load: LoadPoint, count: Int, seed: UInt64) -> [Nanoseconds]? {
        var generator = SeededGenerator(seed: seed)
        switch load {
        case .concurrency, .trace: return nil
        case .constant(let rate): return (0..<count).map { Nanoseconds(Double($0) / rate * 1e9) }
        case .poisson(let rate): return accumulate(count) { _ in generator.exponential() / rate }
        case .gamma(let rate, let burstiness):
            // No gap varies at all in the limit of large shapes, and one is as good as constant above this.
            if burstiness > 1e6 { return offsets(.constant(rate: rate), count: count, seed: seed) }
            return accumulate(count) { _ in generator.gamma(shape: burstiness) / (rate * burstiness) }
        case .ramp(let first, let last):
            return accumulate(count) { generator.exponential() / (first + (last - first) * $0) }
        case .exponentialRamp(let first, let last):
            return accumulate(count) { generator.exponential() / (first * pow(last / first, $0)) }
        }
    }

    /// - Parameter gap: before a request, of which it is told the place: above 0 up to 1 for the last.
    private static func accumulate(_ count: Int, _ gap: (Double) -> Double) -> [Nanoseconds] {
        var time = 0.0
        return (0..<count).map { index in
            if index > 0 { time += gap(Double(index) / Double(count - 1)) }
            return Nanoseconds(time * 1e9)
        }
    }
}

extension SeededGenerator {
    /// Above 0, below 1.
    package mutating func unit() -> Double { (Double(next() >> 11) + 0.5) * 0x1p-53 }

    /// Mean 1.
    package mutating func exponential() -> Double { -log(unit()) }

    package mutating func normal() -> Double {
        (-2 * log(unit())).squareRoot() * cos(2 * .pi * unit())
    }

    /// Mean and variance equal to the shape (Marsaglia and Tsang 2000).
    package mutating func gamma(shape: Double) -> Double {
        if shape < 1 { return gamma(shape: shape + 1) * pow(unit(), 1 / shape) }
        let d = shape - 1.0 / 3
        let c = 1 / (9 * d).squareRoot()
        while true {
            let x = normal()
            let v = 1 + c * x
            if v <= 0 { continue }
            let cube = v * v * v
            if log(unit()) < 0.5 * x * x + d - d * cube + d * log(cube) { return d * cube }
        }
    }
}
