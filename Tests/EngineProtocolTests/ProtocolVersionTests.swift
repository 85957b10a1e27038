import EngineProtocol
import MessagePack
import Testing

/// Differences between the families, and messages shorter and longer than our own.
@Suite struct ProtocolVersionTests {
    @Test(arguments: [
        ("0.22.0", ProtocolFamily.v0_22), ("0.24.1", .v0_22), ("0.25.1", .v0_25), ("0.27.0", .v0_25),
        ("0.28.0", .v0_28),
        ("0.29.9", .v0_28), ("0.30.0", .v0_30), ("0.31.0rc1", .v0_30), ("0.32.0", .v0_32), ("v0.32.1", .v0_32),
        ("0.32.1.dev12+g1a2b3c", .v0_32), ("0.33.0", .v0_33), ("0.40.0", .v0_33), ("1.2.3", .v0_33), ("0.28", .v0_28),
    ]) func releasesBelongToFamilies(version: String, family: ProtocolFamily) {
        #expect(ProtocolFamily(vllmVersion: version) == family)
    }

    @Test(arguments: [
        "", "0.21.9", "dev", "0", "0.", "x.y", "99999999999999999999.1", "0.99999999999999999999", "-1.2",
    ])
    func otherTextNamesNoFamily(version: String) {
        #expect(ProtocolFamily(vllmVersion: version) == nil)
    }

    // MARK: - Outputs

    /// Encodes plain values.
    private func pack(_ value: MessagePackValue) -> [UInt8] {
        var bytes: [UInt8] = []
        value.encode(into: &bytes)
        return bytes
    }

    private func decode(_ value: MessagePackValue, _ family: ProtocolFamily) throws -> EngineCoreOutputs {
        try EngineCoreOutputs(decoding: ArrayFrames([pack(value)]), family: family)
    }

    private let prefill = MessagePackValue.map([(.string("num_cached_tokens"), .int(7))])
    private let trace = MessagePackValue.map([(.string("traceparent"), .string("00-1"))])

    @Test(arguments: ProtocolFamily.allCases) func prefillStatsAreWhereTheFamilyHasThem(family: ProtocolFamily) throws {
        // 0.22 and 0.25: trace headers 9, prefill stats 10; from 0.28 both are one later.
        let head: [MessagePackValue] = [.string("r"), .array([.int(1)]), .nil, .nil, .nil, .nil, .nil, .nil, .nil]
        let old = MessagePackValue.array(head + [trace, prefill, .nil, .int(0)])
        let new = MessagePackValue.array(head + [.nil, trace, prefill, .nil, .int(0), .nil, .nil])
        let isOld = family <= .v0_25
        let message = try decode(.array([.int(0), .array([isOld ? old : new])]), family)
        #expect(message.outputs[0].prefillStats?.numCachedTokens == 7)
    }

    @Test func smallestMessages() throws {
        let token = try decode(.array([.int(0), .array([.array([.string("r"), .array([.int(5)])])])]), .v0_32)
        #expect(token.outputs[0].requestID == "r")
        #expect(token.outputs[0].newTokenIDs == [5])
        #expect(token.outputs[0].isPlain)
        let last = try decode(
            .array([
                .int(0), .array([.array([.string("r"), .array([.int(5)]), .nil, .nil, .nil, .int(1)])]), .nil, .int(7),
            ]), .v0_32)
        #expect(last.outputs[0].finishReason == .length)
        #expect(last.timestamp == 7)
    }

    @Test func longerArraysAreAccepted() throws {
        let output = [MessagePackValue.string("r"), .array([.int(5)])] + Array(repeating: .nil, count: 28)
        let message = [MessagePackValue.int(3), .array([.array(output)])] + Array(repeating: .int(1), count: 0)
        let extra = Array(repeating: MessagePackValue.nil, count: 7) + [.string("future"), .map([])]
        #expect(try decode(.array(message + extra), .v0_33).engineIndex == 3)
    }

    @Test func eventsMayBeArrays() throws {
        let output = MessagePackValue.array([
            .string("r"), .array([.int(5)]), .nil, .nil, .nil, .nil, .nil,
            .array([.array([.int(1), .double(2.5)]), .array([.int(99), .double(3)])]),
        ])
        let message = try decode(.array([.int(0), .array([output])]), .v0_32)
        #expect(message.outputs[0].events == [EngineCoreEvent(kind: .queued, timestamp: 2.5)])
    }

