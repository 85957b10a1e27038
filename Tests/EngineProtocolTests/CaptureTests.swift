import EngineProtocol
import MessagePack
import Testing

/// Every captured message against the view that an independent msgpack reader recorded of it.
@Suite struct CaptureTests {
    @Test func capturesOfEveryKindAreThere() {
        let kinds = Set(Capture.all.map(\.baseKind))
        #expect(Capture.all.count == 520)
        #expect(
            kinds == [
                "ABORT", "ADD", "ENGINE_CORE_DEAD", "EXECUTOR_FAILED", "FIRST_REQ", "HELLO", "INIT", "OUTPUTS", "READY",
                "REGISTRATION", "START_DP_WAVE", "START_WAVE", "STATE", "STATS", "SUBSCRIBE", "UTILITY",
                "UTILITY_OUTPUT", "WAVE_COMPLETE",
            ])
    }

    @Test(arguments: Capture.all) func framesReadAsRecorded(capture: Capture) throws {
        for (frame, view) in zip(capture.bytes, capture.decoded) {
            if let size = view["$raw"].int {
                #expect(frame.count == size)
                #expect(hexText(frame.prefix(64)) == view["$hex"].string)
            } else if let text = view.string {
                #expect(frame == Array(text.utf8))
            } else {
                let value = try MessagePackValue(decoding: frame)
                #expect(view.describes(value))
                // Python's encoder makes the same choices as ours, except for a longer header of some maps in ADDs; Rust
                // writes 32-bit floats.
                if capture.peer != "rust-frontend" && capture.kind != "ADD" {
                    var again: [UInt8] = []
                    value.encode(into: &again)
                    #expect(again == frame)
                }
            }
        }
    }

    // MARK: - Engine to frontend

    @Test(arguments: Capture.of("OUTPUTS", "UTILITY_OUTPUT", "STATS", "WAVE_COMPLETE", "START_WAVE"))
    func outputs(capture: Capture) throws {
        let message = try EngineCoreOutputs(decoding: ArrayFrames(capture.bytes), family: capture.family)
        let view = capture.decoded[0]
        #expect(message.engineIndex == view[0].int)
        #expect(message.timestamp == view[3].double)
        #expect(message.finishedRequests.map { Set($0) } == view[5].array.map { Set($0.compactMap(\.string)) })
        #expect(message.waveComplete == view[6].int)
        #expect(message.startWave == view[7].int)
        #expect(message.weightVersion == view[8].string)
        try #require(message.outputs.count == view[1].array?.count)
        for (output, expected) in zip(message.outputs, view[1].array ?? []) { check(output, expected, capture) }
        #expect((message.schedulerStats == nil) == view[2].isNull)
        if let stats = message.schedulerStats { check(stats, view[2]) }
        #expect((message.utilityOutput == nil) == view[4].isNull)
        if let utility = message.utilityOutput {
            #expect(utility.callID == view[4][0].int.map { UInt64($0) })
            #expect(utility.failureMessage == view[4][1].string)
            #expect((utility.result == nil) == view[4][2][1].isNull)
            if let result = utility.result { #expect(view[4][2][1].describes(try MessagePackValue(decoding: result))) }
        }
        // What we write is read back the same, and has the positions of the real engine.
        let again = message.encode(family: capture.family)
        #expect(again.dropFirst().map { $0 } == capture.bytes.dropFirst().map { $0 })
        let reread = try EngineCoreOutputs(decoding: ArrayFrames(again), family: capture.family)
        #expect(reread.schedulerStats == message.schedulerStats)
        guard case .array(let fields) = try MessagePackValue(decoding: again[0]),
            case .array(let outputs) = fields[1]
        else {
            Issue.record("not an array")
            return
        }
        for (output, expected) in zip(outputs, view[1].array ?? []) {
            guard case .array(let elements) = output else { continue }
            #expect(elements.count == expected.array?.count)
            for (position, element) in elements.enumerated() where position != 10 {
                #expect(expected[position].describes(element), "position \(position)")
            }
        }
    }

    private func check(_ output: EngineCoreOutput, _ view: JSON, _ capture: Capture) {
        #expect(output.requestID == view[0].string)
        #expect(output.newTokenIDs == view[1].array?.compactMap { $0.int.map { Int32($0) } })
        #expect(Array(output.tokens) == output.newTokenIDs)
        #expect(output.finishReason?.rawValue == view[5].int)
        switch output.stopReason {
        case .token(let id): #expect(id == view[6].int)
        case .text(let text): #expect(text == view[6].string)
        case nil: #expect(view[6].isNull)
        }
        #expect(output.events.map(\.kind.rawValue) == (view[7].array ?? []).map { $0["type"].int })
        #expect(output.events.map(\.timestamp) == (view[7].array ?? []).map { $0["timestamp"].double })
        #expect((output.kvTransferParams == nil) == view[8].isNull)
        #expect(output.prefillStats?.numPromptTokens == view[11]["num_prompt_tokens"].int)
        #expect(output.prefillStats?.numComputedTokens == view[11]["num_computed_tokens"].int)
        #expect(output.prefillStats?.numCachedTokens == view[11]["num_cached_tokens"].int)
        #expect(output.prefillStats?.numLocalCachedTokens == view[11]["num_local_cached_tokens"].int)
        #expect(output.prefillStats?.numExternalCachedTokens == view[11]["num_external_cached_tokens"].int)
        #expect(output.prefillStats?.numCacheCreationTokens == view[11]["num_cache_creation_tokens"].int)
        for (rows, expected) in [(output.newLogprobs, view[2]), (output.newPromptLogprobs, view[3])] {
            #expect((rows == nil) == expected.isNull)
            guard let rows else { continue }
            let shape = expected[0][1]
            #expect([rows.rows, rows.columns] == [shape[0].int, shape[1].int])
            #expect(rows.tokenIDs.count == rows.rows * rows.columns)
            #expect(rows.ranks.count == rows.rows)
            // Little-endian bytes as they were on the wire, inline or in a later frame (which is shown up to 64 bytes).
            func raw(_ array: JSON) -> String {
                if let frame = array[2].int { return String(capture.frames[frame].prefix(128)) }
                return array[2]["$hex"].string ?? ""
            }
            let ids = rows.tokenIDs.flatMap { id in withUnsafeBytes(of: id.littleEndian) { Array($0) } }
            let logprobs = rows.logprobs.flatMap { p in withUnsafeBytes(of: p.bitPattern.littleEndian) { Array($0) } }
            #expect(hexText(ids.prefix(64)) == raw(expected[0]))
            #expect(hexText(logprobs.prefix(64)) == raw(expected[1]))
            #expect(rows.ranks.allSatisfy { $0 >= 1 })
        }
    }

    private func check(_ stats: SchedulerStats, _ view: JSON) {
        #expect(stats.numRunningReqs == view["num_running_reqs"].int)
        #expect(stats.numWaitingReqs == view["num_waiting_reqs"].int)
        #expect(stats.numSkippedWaitingReqs == view["num_skipped_waiting_reqs"].int)
        #expect(stats.stepCounter == view["step_counter"].int)
        #expect(stats.currentWave == view["current_wave"].int)
        #expect(stats.kvCacheUsage == view["kv_cache_usage"].double)
        let cache = view["prefix_cache_stats"]
        #expect(stats.prefixCacheStats.reset == cache["reset"].bool)
        #expect(stats.prefixCacheStats.requests == cache["requests"].int)
        #expect(stats.prefixCacheStats.queries == cache["queries"].int)
        #expect(stats.prefixCacheStats.hits == cache["hits"].int)
        #expect(stats.prefixCacheStats.preemptedRequests == cache["preempted_requests"].int)
        #expect((stats.specDecodingStats == nil) == view["spec_decoding_stats"].isNull)
        #expect((stats.iterationDetails == nil) == view["iteration_details"].isNull)
    }

    @Test(arguments: Capture.of("REGISTRATION")) func readyResponse(capture: Capture) throws {
        let view = try #require(capture.decoded.last)
        let payload = try #require(capture.bytes.last)
        let (response, family) = try payload.withBuffer { try EngineCoreReadyResponse.decode($0, family: nil) }
        #expect(family == .v0_32)
        #expect(response.maxModelLength == view["max_model_len"].int)
        #expect(response.vllmVersion == "0.32.0")
        #expect(response.instanceID == view["instance_id"].string)
        var again: [UInt8] = []
        response.encode(into: &again)
        let value = try MessagePackValue(decoding: again)
        for (key, expected) in view.object ?? [:] {
            #expect(expected.describes(try #require(value[key: key])), "\(key)")
        }
    }

    @Test(arguments: Capture.of("ENGINE_CORE_DEAD")) func sentinel(capture: Capture) {
        #expect(capture.bytes == [Array("\(engineCoreDeadSentinel)".utf8)])
    }

    // MARK: - Frontend to engine

    /// The frames after the identity, which only our own side of the ROUTER shows.
    private func engineFrames(_ capture: Capture) -> (type: UInt8, payload: [UInt8], view: JSON)? {
        let frames = capture.bytes
        guard let index = frames.firstIndex(where: { $0.count == 1 }), index + 1 < frames.count else { return nil }
        return (frames[index][0], frames[index + 1], capture.decoded[index + 1])
    }

    @Test(arguments: Capture.of("ADD")) func addRequests(capture: Capture) throws {
        let (type, payload, view) = try #require(engineFrames(capture))
        #expect(type == EngineRequestType.add.rawValue)
        if view.array.map({ $0.count < 9 }) ?? false {
            #expect(throws: MessagePackError.self) {
                try payload.read { r throws(MessagePackError) in try EngineCoreRequest(decoding: &r) }
            }
            return
        }
        let request = try payload.read { r throws(MessagePackError) in
            let request = try EngineCoreRequest(decoding: &r)
            try r.requireEnd()
            return request
        }
        #expect(request.requestID == view[0].string)
        #expect(request.promptTokenIDs == view[1].array?.compactMap { $0.int.map { Int32($0) } })
        #expect(request.arrivalTime == view[5].double)
        #expect(request.cacheSalt == view[7].string)
        #expect(request.externalRequestID == view[16].string)
        #expect(request.sessionID == view[20].string)

        var again: [UInt8] = []
        request.encode(into: &again, family: capture.family)
        guard case .array(let fields) = try MessagePackValue(decoding: again) else {
            Issue.record("not an array")
            return
        }
        #expect(fields.count == capture.family.expectedRequestLength)
        for (position, field) in fields.enumerated() {
            let expected = view[position]
            switch position {
            case 3:
                guard let recorded = expected.object else { continue }
                checkSampling(field, recorded, capture)
            // Sent by the Rust frontend without need, and by our probe of the immediate abort.
            case 18, 19: continue
            // A short array means defaults.
            case (view.array?.count ?? 0)...: continue
            default: #expect(expected.describes(field), "position \(position)")
            }
        }
    }

    /// Keys that only frontends use, or that engines ignore.
    private static let frontendOnly: Set<String> = [
        "n", "watermarking", "stop", "flat_logprobs", "detokenize", "skip_special_tokens",
        "spaces_between_special_tokens", "include_stop_str_in_output", "output_kind", "stream_interval", "skip_clone",
        "output_text_buffer_length", "_watermarking_skipped", "trace_decode_token_ids", "routed_experts_prompt_start",
    ]

    /// What a missing key means to an engine.
    private static let defaults: [String: JSON] = [
        "presence_penalty": .int(0), "frequency_penalty": .int(0), "repetition_penalty": .int(1),
        "temperature": .int(1), "top_p": .int(1), "top_k": .int(0), "min_p": .int(0), "stop_token_ids": .array([]),
        "ignore_eos": .bool(false), "min_tokens": .int(0), "_all_stop_token_ids": .array([]), "bad_words": .array([]),
    ]

    private func checkSampling(_ field: MessagePackValue, _ recorded: [String: JSON], _ capture: Capture) {
        guard case .map(let pairs) = field else {
            Issue.record("not a map")
            return
        }
        for (key, expected) in recorded where !Self.frontendOnly.contains(key) {
            if let value = field[key: key] {
                if key == "structured_outputs" {
                    checkStructured(value, expected, capture)
                } else {
                    #expect(expected.describes(value), "\(key)")
                }
            } else {
                let standard = Self.defaults[key] ?? .null
                #expect(
                    expected.double == standard.double && (expected.double != nil || expected == standard), "\(key)")
            }
        }
        for pair in pairs {
            guard case .string(let key) = pair.key else {
                Issue.record("key that is not text")
                continue
            }
            if recorded[key] == nil {
                // The one key we always send, with the default that a missing key stands for.
                #expect(key == "max_tokens")
                #expect(pair.value == .int(16))
            }
        }
    }

    private func checkStructured(_ value: MessagePackValue, _ expected: JSON, _ capture: Capture) {
        guard case .map(let pairs) = value else {
            Issue.record("not a map")
            return
        }
        for (key, view) in expected.object ?? [:] where key != "_backend_was_auto" {
            switch (key, value[key: key]) {
            case ("json", .string(let text)?) where view.string == nil:
                #expect((try? parse(text)) == view)
            case ("choice", nil) where !view.isNull:
                // Rewritten for engines that cannot compile it themselves.
                #expect(capture.family < .v0_33 && expected["_backend"].string == "xgrammar")
                #expect(value[key: "grammar"] == .string(#"root ::= "yes" | "no""#))
            case (_, let found?): #expect(view.describes(found) || (key == "grammar" && !expected["choice"].isNull))
            case (_, nil): #expect(view.isNull || view == .bool(false), "\(key)")
            }
        }
        #expect(!pairs.isEmpty)
    }

    @Test(arguments: Capture.of("ABORT")) func aborts(capture: Capture) throws {
        let (type, payload, view) = try #require(engineFrames(capture))
        #expect(type == EngineRequestType.abort.rawValue)
        let ids = try payload.read { r throws(MessagePackError) in try AbortRequest.decode(&r) }
        #expect(ids == view.array?.compactMap(\.string))
        var again: [UInt8] = []
        AbortRequest.encode(ids, into: &again)
        #expect(again == payload)
    }

    @Test(arguments: Capture.of("UTILITY")) func utilityCalls(capture: Capture) throws {
        let (type, payload, view) = try #require(engineFrames(capture))
        #expect(type == EngineRequestType.utility.rawValue)
        let call = try payload.read { r throws(MessagePackError) in try UtilityCall(decoding: &r) }
        #expect(call.clientIndex == view[0].int)
        #expect(call.callID == view[1].int.map { UInt64($0) })
        #expect(call.method == view[2].string)
        #expect(view[3].describes(try MessagePackValue(decoding: call.arguments)))
        var again: [UInt8] = []
        call.encode(into: &again)
        #expect(again == payload)
    }

    // MARK: - Handshake and coordinator

    @Test(arguments: Capture.of("HELLO", "READY").filter { $0.socket == "handshake" })
    func handshakes(capture: Capture) throws {
        let payload = try #require(capture.bytes.last)
        let view = try #require(capture.decoded.last)
        let message = try payload.withBuffer { try EngineHandshakeMessage(decoding: $0) }
        #expect(message.status.rawValue == view["status"].string)
        #expect(message.isLocal == view["local"].bool)
        #expect(message.isHeadless == view["headless"].bool)
        #expect(message.encode() == payload)
        #expect(EngineIdentity.rank(capture.bytes[0]) == 0)
        #expect(EngineIdentity.encode(rank: 0) == capture.bytes[0])
    }

    @Test(arguments: Capture.of("INIT")) func initMessages(capture: Capture) throws {
        let payload = try #require(capture.bytes.last)
        let view = try #require(capture.decoded.last)
        let message = try payload.withBuffer { try EngineInitMessage(decoding: $0) }
        #expect(message.inputs == view["addresses"]["inputs"].array?.compactMap(\.string))
        #expect(message.outputs == view["addresses"]["outputs"].array?.compactMap(\.string))
        #expect(message.coordinatorInput == view["addresses"]["coordinator_input"].string)
        #expect(message.coordinatorOutput == view["addresses"]["coordinator_output"].string)
        #expect(view.describes(try MessagePackValue(decoding: message.encode())))
    }

    @Test(arguments: Capture.of("STATE")) func coordinatorState(capture: Capture) throws {
        let payload = capture.bytes[0]
        let view = capture.decoded[0]
        let state = try payload.withBuffer { try CoordinatorState(decoding: $0) }
        #expect(state.loads?.map(\.waiting) == view[0].array?.map { $0[0].int })
        #expect(state.loads?.map(\.running) == view[0].array?.map { $0[1].int })
        #expect(state.loads?.map(\.kvCacheUsage) == view[0].array?.map { $0[2].double })
        #expect(state.wave == view[1].int)
        #expect(state.isRunning == view[2].bool)
        #expect(state.encode(family: capture.family) == payload)
    }

    @Test(arguments: Capture.of("START_DP_WAVE")) func waveStarts(capture: Capture) throws {
        let frames = Array(capture.bytes.suffix(2))
        let message = try frames[1].withBuffer { try StartDataParallelWave(decoding: $0) }
        #expect(message.wave == capture.decoded.last?[0].int)
        #expect(message.excludedEngine == capture.decoded.last?[1].int)
        #expect(message.encodeFrames() == frames)
    }

    @Test(arguments: Capture.of("FIRST_REQ", "SUBSCRIBE")) func messagesToTheCoordinator(capture: Capture) throws {
        let frame = capture.bytes[0]
        let message = try frame.withBuffer { try FrontendToCoordinatorMessage(decoding: $0) }
        if capture.baseKind == "SUBSCRIBE" {
            #expect(message == .subscribe)
        } else {
            #expect(
                message
                    == .firstRequest(engine: capture.decoded[0][0].int ?? -1, wave: capture.decoded[0][1].int ?? -1))
        }
        #expect(message.encode() == frame)
    }

    /// As vLLM 0.32's Python frontend sends it.
    @Test func firstRequestWithAnIdentity() throws {
        let frame: [UInt8] = [0x92, 0xC4, 0x02, 0x02, 0x01, 0x05]
        let message = try frame.withBuffer { try FrontendToCoordinatorMessage(decoding: $0) }
        #expect(message == .firstRequest(engine: 258, wave: 5))
        let damaged: [UInt8] = [0x92, 0xC4, 0x01, 0x02, 0x05]
        #expect(throws: MessagePackError.self) {
            try damaged.withBuffer { try FrontendToCoordinatorMessage(decoding: $0) }
        }
    }

    @Test(arguments: Capture.of("READY").filter { $0.socket == "coord-xpub" }) func coordinatorReady(capture: Capture) {
        #expect(capture.bytes == [CoordinatorFrame.ready])
    }
}

extension ProtocolFamily {
    /// Stated here once more, so that a slip in the table of the module is noticed.
    var expectedRequestLength: Int {
        switch self {
        case .v0_22, .v0_25: 20
        case .v0_28, .v0_30: 21
        case .v0_32, .v0_33: 22
        }
    }
}
