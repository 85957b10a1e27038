/// What a measurement leaves behind: plain values, written by the load generator and the trial, read by statistics and
/// reports. Points in time are CLOCK_MONOTONIC nanoseconds, the same clock in every process of the machine.
package typealias Nanoseconds = Int64

/// Everything about one run of `vllm-engine ab` or `vllm-engine bench`.
package struct MeasurementRun: Sendable, Codable {
    package var description: RunDescription
    /// In the order in which they ran, A/A blocks first.
    package var blocks: [BlockRecord]
    /// Of every block; `RequestRecord.block` is the index into `blocks`.
    package var requests: [RequestRecord]
    /// The answers that are compared between the arms, one list per arm, in the same order of prompts.
    package var equivalence: [[RequestRecord]]
    /// Reasons why the run proves nothing, such as a client that lagged; empty for a valid run.
    package var voidReasons: [String]

    package init(
        description: RunDescription, blocks: [BlockRecord] = [], requests: [RequestRecord] = [],
        equivalence: [[RequestRecord]] = [], voidReasons: [String] = []
    ) {
        self.description = description
        self.blocks = blocks
        self.requests = requests
        self.equivalence = equivalence
        self.voidReasons = voidReasons
    }

    package var isVoid: Bool { !voidReasons.isEmpty }
}

// MARK: - One request

package struct RequestRecord: Sendable, Codable {
    /// Index into `RunDescription.arms`.
    package var arm: Int
    /// Index into `MeasurementRun.blocks`.
    package var block: Int
    /// Place in the block's schedule.
    package var index: Int
    /// Which prompt of the workload this was; the same item in another block is the same prompt.
    package var item: Int
    /// The sampling seed that was sent; also the key under which the engine stamps the request.
    package var seed: UInt64

    /// When the schedule wanted it sent. In a closed loop that is when the place became free.
    package var intendedSend: Nanoseconds
    /// When its first byte was handed to the kernel.
    package var actualSend: Nanoseconds
    /// First byte of the answer; nil if none came.
    package var firstByte: Nanoseconds?
    /// First chunk with text, reasoning or a tool call; without streaming the whole answer. Nil if none came.
    package var firstToken: Nanoseconds?
    /// Last byte of the answer, or the moment of the failure.
    package var end: Nanoseconds
    /// Arrival of every chunk that carries output, from `actualSend`. Empty without streaming.
    package var chunkOffsets: [Nanoseconds]
    /// Tokens in each of those chunks; empty if the answer does not tell.
    package var chunkTokens: [UInt16]

    /// HTTP status; 0 if there was no answer.
    package var status: Int
    package var error: RequestFailure?
    /// For people: the server's message, or the system's.
    package var errorDetail: String?
    package var usage: TokenUsage?
    /// By choice index; without contents if the run keeps none.
    package var choices: [ChoiceRecord]
    /// Everything of the answer that came over the socket, HTTP heads and chunk sizes included.
    package var bytesReceived: Int
    /// `read` calls that returned bytes.
    package var reads: Int
    /// TCP segments with data that they came in: one for each write of the server, unless it wrote more than fits. Nil on
    /// unix sockets.
    package var segments: Int?
    /// Nil if the engine leaves no stamps.
    package var engine: EngineStamps?

    package init(
        arm: Int, block: Int, index: Int, item: Int, seed: UInt64, intendedSend: Nanoseconds, actualSend: Nanoseconds,
        firstByte: Nanoseconds? = nil, firstToken: Nanoseconds? = nil, end: Nanoseconds,
        chunkOffsets: [Nanoseconds] = [], chunkTokens: [UInt16] = [], status: Int = 0, error: RequestFailure? = nil,
        errorDetail: String? = nil, usage: TokenUsage? = nil, choices: [ChoiceRecord] = [], bytesReceived: Int = 0,
        reads: Int = 0, segments: Int? = nil, engine: EngineStamps? = nil
    ) {
        self.arm = arm
        self.block = block
        self.index = index
        self.item = item
        self.seed = seed
        self.intendedSend = intendedSend
        self.actualSend = actualSend
        self.firstByte = firstByte
        self.firstToken = firstToken
        self.end = end
        self.chunkOffsets = chunkOffsets
        self.chunkTokens = chunkTokens
        self.status = status
        self.error = error
        self.errorDetail = errorDetail
        self.usage = usage
        self.choices = choices
        self.bytesReceived = bytesReceived
        self.reads = reads
        self.segments = segments
        self.engine = engine
    }

    package var succeeded: Bool { error == nil && status == 200 }
    /// Tokens generated: as the usage says, else the chunks that carried output.
    package var outputTokens: Int { usage?.completionTokens ?? chunkOffsets.count }
}