    @Test func requestErrorsOfTheNewestFamily() throws {
        var fields = [MessagePackValue](repeating: .nil, count: 19)
        fields[0] = .string("r")
        fields[1] = .array([])
        fields[5] = .int(3)
        fields[18] = .map([
            (.string("code"), .string("validation_error")), (.string("message"), .string("bad")),
            (.string("retryable"), .bool(true)), (.string("later"), .int(1)),
        ])
        let output = try decode(.array([.int(0), .array([.array(fields)])]), .v0_33).outputs[0]
        #expect(output.finishReason == .error)
        #expect(output.tokens.isEmpty)
        #expect(output.error == EngineRequestError(code: "validation_error", message: "bad", retryable: true))
    }

    @Test func requestErrorsTravelThroughOurEncoder() throws {
        var output = EngineCoreOutput()
        output.requestID = "r"
        output.finishReason = .error
        output.error = EngineRequestError(code: "c", message: "m", retryable: false)
        output.stopReason = .text("repetition_detected")
        var message = EngineCoreOutputs()
        message.outputs = [output]
        let again = try EngineCoreOutputs(decoding: ArrayFrames(message.encode(family: .v0_33)), family: .v0_33)
        #expect(again.outputs[0].error == output.error)
        #expect(again.outputs[0].stopReason == output.stopReason)
        // Older frontends refuse longer arrays, so the field is left out for them.
        let older = try EngineCoreOutputs(decoding: ArrayFrames(message.encode(family: .v0_32)), family: .v0_32)
        #expect(older.outputs[0].error == nil)
    }

    @Test(arguments: [
        (ProtocolFamily.v0_22, 13, 8), (.v0_25, 13, 8), (.v0_28, 16, 8), (.v0_30, 17, 8), (.v0_32, 18, 9),
        (.v0_33, 19, 9),
    ]) func arrayLengthsThatFrontendsAccept(family: ProtocolFamily, inner: Int, outer: Int) throws {
        var message = EngineCoreOutputs()
        message.outputs = [EngineCoreOutput()]
        guard case .array(let fields) = try MessagePackValue(decoding: message.encode(family: family)[0]),
            case .array(let outputs) = fields[1], case .array(let elements) = outputs[0]
        else {
            Issue.record("not arrays")
            return
        }
        #expect(fields.count == outer)
        #expect(elements.count == inner)
    }

    @Test(arguments: [
        MessagePackValue.array([]), .array([.int(0)]), .int(1), .array([.int(0), .int(0)]),
        .array([.int(0), .array([.array([.string("r")])])]),
        .array([.int(0), .array([.array([.int(1), .array([])])])]),
        .array([.int(0), .array([.array([.string("r"), .array([.int(1 << 40)])])])]),
        .array([.int(0), .array([.array([.string("r"), .array([]), .nil, .nil, .nil, .int(9)])])]),
    ]) func malformedOutputsAreErrors(value: MessagePackValue) {
        #expect(throws: MessagePackError.self) { try decode(value, .v0_32) }
    }

    // MARK: - Requests

    @Test(arguments: ProtocolFamily.allCases) func requestsHaveTheLengthOfTheFamily(family: ProtocolFamily) throws {
        var request = EngineCoreRequest(
            requestID: "id", promptTokenIDs: [1, 2, 70000], samplingParams: SamplingParams(), arrivalTime: 1.5)
        request.sessionID = "s"
        request.traceHeaders = [("traceparent", "00-1")]
        request.reasoningEnded = true
        request.dataParallelRank = 3
        request.priority = -5
        var bytes: [UInt8] = []
        request.encode(into: &bytes, family: family, requestID: "other", clientIndex: 4, currentWave: 9)
        guard case .array(let fields) = try MessagePackValue(decoding: bytes) else {
            Issue.record("not an array")
            return
        }
        #expect(fields.count == family.expectedRequestLength)
        let again = try bytes.read { r throws(MessagePackError) in try EngineCoreRequest(decoding: &r) }
        #expect(again.requestID == "other")
        #expect(again.promptTokenIDs == [1, 2, 70000])
        #expect(again.clientIndex == 4)
        #expect(again.currentWave == 9)
        #expect(again.priority == -5)
        #expect(again.dataParallelRank == 3)
        #expect(again.reasoningEnded == true)
        #expect(again.traceHeaders?.map(\.1) == ["00-1"])
        #expect(again.sessionID == (family >= .v0_28 ? "s" : nil))
    }

