import Glibc

/// The inside of an SVG picture, built piece by piece. Colours come from the page's style sheet by class.
struct SVGDrawing {
    let width: Double
    let height: Double
    private(set) var body = ""

    init(width: Double, height: Double) {
        self.width = width
        self.height = height
    }

    enum Anchor: String { case start, middle, end }

    mutating func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String) {
        body += "<line x1=\"\(n(x1))\" y1=\"\(n(y1))\" x2=\"\(n(x2))\" y2=\"\(n(y2))\" class=\"\(style)\"/>\n"
    }

    mutating func rectangle(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, _ style: String, hint: String? = nil
    ) {
        let shape =
            "<rect x=\"\(n(x))\" y=\"\(n(y))\" width=\"\(n(max(width, 0)))\" height=\"\(n(max(height, 0)))\" class=\"\(style)\""
        body += hint.map { "\(shape)><title>\(escaped($0))</title></rect>\n" } ?? "\(shape)/>\n"
    }

    mutating func text(
        _ x: Double, _ y: Double, _ text: String, _ style: String = "tick", anchor: Anchor = .start,
        vertical: Bool = false
    ) {
        let turn = vertical ? " transform=\"rotate(-90 \(n(x)) \(n(y)))\"" : ""
        let place = "x=\"\(n(x))\" y=\"\(n(y))\" text-anchor=\"\(anchor.rawValue)\""
        body += "<text \(place) class=\"\(style)\"\(turn)>\(escaped(text))</text>\n"
    }

    mutating func polyline(_ points: [(Double, Double)], _ style: String) {
        guard !points.isEmpty else { return }
        body += "<path d=\"\(path(points))\" class=\"\(style)\"/>\n"
    }

    /// The area between two lines over the same x.
    mutating func band(_ upper: [(Double, Double)], _ lower: [(Double, Double)], _ style: String) {
        guard !upper.isEmpty else { return }
        body += "<path d=\"\(path(upper + lower.reversed()))Z\" class=\"\(style)\"/>\n"
    }

    mutating func raw(path: String, _ style: String) { body += "<path d=\"\(path)\" class=\"\(style)\"/>\n" }

    /// Arms differ in shape as well as in colour.
    mutating func marker(_ x: Double, _ y: Double, arm: Int, size: Double = 4, style: String = "", hint: String? = nil)
    {
        let classes = "mark a\(arm % 3)\(style.isEmpty ? "" : " " + style)"
        let shape: String
        switch arm % 3 {
        case 0: shape = "<circle cx=\"\(n(x))\" cy=\"\(n(y))\" r=\"\(n(size))\" class=\"\(classes)\""
        case 1:
            let side = size * 1.8
            shape =
                "<rect x=\"\(n(x - side / 2))\" y=\"\(n(y - side / 2))\" width=\"\(n(side))\" height=\"\(n(side))\" class=\"\(classes)\""
        default:
            let points =
                "M\(n(x)) \(n(y - size * 1.2))L\(n(x + size * 1.1)) \(n(y + size * 0.9))L\(n(x - size * 1.1)) \(n(y + size * 0.9))Z"
            shape = "<path d=\"\(points)\" class=\"\(classes)\""
        }
        let tag = shape.dropFirst().prefix { $0 != " " }
        body += hint.map { "\(shape)><title>\(escaped($0))</title></\(tag)>\n" } ?? "\(shape)/>\n"
    }

    private func path(_ points: [(Double, Double)]) -> String {
        var result = ""
        for (index, point) in points.enumerated() { result += "\(index == 0 ? "M" : "L")\(n(point.0)) \(n(point.1))" }
        return result
    }

    private func n(_ value: Double) -> String { Self.number(value) }

    /// Tenths of a pixel are enough.
    static func number(_ value: Double) -> String {
        guard value.isFinite, abs(value) < 1e7 else { return "0" }
        let tenths = Int((value * 10).rounded())
        let sign = tenths < 0 ? "-" : ""
        let size = abs(tenths)
        return size % 10 == 0 ? "\(sign)\(size / 10)" : "\(sign)\(size / 10).\(size % 10)"
    }
}

/// Maps values to places along an axis.
struct Scale {
    let low: Double
    let high: Double
    let isLogarithmic: Bool
    let start: Double
    let end: Double

    init(low: Double, high: Double, logarithmic: Bool = false, from start: Double, to end: Double) {
        var low = low.isFinite ? low : 0
        var high = high.isFinite ? high : 1
        if logarithmic {
            low = max(low, 1e-9)
            high = max(high, low)
            // A single value still needs room on both sides.
            if high / low < 1.2 { (low, high) = (low / 1.5, high * 1.5) }
        } else if high - low < 1e-12 * max(abs(high), 1e-3) {
            (low, high) = (low - 0.5, high + 0.5)
        }
        self.low = low
        self.high = high
        isLogarithmic = logarithmic
        self.start = start
        self.end = end
    }

    func place(_ value: Double) -> Double {
        let clamped = min(max(value, low), high)
        let share = isLogarithmic ? log2(clamped / low) / log2(high / low) : (clamped - low) / (high - low)
        return start + share * (end - start)
    }

    func contains(_ value: Double) -> Bool { value >= low && value <= high }

    /// Round values, about as many as asked for.
    func ticks(_ wanted: Int = 6) -> [Double] {
        isLogarithmic ? logarithmicTicks(wanted) : linearTicks(wanted)
    }

    private func linearTicks(_ wanted: Int) -> [Double] {
        let rough = (high - low) / Double(max(wanted, 1))
        let decade = power(10, Int(log10(rough).rounded(.down)))
        let step = [1.0, 2, 5, 10].first { $0 * decade >= rough * 0.999 }.map { $0 * decade } ?? rough
        let first = Int((low / step).rounded(.up))
        let last = Int((high / step).rounded(.down))
        return last < first ? [low, high] : (first...min(last, first + 50)).map { Double($0) * step }
    }

    private func logarithmicTicks(_ wanted: Int) -> [Double] {
        let first = Int(log10(low).rounded(.down))
        let last = Int(log10(high).rounded(.up))
        for steps in [
            [1.0, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9], [1.0, 1.5, 2, 3, 4, 5, 7], [1.0, 2, 5],
            [1.0, 3], [1.0],
        ] {
            let ticks = (first...last).flatMap { exponent in steps.map { $0 * power(10, exponent) } }.filter(contains)
            if ticks.count <= wanted + 2, ticks.count >= 2 { return ticks }
        }
        let decades = (first...last).map { power(10, $0) }.filter(contains)
        let skip = max(1, decades.count / max(wanted, 1))
        let kept = decades.enumerated().filter { $0.offset % skip == 0 }.map(\.element)
        return kept.count >= 2 ? kept : [low, high]
    }

    private func power(_ base: Double, _ exponent: Int) -> Double {
        var result = 1.0
        for _ in 0..<abs(exponent) { result *= base }
        return exponent < 0 ? 1 / result : result
    }
}