/// Why a request counts as failed.
package enum RequestFailure: String, Sendable, Codable, CaseIterable {
    /// No connection.
    case connect
    /// Connection lost in mid-answer.
    case disconnected
    /// A status other than 200.
    case status
    /// An error event in the stream.
    case errorEvent = "error_event"
    /// The stream ended without `[DONE]`.
    case incomplete
    /// The bytes were no HTTP answer, no event stream or no JSON.
    case malformed
    /// Nothing came for longer than the run's limit.
    case timeout
}

package struct TokenUsage: Sendable, Codable, Equatable {
    package var promptTokens: Int
    package var completionTokens: Int
    package var cachedTokens: Int?

    package init(promptTokens: Int, completionTokens: Int, cachedTokens: Int? = nil) {
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
    }
}

/// One of a request's answers, put together from its chunks.
package struct ChoiceRecord: Sendable, Codable, Equatable {
    package var text: String
    package var reasoning: String
    package var toolCalls: [ToolCallRecord]
    package var finishReason: String?
    /// If the request asked for them.
    package var tokenIDs: [Int]
    /// Tokens with their log-probabilities and alternatives, for comparing; empty if the request asked for none.
    package var logprobs: String
    /// Length in UTF-8 bytes of each piece of `text`, in the order in which they came: the chunk boundaries.
    package var pieces: [Int]

    package init(
        text: String = "", reasoning: String = "", toolCalls: [ToolCallRecord] = [], finishReason: String? = nil,
        tokenIDs: [Int] = [], logprobs: String = "", pieces: [Int] = []
    ) {
        self.text = text
        self.reasoning = reasoning
        self.toolCalls = toolCalls
        self.finishReason = finishReason
        self.tokenIDs = tokenIDs
        self.logprobs = logprobs
        self.pieces = pieces
    }
}

/// Without its id, which is random.
package struct ToolCallRecord: Sendable, Codable, Equatable {
    package var name: String
    package var arguments: String

    package init(name: String, arguments: String) {
        self.name = name
        self.arguments = arguments
    }
}

/// What the engine noted about a request (`blas-engine --stamps`).
package struct EngineStamps: Sendable, Codable {
    /// When the request came out of the engine's input queue.
    package var received: Nanoseconds
    /// When each step with output for it was handed to the engine's sending thread.
    package var steps: [Nanoseconds]
    /// Tokens of each of those steps.
    package var stepTokens: [UInt16]

    package init(received: Nanoseconds, steps: [Nanoseconds] = [], stepTokens: [UInt16] = []) {
        self.received = received
        self.steps = steps
        self.stepTokens = stepTokens
    }
}

// MARK: - One block

/// An uninterrupted piece of load on one arm: the statistical unit.
package struct BlockRecord: Sendable, Codable {
    package enum Purpose: String, Sendable, Codable {
        /// Both sides of the comparison are the same arm: what differs is noise.
        case noiseFloor = "noise_floor"
        case comparison
    }

    package var purpose: Purpose
    /// Blocks of one round are compared with each other: one per column, same requests, same seeds.
    package var round: Int
    /// Place within the round's order.
    package var position: Int
    /// Side of the comparison: the arm, or in the noise floor 0 and 1 for the same arm.
    package var column: Int
    /// Index into `RunDescription.arms`.
    package var arm: Int
    /// Index into `RunDescription.loads`.
    package var load: Int
    package var seed: UInt64
    /// First intended send.
    package var start: Nanoseconds
    /// Last byte of the last answer.
    package var end: Nanoseconds
    package var frontend: ProcessTreeUsage
    package var engine: ProcessTreeUsage
    package var client: ProcessTreeUsage
    /// Nil if the engine does not tell.
    package var traffic: EngineTraffic?
    package var noise: MachineNoise
    package var lateness: ClientLateness
    /// Why this block is left out, by a rule that was fixed before the run.
    package var dropped: String?

    package init(
        purpose: Purpose, round: Int, position: Int, column: Int, arm: Int, load: Int, seed: UInt64,
        start: Nanoseconds, end: Nanoseconds, frontend: ProcessTreeUsage = .init(), engine: ProcessTreeUsage = .init(),
        client: ProcessTreeUsage = .init(), noise: MachineNoise = .init(), lateness: ClientLateness = .init(),
        dropped: String? = nil
    ) {
        self.purpose = purpose
        self.round = round
        self.position = position
        self.column = column
        self.arm = arm
        self.load = load
        self.seed = seed
        self.start = start
        self.end = end
        self.frontend = frontend
        self.engine = engine
        self.client = client
        self.noise = noise
        self.lateness = lateness
        self.dropped = dropped
    }

    package var wallSeconds: Double { Double(end - start) * 1e-9 }
}

