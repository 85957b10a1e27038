/// Builds a metrics page line by line.
struct MetricsText {
    enum Format: Sendable {
        /// `text/plain; version=0.0.4`, as Python's prometheus_client writes it.
        case prometheus
        /// `application/openmetrics-text; version=1.0.0`.
        case openMetrics
    }

    typealias Labels = [(String, String)]

    let format: Format
    /// Unix time of the `_created` series of the Prometheus format.
    let created: Double
    private(set) var bytes: [UInt8] = []
    /// Of the few lists of buckets that many histograms share.
    private var bucketEnds: [(bounds: [Double], ends: [[UInt8]])] = []

    init(format: Format, created: Double) {
        self.format = format
        self.created = created
        bytes.reserveCapacity(64 << 10)
    }

    mutating func counter(_ name: String, _ help: String, _ samples: [(Labels, UInt64)]) {
        header(format == .prometheus ? name + "_total" : name, help, "counter")
        for (labels, value) in samples { line(name, "_total", rendered(labels), value) }
        if format == .prometheus { createdSeries(name, help, samples.map(\.0)) }
    }

    /// A counter of seconds without labels.
    mutating func secondsCounter(_ name: String, _ help: String, _ value: Double) {
        header(format == .prometheus ? name + "_total" : name, help, "counter")
        line(name, "_total", [], value)
    }

    mutating func gauge(_ name: String, _ help: String, _ samples: [(Labels, Double)]) {
        header(name, help, "gauge")
        for (labels, value) in samples { line(name, "", rendered(labels), value) }
    }

    mutating func histogram(_ name: String, _ help: String, _ samples: [(Labels, HistogramSnapshot)]) {
        header(name, help, "histogram")
        for (labels, snapshot) in samples {
            let labels = rendered(labels)
            // Most of a page is buckets: what all lines of a histogram begin with is put together once.
            var beginning = Array(name.utf8)
            beginning.append(contentsOf: "_bucket{".utf8)
            beginning.append(contentsOf: labels)
            if !labels.isEmpty { beginning.append(UInt8(ascii: ",")) }
            beginning.append(contentsOf: "le=\"".utf8)
            var cumulative: UInt64 = 0
            for (index, end) in ends(of: snapshot.bounds).enumerated() {
                cumulative &+= snapshot.counts[index]
                bytes.append(contentsOf: beginning)
                bytes.append(contentsOf: end)
                write(cumulative)
                write("\n")
            }
            let total = snapshot.total
            bytes.append(contentsOf: beginning)
            write("+Inf\"} ")
            write(total)
            write("\n")
            line(name, "_count", labels, total)
            line(name, "_sum", labels, snapshot.sum)
        }
        if format == .prometheus { createdSeries(name, help, samples.map(\.0)) }
    }

    mutating func summary(_ name: String, _ help: String, _ samples: [(Labels, count: UInt64, sum: UInt64)]) {
        header(name, help, "summary")
        for (labels, count, sum) in samples {
            let labels = rendered(labels)
            line(name, "_count", labels, count)
            line(name, "_sum", labels, sum)
        }
        if format == .prometheus { createdSeries(name, help, samples.map(\.0)) }
    }

    /// A family that has no series yet.
    mutating func empty(_ name: String, _ help: String, _ type: String) { header(name, help, type) }

    mutating func end() {
        if format == .openMetrics { write("# EOF\n") }
    }

    private mutating func createdSeries(_ name: String, _ help: String, _ labels: [Labels]) {
        header(name + "_created", help, "gauge")
        for labels in labels { line(name, "_created", rendered(labels), created) }
    }

    private mutating func header(_ name: String, _ help: String, _ type: String) {
        write("# HELP ")
        write(name)
        write(" ")
        write(help)
        write("\n# TYPE ")
        write(name)
        write(" ")
        write(type)
        write("\n")
    }

    /// What the labels of the buckets end with.
    private mutating func ends(of bounds: [Double]) -> [[UInt8]] {
        if let known = bucketEnds.first(where: { $0.bounds == bounds }) { return known.ends }
        let ends = bounds.map { Array("\(number($0))\"} ".utf8) }
        bucketEnds.append((bounds, ends))
        return ends
    }

    /// What stands between the braces.
    private func rendered(_ labels: Labels) -> [UInt8] {
        var result: [UInt8] = []
        for (index, label) in labels.enumerated() {
            if index > 0 { result.append(UInt8(ascii: ",")) }
            result.append(contentsOf: label.0.utf8)
            result.append(contentsOf: "=\"".utf8)
            for byte in label.1.utf8 {
                switch byte {
                case UInt8(ascii: "\\"): result.append(contentsOf: "\\\\".utf8)
                case UInt8(ascii: "\""): result.append(contentsOf: "\\\"".utf8)
                case UInt8(ascii: "\n"): result.append(contentsOf: "\\n".utf8)
                default: result.append(byte)
                }
            }
            result.append(UInt8(ascii: "\""))
        }
        return result
    }

    private mutating func line(_ name: String, _ suffix: String, _ labels: [UInt8], _ value: UInt64) {
        beginLine(name, suffix, labels)
        write(value)
        write("\n")
    }

    private mutating func line(_ name: String, _ suffix: String, _ labels: [UInt8], _ value: Double) {
        beginLine(name, suffix, labels)
        write(value)
        write("\n")
    }

    private mutating func beginLine(_ name: String, _ suffix: String, _ labels: [UInt8]) {
        write(name)
        write(suffix)
        if !labels.isEmpty {
            write("{")
            bytes.append(contentsOf: labels)
            write("}")
        }
        write(" ")
    }

    private mutating func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes.append(contentsOf: $0) }
    }

    private mutating func write(_ value: UInt64) {
        if value < 10 { bytes.append(UInt8(ascii: "0") + UInt8(value)) } else { write(String(value)) }
    }

    private mutating func write(_ value: Double) { write(number(value)) }

    private func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return "\(value)"
    }
}
