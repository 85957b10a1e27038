import JSONBytes

/// The report as one JSON document. `docs/measurement.md` describes it; its `schema` changes when a field changes meaning.
package struct JSONReport: Sendable {
    package static let schema = "vllm-engine.measurement/1"

    private let report: Report

    package init(_ report: Report) { self.report = report }

    package var text: String { value.serialized(style: .python(indent: "  ")) + "\n" }

    package var value: JSONValue {
        let run = report.run
        return .object(
            JSONObject([
                ("schema", .string(Self.schema)),
                ("command", .string(run.command)),
                ("arguments", .array(run.arguments.map { .string($0) })),
                ("version", .string(run.version)),
                ("started_at", .finite(run.startedAt)),
                ("seed", .string(String(run.seed))),
                ("engine", .string(run.engine)),
                ("machine", machine),
                ("workload", workload),
                ("rules", rules),
                ("arms", .array(run.arms.map(arm))),
                ("void", .array(report.voidReasons.map { .string($0) })),
                ("noise", noise),
                ("loads", .array(report.loads.map(load))),
                ("equivalence", .array(report.equivalence.map(equivalence))),
            ]))
    }

    private var machine: JSONValue {
        let machine = report.run.machine
        return .object(
            JSONObject([
                ("cpu", .string(machine.cpuModel)), ("cpus", .number(machine.cpus)),
                ("kernel", .string(machine.kernel)),
                ("memory_bytes", .number(machine.memoryBytes)),
            ]))
    }

    private var workload: JSONValue {
        let workload = report.run.workload
        return .object(
            JSONObject([
                ("name", .string(workload.name)), ("summary", .string(workload.summary)),
                ("path", .string(workload.path)), ("streaming", .bool(workload.streaming)),
                ("requests_per_block", .number(workload.requestsPerBlock)),
                ("input_tokens", .optional(workload.inputTokens)), ("output_tokens", .optional(workload.outputTokens)),
            ]))
    }

    private var rules: JSONValue {
        let rules = report.run.rules
        let levels = rules.goodput.sorted { $0.key < $1.key }.map { ($0.key, JSONValue.finite($0.value)) }
        return .object(
            JSONObject([
                ("level", .finite(report.options.level)), ("power", .finite(report.options.power)),
                ("resamples", .number(report.options.resamples)),
                ("lateness_limit_ms", .finite(Double(rules.latenessLimit) * 1e-6)),
                ("noise_limit", .finite(rules.noiseLimit)),
                ("equal_within", .finite(report.run.equalWithin)),
                ("stall_threshold_ms", .finite(Double(rules.stallThreshold) * 1e-6)),
                ("goodput_ms", .object(JSONObject(levels))),
            ]))
    }

    private func arm(_ arm: ArmDescription) -> JSONValue {
        .object(
            JSONObject([
                ("name", .string(arm.name)), ("version", .optional(arm.version)), ("program", .optional(arm.program)),
                ("start_seconds", .optional(arm.startSeconds)), ("idle_rss_bytes", .optional(arm.idleResidentBytes)),
                ("idle_pss_bytes", .optional(arm.idleProportionalBytes)),
            ]))
    }

    private var noise: JSONValue {
        let noise = report.noise
        return .object(
            JSONObject([
                ("client_lateness_p99_ms", .finite(noise.latenessP99)),
                ("client_lateness_max_ms", .finite(noise.latenessHighest)),
                ("steal", .finite(noise.steal)), ("other_cpu", .finite(noise.otherCPU)),
                ("load_average", .finite(noise.loadAverage)),
                ("megahertz_min", .optional(noise.megahertz.min())),
                ("megahertz_max", .optional(noise.megahertz.max())),
                (
                    "dropped_blocks",
                    .array(
                        noise.dropped.map {
                            .object(JSONObject([("block", .number($0.block)), ("reason", .string($0.reason))]))
                        })
                ),
            ]))
    }

    private func load(_ load: LoadReport) -> JSONValue {
        .object(
            JSONObject([
                ("load", .string(load.load.title)),
                ("rate", .optional(load.load.rate)),
                ("concurrency", load.load.concurrency.map { .number($0) } ?? .null),
                ("rounds", .number(load.rounds)),
                ("noise_floor_rounds", .number(load.noiseFloorRounds)),
                ("arms", .array(load.arms.map(armAtLoad))),
                ("metrics", .array(load.rows.map(metric))),
            ]))
    }

    private func armAtLoad(_ arm: ArmReport) -> JSONValue {
        let failures = arm.failures.sorted { $0.key.rawValue < $1.key.rawValue }.map {
            ($0.key.rawValue, JSONValue.number($0.value))
        }
        let sizes = arm.chunkSizes.sorted { $0.key < $1.key }.map { (String($0.key), JSONValue.number($0.value)) }
        return .object(
            JSONObject([
                ("name", .string(report.run.arms[arm.arm].name)),
                ("requests", .number(arm.requestCount)),
                ("failures", .object(JSONObject(failures))),
                ("input_tokens", .number(arm.inputTokens)),
                ("output_tokens", .number(arm.outputTokens)),
                ("seconds", .finite(arm.wallSeconds)),
                ("chunks_by_tokens", .object(JSONObject(sizes))),
            ]))
    }

    private func metric(_ row: MetricRow) -> JSONValue {
        let values = zip(report.run.arms, row.values).map { ($0.name, JSONValue.optional($1)) }
        return .object(
            JSONObject([
                ("name", .string(row.metric.name)), ("unit", .string(row.metric.unit)),
                ("formula", .string(row.metric.formula)), ("better", .optional(row.metric.better)),
                ("values", .object(JSONObject(values))), ("noise_floor", .optional(row.noiseFloor)),
                ("comparisons", .array(row.comparisons.map(comparison))),
            ]))
    }

    private func comparison(_ comparison: MetricRow.Comparison) -> JSONValue {
        let difference = comparison.difference
        return .object(
            JSONObject([
                ("candidate", .string(report.run.arms[0].name)),
                ("baseline", .string(report.run.arms[comparison.baseline].name)),
                ("kind", .string(difference.kind.rawValue)),
                ("difference", .finite(difference.difference)),
                ("low", .finite(difference.low)), ("high", .finite(difference.high)),
                ("level", .finite(difference.level)),
                ("hodges_lehmann", .finite(difference.shift)),
                ("standard_error", .finite(difference.standardError)),
                ("min_detectable", .finite(comparison.detectable)),
                ("noise_floor", .optional(comparison.noiseFloor)),
                ("verdict", .optional(comparison.verdict?.rawValue)),
                ("blocks", .array(difference.blocks.map { .finite($0) })),
            ]))
    }

    private func equivalence(_ result: EquivalenceReport) -> JSONValue {
        let counts = result.counts.map { count in
            (
                count.aspect.rawValue,
                JSONValue.object(
                    JSONObject([("equal", .number(count.equal)), ("compared", .number(count.compared))]))
            )
        }
        let examples = result.examples.map { example in
            JSONValue.object(
                JSONObject([
                    ("prompt", .optional(example.prompt)), ("feature", .optional(example.feature)),
                    ("aspect", .string(example.aspect.rawValue)),
                    ("candidate", .string(example.candidate)), ("baseline", .string(example.baseline)),
                ]))
        }
        return .object(
            JSONObject([
                ("candidate", .string(report.run.arms[result.candidate].name)),
                ("baseline", .string(report.run.arms[result.baseline].name)),
                ("answers_equal", .bool(result.answersEqual)), ("unequal_answers", .number(result.unequalAnswers)),
                ("unequal_features", .number(result.unequalFeatures)),
                ("unanswered", .number(result.unanswered)), ("counts", .object(JSONObject(counts))),
                (
                    "features",
                    .array(
                        result.features.map { feature in
                            .object(
                                JSONObject([
                                    ("name", .string(feature.name)),
                                    ("unequal", .array(feature.unequal.map { .string($0.rawValue) })),
                                    ("refused_by", .optional(feature.refusedBy.map { report.run.arms[$0].name })),
                                ]))
                        })
                ),
                ("examples", .array(examples)),
            ]))
    }
}

extension LoadPoint {
    package var concurrency: Int? { if case .concurrency(let count) = self { count } else { nil } }
}

extension Metric {
    /// The direction to wish for.
    var better: String? { sense.map { $0 == .rate ? "higher" : "lower" } }
}

extension JSONValue {
    /// JSON has no infinities; what is not a number is null.
    static func finite(_ value: Double) -> JSONValue { value.isFinite ? .number(value) : .null }
    static func optional(_ value: Double?) -> JSONValue { value.map { .finite($0) } ?? .null }
    static func optional(_ value: Int?) -> JSONValue { value.map { .number($0) } ?? .null }
    static func optional(_ value: String?) -> JSONValue { value.map { .string($0) } ?? .null }
}