/// What went between frontend and engine over ZMQ: message bytes of all frames, without ZMTP's own (`blas-engine --stamps`).
package struct EngineTraffic: Sendable, Codable {
    package var requests = 0
    /// Of the ADD messages.
    package var requestBytes = 0
    /// Of the messages with outputs.
    package var outputBytes = 0

    package init() {}
}

/// What a process with all its descendants used during a block.
package struct ProcessTreeUsage: Sendable, Codable {
    /// Exact, from the processes' CPU clocks.
    package var cpu: Nanoseconds
    /// The split of `cpu`, from counters that tick every 10 ms.
    package var user: Nanoseconds
    package var system: Nanoseconds
    package var voluntarySwitches: Int
    package var involuntarySwitches: Int
    /// Of every kind; nil if they were not counted.
    package var systemCalls: Int?
    /// At the end of the block.
    package var residentBytes: Int
    /// Shared pages counted by share; nil where the kernel does not tell.
    package var proportionalBytes: Int?
    /// Highest since the process started, or since the block started where the kernel lets it be reset.
    package var peakResidentBytes: Int
    package var threads: Int
    package var processes: Int

    package init(
        cpu: Nanoseconds = 0, user: Nanoseconds = 0, system: Nanoseconds = 0, voluntarySwitches: Int = 0,
        involuntarySwitches: Int = 0, systemCalls: Int? = nil, residentBytes: Int = 0,
        proportionalBytes: Int? = nil, peakResidentBytes: Int = 0, threads: Int = 0, processes: Int = 0
    ) {
        self.cpu = cpu
        self.user = user
        self.system = system
        self.voluntarySwitches = voluntarySwitches
        self.involuntarySwitches = involuntarySwitches
        self.systemCalls = systemCalls
        self.residentBytes = residentBytes
        self.proportionalBytes = proportionalBytes
        self.peakResidentBytes = peakResidentBytes
        self.threads = threads
        self.processes = processes
    }
}

/// What else went on in the machine during a block. CPU times as parts of all CPUs, 0 to 1.
package struct MachineNoise: Sendable, Codable {
    /// Taken by the hypervisor.
    package var steal: Double
    /// Used by processes that do not belong to the measurement.
    package var otherCPU: Double
    /// One-minute load average at the end.
    package var loadAverage: Double
    /// Mean over the CPUs at the end; nil where the kernel does not tell.
    package var megahertz: Double?

    package init(steal: Double = 0, otherCPU: Double = 0, loadAverage: Double = 0, megahertz: Double? = nil) {
        self.steal = steal
        self.otherCPU = otherCPU
        self.loadAverage = loadAverage
        self.megahertz = megahertz
    }
}

/// How much later than intended the client itself sent its requests.
package struct ClientLateness: Sendable, Codable {
    package var p50: Nanoseconds
    package var p99: Nanoseconds
    package var highest: Nanoseconds
    /// How many times were looked at, and how many of them were above the limit of `RunRules`; nil in older records.
    package var samples: Int?
    package var late: Int?

    package init(
        p50: Nanoseconds = 0, p99: Nanoseconds = 0, highest: Nanoseconds = 0, samples: Int? = nil, late: Int? = nil
    ) {
        self.p50 = p50
        self.p99 = p99
        self.highest = highest
        self.samples = samples
        self.late = late
    }
}
