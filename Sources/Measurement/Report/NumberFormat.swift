import Glibc

/// How reports spell numbers for people.
enum NumberFormat {
    /// Three significant digits, no exponent, thousands apart: `0.61`, `12.3`, `1,240`.
    static func value(_ value: Double) -> String {
        guard value.isFinite else { return "–" }
        let size = abs(value)
        if size == 0 { return "0" }
        if size < 0.0005 { return "≈0" }
        // Where rounding adds a digit, one decimal less keeps three.
        let decimals = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 ? 2 : 3
        return grouped(fixed(value, decimals))
    }

    static func value(_ value: Double?) -> String { value.map { self.value($0) } ?? "–" }

    /// `-18%`, `+2.4%`; the sign of a true minus is left to the reader's font.
    static func percent(_ fraction: Double) -> String { signed(fraction * 100) + "%" }

    /// A difference in the metric's unit.
    static func signed(_ value: Double) -> String {
        guard value.isFinite else { return "–" }
        let size = abs(value)
        let text = grouped(fixed(size, size >= 10 ? 0 : size >= 1 ? 1 : size >= 0.1 ? 2 : 3))
        if !text.contains(where: { $0 >= "1" && $0 <= "9" }) { return "0" }
        return (value < 0 ? "-" : "+") + text
    }

    static func difference(_ value: Double, _ kind: DifferenceKind) -> String {
        kind == .relative ? percent(value) : signed(value)
    }

    /// `-18% [-21, -15]`. A limit that is beyond ten times as much says no more than that.
    static func difference(_ difference: PairedDifference) -> String {
        func limit(_ value: Double) -> String {
            difference.kind == .absolute ? signed(value) : value > 9.99 ? ">+999" : signed(value * 100)
        }
        let limits = "[\(limit(difference.low)), \(limit(difference.high))]"
        return "\(self.difference(difference.difference, difference.kind)) \(limits)"
    }

    /// Without a sign: `12%`, `0.4`.
    static func size(_ value: Double, _ kind: DifferenceKind) -> String {
        if kind == .relative, abs(value) > 9.99 { return ">999%" }
        let scaled = abs(kind == .relative ? value * 100 : value)
        return grouped(fixed(scaled, scaled >= 10 ? 0 : scaled >= 1 ? 1 : 2)) + (kind == .relative ? "%" : "")
    }

    static func fixed(_ value: Double, _ decimals: Int) -> String {
        // The longest finite number has 309 digits in front of the point.
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
            let length = withVaList([Int32(clamping: decimals), value]) {
                vsnprintf(buffer.baseAddress, buffer.count, "%.*f", $0)
            }
            let text = UnsafeRawBufferPointer(buffer).prefix(max(0, min(Int(length), buffer.count - 1)))
            return String(decoding: text, as: UTF8.self)
        }
    }

    private static func grouped(_ text: String) -> String {
        let sign = text.hasPrefix("-") ? "-" : ""
        let parts = text.dropFirst(sign.count).split(separator: ".", maxSplits: 1)
        guard let whole = parts.first, whole.count > 3 else { return text }
        var digits = ""
        for (index, digit) in whole.enumerated() {
            if index > 0, (whole.count - index) % 3 == 0 { digits.append(",") }
            digits.append(digit)
        }
        return sign + digits + (parts.count > 1 ? "." + parts[1] : "")
    }
}

extension LoadPoint {
    /// For people: `poisson 40/s`, `64 at once`.
    package var title: String {
        func number(_ value: Double) -> String { NumberFormat.value(value) }
        switch self {
        case .poisson(let rate): return "poisson \(number(rate))/s"
        case .gamma(let rate, let burstiness): return "gamma \(number(rate))/s, burstiness \(number(burstiness))"
        case .constant(let rate): return "constant \(number(rate))/s"
        case .ramp(let from, let to): return "ramp \(number(from)) to \(number(to))/s"
        case .exponentialRamp(let from, let to): return "exponential ramp \(number(from)) to \(number(to))/s"
        case .concurrency(let count): return "\(count) at once"
        case .trace: return "trace"
        }
    }
}

extension RunDescription {
    /// `swift 0.1 vs rust 0.33`.
    package var contestants: String {
        arms.map { arm in arm.version.map { "\(arm.name) \($0)" } ?? arm.name }.joined(separator: " vs ")
    }

    /// The part by which arms may differ and still be called equal.
    package var equalWithin: Double { rules.equalWithin ?? RunRules.usualEqualWithin }

    /// The verdict in full: `equal within 0.1%`.
    private var equalTitle: String {
        // As it was given: no zeros at the end.
        var percent = NumberFormat.fixed(equalWithin * 100, 6)
        while percent.hasSuffix("0") { percent.removeLast() }
        if percent.hasSuffix(".") { percent.removeLast() }
        return "\(Verdict.equal.rawValue) within \(percent)%"
    }

    /// A verdict for people.
    func title(_ verdict: Verdict) -> String { verdict == .equal ? equalTitle : verdict.rawValue }

    var workloadTitle: String {
        var parts = [workload.summary.isEmpty ? workload.name : workload.summary]
        // A summary may have said it already.
        if let input = workload.inputTokens, !parts[0].contains("\(input)") { parts.append("\(input) in") }
        if let output = workload.outputTokens, !parts[0].contains("\(output)") { parts.append("up to \(output) out") }
        return parts.joined(separator: ", ")
    }
}
