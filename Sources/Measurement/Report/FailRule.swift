import Glibc

/// A condition under which a run counts as failed: `p99_ttft_added > +5% at 95%`.
///
/// `METRIC OPERATOR LIMIT [at LEVEL%] [vs ARM]`. A limit with a sign is a difference of the first arm to the others, in
/// percent or in the metric's unit; without a sign it is the first arm's own value. With a level the rule holds only if the
/// whole interval of that level is beyond the limit, without one if the estimate is. Without `vs`, any other arm counts.
package struct FailRule: Sendable, Equatable {
    package enum Comparison: String, Sendable, Equatable {
        case above = ">"
        case below = "<"
    }

    package enum Limit: Sendable, Equatable {
        /// A fraction.
        case relative(Double)
        /// In the metric's unit.
        case absolute(Double)
        case value(Double)
    }

    /// Why a text is no rule.
    package struct ParseError: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    package enum Outcome: Sendable, Equatable {
        case passed(String)
        case failed(String)
        /// The run has not measured what the rule is about; it must not pass silently.
        case undecidable(String)

        package var message: String {
            switch self {
            case .passed(let text), .failed(let text), .undecidable(let text): text
            }
        }
    }

    /// Counts of the equivalence check, beside the metrics.
    package static let unequalAnswers = "unequal_answers"
    package static let unequalFeatures = "unequal_features"
    private static let counts = [unequalAnswers, unequalFeatures]

    package let text: String
    package let metric: String
    package let comparison: Comparison
    package let limit: Limit
    /// Strictly between 0 and 1.
    package let level: Double?
    package let baseline: String?

    package init(_ text: String) throws(ParseError) {
        let source = text.replacing(">", with: " > ").replacing("<", with: " < ")
        var words = source.split(whereSeparator: \.isWhitespace).map(String.init)
        func problem(_ reason: String) -> ParseError {
            ParseError(description: "\(reason) in '\(text)'; a rule reads: p99_ttft_added > +5% at 95%")
        }
        guard words.count >= 3 else { throw problem("metric, operator or limit missing") }
        metric = words.removeFirst()
        guard Metric.named(metric) != nil || Self.counts.contains(metric) else {
            throw ParseError(description: "unknown metric '\(metric)'; known are: \(Self.metricNames)")
        }
        guard let comparison = Comparison(rawValue: words.removeFirst()) else {
            throw problem("the operator is not > or <")
        }
        self.comparison = comparison
        let unit = Metric.named(metric)?.unit ?? ""
        var limitText = words.removeFirst()
        // The unit may stand apart.
        if let next = words.first, next == "%" || next == unit || Self.scale(of: next, for: unit) != nil {
            limitText += words.removeFirst()
        }
        guard let limit = Self.limit(limitText, unit: unit) else {
            let example = unit.isEmpty || unit == "%" ? "+2" : "+2\(unit)"
            throw problem("'\(limitText)' is not a limit such as +5%, \(example) or 50")
        }
        self.limit = limit
        var level: Double?
        var baseline: String?
        while !words.isEmpty {
            let word = words.removeFirst()
            guard !words.isEmpty else { throw problem("nothing after '\(word)'") }
            let value = words.removeFirst()
            switch word {
            case "at" where level == nil:
                guard value.hasSuffix("%"), let percent = Double(value.dropLast()), percent >= 50, percent < 100 else {
                    throw problem("the level '\(value)' is not a percentage from 50% to below 100%")
                }
                level = percent / 100
            case "vs" where baseline == nil: baseline = value
            default: throw problem("'\(word)' is not expected")
            }
        }
        if case .value = limit {
            guard level == nil else {
                throw problem("a level needs a difference, a limit with a sign such as +5%")
            }
            guard baseline == nil else { throw problem("vs needs a difference, a limit with a sign such as +5%") }
        } else if Self.counts.contains(metric) {
            throw problem("\(metric) is a count; write \(metric) > 0")
        }
        self.text = text
        self.level = level
        self.baseline = baseline
    }

    private static var metricNames: String {
        (Metric.all.map(\.name) + counts).joined(separator: ", ")
    }

    private static func limit(_ text: String, unit: String) -> Limit? {
        let signed = text.hasPrefix("+") || text.hasPrefix("-")
        let digits = text.prefix { $0.isNumber || "+-.eE".contains($0) }
        guard let number = Double(digits), number.isFinite else { return nil }
        let suffix = String(text.dropFirst(digits.count))
        if suffix == "%" {
            // A metric in percent has percentages as values; a difference of it is in points.
            if unit == "%" { return signed ? .absolute(number) : .value(number) }
            return signed ? .relative(number / 100) : nil
        }
        guard let scale = suffix.isEmpty ? 1 : scale(of: suffix, for: unit) else { return nil }
        return signed ? .absolute(number * scale) : .value(number * scale)
    }

    /// What one of `suffix` is in the metric's unit.
    private static func scale(of suffix: String, for unit: String) -> Double? {
        if suffix == unit { return 1 }
        let seconds = ["s": 1.0, "ms": 1e-3, "us": 1e-6]
        guard let given = seconds[suffix] else { return nil }
        if unit == "ms" { return given / 1e-3 }
        return unit.hasPrefix("us/") ? given / 1e-6 : nil
    }

    // MARK: - Evaluation

    /// Whether the run fails by this rule: at any of its loads, against any of the other arms (or the one named).
    package func evaluate(_ report: Report) -> Outcome {
        if report.isVoid {
            return .undecidable("\(text): the run is void: \(report.voidReasons.joined(separator: "; "))")
        }
        if Self.counts.contains(metric) { return evaluateEquivalence(report) }
        guard let metric = Metric.named(metric) else { return .undecidable("\(text): unknown metric") }
        if let baseline, !report.run.arms.dropFirst().contains(where: { $0.name == baseline }) {
            return .undecidable("\(text): no arm '\(baseline)' that the first arm is compared with")
        }
        var passed: [String] = []
        for load in report.loads {
            guard let row = load.row(metric.name), row.values[0] != nil else {
                return .undecidable("\(text): \(metric.name) was not measured at \(load.load.title)")
            }
            for finding in findings(row, report: report) {
                let place = report.loads.count > 1 ? " at \(load.load.title)" : ""
                guard let finding else { return .undecidable("\(text): no difference could be computed\(place)") }
                if finding.holds { return .failed("\(text): \(finding.message)\(place)") }
                passed.append(finding.message + place)
            }
        }
        return passed.isEmpty
            ? .undecidable("\(text): nothing to compare") : .passed("\(text): \(passed.joined(separator: "; "))")
    }

    private typealias Finding = (holds: Bool, message: String)

    private func findings(_ row: MetricRow, report: Report) -> [Finding?] {
        if case .value(let limit) = limit {
            guard let value = row.values[0] else { return [nil] }
            let holds = comparison == .above ? value > limit : value < limit
            let unit = row.metric.unit.isEmpty ? "" : " \(row.metric.unit)"
            return [(holds, "\(report.run.arms[0].name) has \(NumberFormat.value(value))\(unit)")]
        }
        return report.run.arms.indices.dropFirst().filter { baseline == nil || report.run.arms[$0].name == baseline }
            .map {
                finding(row, baseline: $0, report: report)
            }
    }

    private func finding(_ row: MetricRow, baseline: Int, report: Report) -> Finding? {
        let wanted: DifferenceKind
        let bound: Double
        switch limit {
        case .relative(let value): (wanted, bound) = (.relative, value)
        case .absolute(let value), .value(let value): (wanted, bound) = (.absolute, value)
        }
        var options = report.options
        if let level { options.level = level }
        guard let difference = row.difference(to: baseline, kind: wanted, options: options), difference.kind == wanted
        else {
            return nil
        }
        let value = level == nil ? difference.difference : comparison == .above ? difference.low : difference.high
        let holds = comparison == .above ? value > bound : value < bound
        let unit = wanted == .absolute && !row.metric.unit.isEmpty ? " \(row.metric.unit)" : ""
        return (
            holds, "\(NumberFormat.difference(difference))\(unit) against \(report.run.arms[baseline].name)"
        )
    }

    private func evaluateEquivalence(_ report: Report) -> Outcome {
        let ofFeatures = metric == Self.unequalFeatures
        guard !report.equivalence.isEmpty, case .value(let limit) = limit,
            !ofFeatures || report.equivalence.allSatisfy({ !$0.features.isEmpty })
        else { return .undecidable("\(text): \(ofFeatures ? "features" : "answers") were not compared") }
        let unequal = report.equivalence.map { ofFeatures ? $0.unequalFeatures : $0.unequalAnswers }.max() ?? 0
        let holds = comparison == .above ? Double(unequal) > limit : Double(unequal) < limit
        let message = "\(text): \(unequal) \(ofFeatures ? "features" : "answers") differ"
        return holds ? .failed(message) : .passed(message)
    }
}
