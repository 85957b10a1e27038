package struct RunDescription: Sendable, Codable {
    /// `ab` or `bench`.
    package var command: String
    package var arguments: [String]
    package var version: String
    /// Unix seconds.
    package var startedAt: Double
    package var arms: [ArmDescription]
    package var workload: WorkloadDescription
    /// Usually one; several in a sweep over rates or concurrencies.
    package var loads: [LoadPoint]
    /// For people, such as `mock (ttft 0 ms, itl 20 ms)`.
    package var engine: String
    package var seed: UInt64
    package var machine: MachineDescription
    package var rules: RunRules
    /// The last of the compared answers are those to requests of these names, not to prompts of the workload.
    package var features: [String]?

    package init(
        command: String, arguments: [String], version: String, startedAt: Double, arms: [ArmDescription],
        workload: WorkloadDescription, loads: [LoadPoint], engine: String, seed: UInt64, machine: MachineDescription,
        rules: RunRules
    ) {
        self.command = command
        self.arguments = arguments
        self.version = version
        self.startedAt = startedAt
        self.arms = arms
        self.workload = workload
        self.loads = loads
        self.engine = engine
        self.seed = seed
        self.machine = machine
        self.rules = rules
    }
}

package struct ArmDescription: Sendable, Codable {
    /// Unique within the run: `swift`, `rust`, or `swift-2` for a second one of the same kind.
    package var name: String
    /// What its program says of its version; nil if it cannot be asked.
    package var version: String?
    package var program: String?
    /// From the start of its processes until it answered, and the resident memory of the frontend then.
    package var startSeconds: Double?
    package var idleResidentBytes: Int?
    package var idleProportionalBytes: Int?

    package init(
        name: String, version: String? = nil, program: String? = nil, startSeconds: Double? = nil,
        idleResidentBytes: Int? = nil, idleProportionalBytes: Int? = nil
    ) {
        self.name = name
        self.version = version
        self.program = program
        self.startSeconds = startSeconds
        self.idleResidentBytes = idleResidentBytes
        self.idleProportionalBytes = idleProportionalBytes
    }
}

package struct WorkloadDescription: Sendable, Codable {
    package var name: String
    /// For people.
    package var summary: String
    package var path: String
    package var streaming: Bool
    package var requestsPerBlock: Int
    package var inputTokens: Int?
    package var outputTokens: Int?

    package init(
        name: String, summary: String, path: String, streaming: Bool, requestsPerBlock: Int, inputTokens: Int? = nil,
        outputTokens: Int? = nil
    ) {
        self.name = name
        self.summary = summary
        self.path = path
        self.streaming = streaming
        self.requestsPerBlock = requestsPerBlock
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
    }
}

/// How requests are offered.
package enum LoadPoint: Sendable, Codable, Equatable {
    /// Requests per second with independent, exponentially distributed gaps.
    case poisson(rate: Double)
    /// Gaps of a gamma distribution; burstiness 1 is Poisson, below is burstier (vLLM's `--burstiness`).
    case gamma(rate: Double, burstiness: Double)
    case constant(rate: Double)
    /// The rate goes from the first to the second from request to request, by the same steps.
    case ramp(from: Double, to: Double)
    /// The same by the same factors.
    case exponentialRamp(from: Double, to: Double)
    /// A new request as soon as one of these has ended.
    case concurrency(Int)
    /// The arrival times of a recorded trace, or all at once.
    case trace

    /// Requests per second, if that is what is set.
    package var rate: Double? {
        switch self {
        case .poisson(let rate), .gamma(let rate, _), .constant(let rate): rate
        case .ramp(_, let to), .exponentialRamp(_, let to): to
        case .concurrency, .trace: nil
        }
    }
}

package struct MachineDescription: Sendable, Codable {
    package var cpuModel: String
    package var cpus: Int
    package var kernel: String
    package var memoryBytes: Int

    package init(cpuModel: String, cpus: Int, kernel: String, memoryBytes: Int) {
        self.cpuModel = cpuModel
        self.cpus = cpus
        self.kernel = kernel
        self.memoryBytes = memoryBytes
    }
}

/// Fixed before the run starts.
package struct RunRules: Sendable, Codable {
    /// The run is void if the client's 99th percentile of lateness, over all blocks of an arm at a load, is above.
    package var latenessLimit: Nanoseconds
    /// A block is dropped, with the rest of its round, if more of the machine than this was stolen or used by others.
    package var noiseLimit: Double
    /// Gaps above count as stalls.
    package var stallThreshold: Nanoseconds
    /// Service levels for goodput: metric (`ttft`, `tpot`, `e2el`) to milliseconds.
    package var goodput: [String: Double]
    /// Part by which two arms may differ and still be called equal; nil in older records.
    package var equalWithin: Double?

    package static let usualEqualWithin = 0.001

    package init(
        latenessLimit: Nanoseconds = 1_000_000, noiseLimit: Double = 0.25, stallThreshold: Nanoseconds = 50_000_000,
        goodput: [String: Double] = [:], equalWithin: Double? = nil
    ) {
        self.latenessLimit = latenessLimit
        self.noiseLimit = noiseLimit
        self.stallThreshold = stallThreshold
        self.goodput = goodput
        self.equalWithin = equalWithin
    }
}
