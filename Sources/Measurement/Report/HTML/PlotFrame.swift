/// The frame most figures share: plot area, grid, ticks, axis titles and the legend above.
struct PlotFrame {
    static let width = 560.0
    static let height = 340.0
    static let left = 58.0
    static let right = 16.0
    static let top = 34.0
    static let bottom = 46.0

    let x: Scale
    let y: Scale
    var drawing: SVGDrawing

    init(
        x: (low: Double, high: Double, logarithmic: Bool), y: (low: Double, high: Double, logarithmic: Bool),
        xTitle: String,
        yTitle: String, tickText: (Double) -> String = NumberFormat.tick,
        yTickText: (Double) -> String = NumberFormat.tick
    ) {
        drawing = SVGDrawing(width: Self.width, height: Self.height)
        let (left, right) = (Self.left, Self.width - Self.right)
        let (top, bottom) = (Self.top, Self.height - Self.bottom)
        self.x = Scale(low: x.low, high: x.high, logarithmic: x.logarithmic, from: left, to: right)
        self.y = Scale(low: y.low, high: y.high, logarithmic: y.logarithmic, from: bottom, to: top)
        for tick in self.y.ticks(5) {
            let place = self.y.place(tick)
            drawing.line(left, place, right, place, "grid")
            drawing.text(left - 8, place + 4, yTickText(tick), anchor: .end)
        }
        for tick in self.x.ticks(7) {
            let place = self.x.place(tick)
            drawing.line(place, top, place, bottom, "grid")
            drawing.text(place, bottom + 17, tickText(tick), anchor: .middle)
        }
        drawing.line(left, bottom, right, bottom, "axis")
        drawing.text((left + right) / 2, Self.height - 8, xTitle, "label", anchor: .middle)
        drawing.text(14, (top + bottom) / 2, yTitle, "label", anchor: .middle, vertical: true)
    }

    /// Names the arms above the plot, each with its line and marker.
    mutating func legend(_ names: [(arm: Int, name: String)]) {
        var x = Self.left
        for (arm, name) in names {
            drawing.line(x, 16, x + 22, 16, "line a\(arm % 3)")
            drawing.marker(x + 11, 16, arm: arm)
            drawing.text(x + 28, 20, name, "legend")
            x += 44 + Double(min(name.count, 30)) * 7
        }
    }
}

extension NumberFormat {
    /// As short as a tick can be: `0.5`, `20`, `3k`.
    static func tick(_ value: Double) -> String {
        let size = abs(value)
        if size >= 1_000_000 { return trimmed(value / 1_000_000) + "M" }
        if size >= 10_000 { return trimmed(value / 1000) + "k" }
        return trimmed(value)
    }

    private static func trimmed(_ value: Double) -> String {
        let size = abs(value)
        let decimals = size >= 100 || size == 0 ? 0 : size >= 1 ? 1 : size >= 0.1 ? 2 : size >= 0.01 ? 3 : 5
        var text = fixed(value, decimals)
        if text.contains(".") {
            while text.hasSuffix("0") { text.removeLast() }
            if text.hasSuffix(".") { text.removeLast() }
        }
        return text == "-0" ? "0" : text
    }
}
