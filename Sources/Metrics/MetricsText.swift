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

    init(format: Format, created: Double) {
        self.format = format
        self.created = created
        bytes.reserveCapacity(64 << 10)
    }

    mutating func counter(_ name: String, _ help: String, _ samples: [(Labels, UInt64)]) {
        switch format {
        case .prometheus:
            header(name + "_total", help, "counter")
            for (labels, value) in samples { line(name + "_total", labels, String(value)) }
            createdSeries(name, help, samples.map(\.0))
        case .openMetrics:
            header(name, help, "counter")
            for (labels, value) in samples { line(name + "_total", labels, String(value)) }
        }
    }

    /// A counter of seconds without labels.
    mutating func secondsCounter(_ name: String, _ help: String, _ value: Double) {
        header(format == .prometheus ? name + "_total" : name, help, "counter")
        line(name + "_total", [], number(value))
    }

    mutating func gauge(_ name: String, _ help: String, _ samples: [(Labels, Double)]) {
        header(name, help, "gauge")
        for (labels, value) in samples { line(name, labels, number(value)) }
    }

    mutating func histogram(_ name: String, _ help: String, _ samples: [(Labels, HistogramSnapshot)]) {
        header(name, help, "histogram")
        for (labels, snapshot) in samples {
            var cumulative: UInt64 = 0
            for (index, bound) in snapshot.bounds.enumerated() {
                cumulative &+= snapshot.counts[index]
                line(name + "_bucket", labels + [("le", number(bound))], String(cumulative))
            }
            line(name + "_bucket", labels + [("le", "+Inf")], String(snapshot.total))
            line(name + "_count", labels, String(snapshot.total))
            line(name + "_sum", labels, number(snapshot.sum))
        }
        if format == .prometheus { createdSeries(name, help, samples.map(\.0)) }
    }

    mutating func summary(_ name: String, _ help: String, _ samples: [(Labels, count: UInt64, sum: UInt64)]) {
        header(name, help, "summary")
        for (labels, count, sum) in samples {
            line(name + "_count", labels, String(count))
            line(name + "_sum", labels, String(sum))
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
        for labels in labels { line(name + "_created", labels, number(created)) }
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

    private mutating func line(_ name: String, _ labels: Labels, _ value: String) {
        write(name)
        if !labels.isEmpty {
            write("{")
            for (index, label) in labels.enumerated() {
                if index > 0 { write(",") }
                write(label.0)
                write("=\"")
                writeEscaped(label.1)
                write("\"")
            }
            write("}")
        }
        write(" ")
        write(value)
        write("\n")
    }

    private mutating func write(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func writeEscaped(_ text: String) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): write("\\\\")
            case UInt8(ascii: "\""): write("\\\"")
            case UInt8(ascii: "\n"): write("\\n")
            default: bytes.append(byte)
            }
        }
    }

    private func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        return "\(value)"
    }
}