    @Test func tooShortRequestsAreErrors() {
        let fields = [MessagePackValue.string("id"), .array([.int(1)]), .nil, .map([]), .nil, .double(1), .nil, .nil]
        let bytes = pack(.array(fields))
        #expect(throws: MessagePackError.self) {
            try bytes.read { r throws(MessagePackError) in try EngineCoreRequest(decoding: &r) }
        }
        let nine = pack(.array(fields + [.nil]))
        #expect(throws: Never.self) {
            try nine.read { r throws(MessagePackError) in try EngineCoreRequest(decoding: &r) }
        }
    }

    @Test func choicesAreAGrammarForEnginesThatNeedOne() throws {
        var params = SamplingParams()
        params.structuredOutputs = StructuredOutputs(constraint: .choice(["a\"b", "c\\d", "e\nf"]))
        func constraint(_ family: ProtocolFamily) throws -> StructuredOutputs.Constraint? {
            var bytes: [UInt8] = []
            params.encode(into: &bytes, family: family)
            return try bytes.read { r throws(MessagePackError) in try SamplingParams(decoding: &r) }.structuredOutputs?
                .constraint
        }
        #expect(try constraint(.v0_33) == .choice(["a\"b", "c\\d", "e\nf"]))
        #expect(try constraint(.v0_32) == .grammar(#"root ::= "a\"b" | "c\\d" | "e\nf""#))
    }

    @Test func floatsOutsideTheEnginesBounds() {
        let values: [(WritableKeyPath<SamplingParams, Double>, Double)] = [
            (\.presencePenalty, 2.1), (\.frequencyPenalty, -.infinity), (\.repetitionPenalty, 0),
            (\.repetitionPenalty, .infinity), (\.temperature, -0.1), (\.temperature, .nan), (\.temperature, 2.5),
            (\.topP, 0), (\.topP, 1.01), (\.minP, -1), (\.minP, .nan),
        ]
        #expect(SamplingParams().violation() == nil)
        for (path, value) in values {
            var params = SamplingParams()
            params[keyPath: path] = value
            #expect(params.violation() != nil, "\(path) = \(value)")
        }
    }

    @Test func otherValuesOutsideTheEnginesBounds() {
        func violates(_ change: (inout SamplingParams) -> Void) -> Bool {
            var params = SamplingParams()
            change(&params)
            return params.violation() != nil
        }
        #expect(violates { $0.topK = -2 })
        #expect(!violates { $0.topK = -1 })
        #expect(violates { $0.maxTokens = 0 })
        #expect(violates { $0.minTokens = 17 })
        #expect(violates { $0.minTokens = -1 })
        #expect(violates { $0.logprobs = -2 })
        #expect(!violates { $0.logprobs = -1 })
        #expect(violates { $0.promptLogprobs = -2 })
        #expect(violates { $0.badWords = [""] })
        #expect(violates { $0.extraArgs = [0x93, 1] })
        #expect(violates { $0.extraArgs = [0x90] })
        #expect(!violates { $0.extraArgs = [0x80] })
        #expect(violates { $0.repetitionDetection = .init(maxPatternSize: 1, minPatternSize: 2, minCount: 2) })
        #expect(!violates { $0.repetitionDetection = .init(maxPatternSize: 0, minPatternSize: 0, minCount: 0) })
    }

    @Test func coordinatorCountsOfOldFamiliesHaveNoCacheUsage() throws {
        let state = CoordinatorState(
            loads: [.init(waiting: 3, running: 2, kvCacheUsage: 0.25)], wave: 1, isRunning: true)
        let old = try state.encode(family: .v0_25).withBuffer { try CoordinatorState(decoding: $0) }
        #expect(old.loads == [.init(waiting: 3, running: 2, kvCacheUsage: nil)])
        let new = try state.encode(family: .v0_28).withBuffer { try CoordinatorState(decoding: $0) }
        #expect(new == state)
    }

    @Test func parallelConfigOfLockstepEngines() throws {
        var message = EngineInitMessage(inputs: ["ipc://a"], outputs: ["ipc://b"])
        message.parallelConfig.dataParallelMasterIP = "10.0.0.1"
        message.parallelConfig.dataParallelMasterPort = 4242
        message.parallelConfig.dataParallelMasterPortList = [1, 2]
        message.parallelConfig.dataParallelSize = 2
        message.parallelConfig.coordStorePort = 9
        #expect(try message.encode().withBuffer { try EngineInitMessage(decoding: $0) } == message)
    }

    @Test func identitiesAreLittleEndian() {
        #expect(EngineIdentity.encode(rank: 1) == [1, 0])
        #expect(EngineIdentity.encode(rank: 513) == [1, 2])
        #expect(EngineIdentity.rank([1, 2]) == 513)
        #expect(EngineIdentity.rank([1]) == nil)
        #expect(EngineIdentity.rank([1, 2, 3]) == nil)
    }
}
