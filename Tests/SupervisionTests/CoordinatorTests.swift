import EngineProtocol
import Glibc
import JSONBytes
import Logging
import MessagePack
import Supervision
import Testing
import ZeroMQ

/// What went over the sockets of vLLM 0.32's coordinator, in order.
private struct Recording {
    let scenario: String
    let kind: String
    let frames: [[UInt8]]

    static let all: [Recording] = {
        let folder = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        let path = "/\(folder)/EngineProtocolTests/Fixtures/0.32-coordinator.jsonl"
        return (ProcessInfo.readFile(path) ?? "").split(separator: "\n").compactMap { line in
            guard let object = (try? JSONValue.parse(String(line)))?.objectValue,
                let scenario = object["scenario"]?.stringValue, let kind = object["kind"]?.stringValue
            else { return nil }
            let frames = object["frames"]?.arrayValue?.compactMap { $0.stringValue.map(bytes) } ?? []
            return Recording(scenario: scenario, kind: kind, frames: frames)
        }
    }()

    private static func bytes(_ hex: String) -> [UInt8] {
        let digits = hex.compactMap(\.hexDigitValue)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }

    static func of(_ scenario: String, _ kind: String) -> [Recording] {
        all.filter { $0.scenario == scenario && $0.kind == kind }
    }
}

@Suite struct CoordinatorLogicTests {
    private func receive(_ logic: inout CoordinatorLogic, _ recording: Recording) throws -> [CoordinatorLogic.Action] {
        try recording.frames[0].withUnsafeBytes { bytes in
            recording.kind == "FIRST_REQ"
                ? logic.receive(try FrontendToCoordinatorMessage(decoding: bytes))
                : logic.receive(try EngineCoreOutputsView(decoding: bytes))
        }
    }

    /// The frames that an action puts on the wire.
    private func frames(_ action: CoordinatorLogic.Action) -> [[UInt8]] {
        switch action {
        case .publish(let state): [state.encode(family: .v0_32)]
        case .startWave(let message): message.encodeFrames()
        case .warn(let text): [Array(text.utf8)]
        }
    }

    @Test func lockstepIsCoordinatedAsVLLMDoes() throws {
        #expect(Recording.all.count == 20)
        var logic = CoordinatorLogic(engineCount: 2, coordinatesWaves: true)
        let states = Recording.of("moe stats", "STATE").map(\.frames)
        #expect([logic.takePublication().encode(family: .v0_32)] == states[0])
        for stats in Recording.of("moe stats", "STATS") { #expect(try receive(&logic, stats) == []) }
        #expect([logic.takePublication().encode(family: .v0_32)] == states[1])
        for (scenario, kind) in [
            ("moe start wave", "START_WAVE"), ("moe wave complete", "WAVE_COMPLETE"),
            ("moe stale start wave", "START_WAVE"), ("moe frontend first request", "FIRST_REQ"),
        ] {
            let input = try #require(Recording.of(scenario, kind).first)
            let sent = try receive(&logic, input).map(frames)
            // Both engines recorded the one message that went to all.
            let expected =
                Recording.of(scenario, "STATE").map(\.frames)
                + Recording.of(scenario, "START_DP_WAVE").prefix(1).map(\.frames)
            #expect(sent == expected, "\(scenario)")
        }
    }

    @Test func enginesOfDenseModelsOnlyReportTheirLoad() throws {
        var logic = CoordinatorLogic(engineCount: 2, coordinatesWaves: false)
        let stats = Recording.of("dense stats", "STATS")
        for (message, state) in zip(stats, Recording.of("dense stats", "STATE")) {
            #expect(try receive(&logic, message) == [])
            #expect([logic.takePublication().encode(family: .v0_32)] == state.frames)
        }
        #expect(stats.count == 2)
        let others = Recording.all.filter {
            $0.scenario.hasPrefix("dense") && ["START_WAVE", "WAVE_COMPLETE", "FIRST_REQ"].contains($0.kind)
        }
        #expect(others.count == 3)
        for other in others { #expect(try receive(&logic, other) == [], "\(other.scenario)") }
    }

    private func outputs(
        engine: Int, running: Int? = nil, step: Int = 0, wave: Int = 0, start: Int? = nil, complete: Int? = nil
    ) throws -> [UInt8] {
        var message = EngineCoreOutputs()
        message.engineIndex = engine
        if let running {
            var stats = SchedulerStats()
            (stats.numRunningReqs, stats.stepCounter, stats.currentWave) = (running, step, wave)
            message.schedulerStats = stats
        }
        (message.startWave, message.waveComplete) = (start, complete)
        return message.encode(family: .v0_33)[0]
    }

    private func receive(_ logic: inout CoordinatorLogic, _ bytes: [UInt8]) throws -> [CoordinatorLogic.Action] {
        try bytes.withUnsafeBytes { logic.receive(try EngineCoreOutputsView(decoding: $0)) }
    }

    /// Frontends see the counts of one step, not half of one and half of the next.
    @Test func countsOfALockstepAreThoseOfItsEnd() throws {
        var logic = CoordinatorLogic(engineCount: 2, coordinatesWaves: true)
        for (engine, running, step) in [(0, 1, 1), (1, 2, 1), (0, 3, 2)] {
            #expect(try receive(&logic, outputs(engine: engine, running: running, step: step)) == [])
        }
        #expect(logic.takePublication().loads?.map(\.running) == [1, 2])
        #expect(try receive(&logic, outputs(engine: 1, running: 4, step: 2)) == [])
        #expect(logic.takePublication().loads?.map(\.running) == [3, 4])
        let late = try receive(&logic, outputs(engine: 0, running: 9, step: 1))
        guard case .warn(let text)? = late.first else {
            Issue.record("\(late)")
            return
        }
        #expect(text.contains("for wave 0, step 1 after those for 0, 2"))
    }

    @Test func countsAreDueSoonAfterAChangeAndSeldomOtherwise() throws {
        let start = ContinuousClock.now
        for waves in [false, true] {
            var logic = CoordinatorLogic(engineCount: 1, coordinatesWaves: waves)
            func due(_ arrival: Duration) -> Duration {
                logic.nextPublication(after: start, lastArrival: start + arrival) - start
            }
            #expect(due(.zero) == .seconds(5))
            _ = try receive(&logic, outputs(engine: 0, running: 1))
            #expect(due(.zero) == .milliseconds(100))
            // In lockstep the others' counts are waited for.
            #expect(due(.milliseconds(80)) == .milliseconds(waves ? 130 : 100))
            _ = logic.takePublication()
            #expect(due(.zero) == .seconds(5))
        }
    }

    @Test func nonsenseChangesNothing() throws {
        var logic = CoordinatorLogic(engineCount: 2, coordinatesWaves: true)
        for bytes in [
            try outputs(engine: 2, running: 1), try outputs(engine: 0, complete: .max),
            try outputs(engine: 1, start: -1),
        ] {
            _ = try receive(&logic, bytes)
        }
        _ = logic.receive(.scaleElasticEP(engines: 0))
        _ = logic.receive(.scaleElasticEP(engines: .max))
        #expect(
            logic.takePublication()
                == CoordinatorState(
                    loads: Array(repeating: .init(waiting: 0, running: 0, kvCacheUsage: 0), count: 2), wave: 0,
                    isRunning: false))
        _ = logic.receive(.scaleElasticEP(engines: 3))
        #expect(logic.takePublication().loads?.count == 3)
    }
}

/// The real process, with sockets of the test as engines and frontends.
@Suite struct DPCoordinatorTests {
    private let scratch = Scratch()
    private let loop = EventLoop()
    private let context: ZMQContext
    private let guardian: OrphanGuard
    private let factory: ChildFactory

    init() throws {
        context = try ZMQContext()
        guardian = try OrphanGuard(directory: scratch.file("runtime"))
        let null = LogOutput(descriptor: open("/dev/null", O_WRONLY | O_CLOEXEC))
        factory = ChildFactory(loop: loop, orphanGuard: guardian, logger: quiet, output: null)
    }

    private func start(
        waves: Bool, executable: String = "\(Binaries.ownDirectory)/vllm-engine"
    ) throws -> DPCoordinator {
        var configuration = CoordinatorProcess.Configuration(
            engineCount: 2, statsPublish: "ipc://\(scratch.file("stats"))", engineOutput: "tcp://127.0.0.1:0",
            enginePublish: "tcp://127.0.0.1:0")
        configuration.coordinatesWaves = waves
        configuration.family = .v0_32
        return try DPCoordinator(configuration, executable: executable, factory: factory)
    }

    private func connect(_ kind: ZMQSocket.Kind, _ address: String) throws -> ZMQSocket {
        let socket = try ZMQSocket(kind, context: context)
        try socket.setLinger(milliseconds: 0)
        // A missing message is a failure, not a test that never ends.
        try socket.setReceiveTimeout(milliseconds: 20_000)
        try socket.connect(address)
        return socket
    }

    private func subscribe(_ address: String) throws -> ZMQSocket {
        let socket = try connect(.xsub, address)
        try socket.send(CoordinatorFrame.subscribe)
        return socket
    }

    /// The next state that fulfils the condition.
    private func state(_ socket: ZMQSocket, where condition: (CoordinatorState) -> Bool) throws -> CoordinatorState? {
        while let frames = try socket.receiveFrames(wait: true) {
            let state = try frames[0].withUnsafeBytes { try CoordinatorState(decoding: $0) }
            if condition(state) { return state }
        }
        return nil
    }

    @Test func loadsAndWavesReachThoseWhoNeedThem() throws {
        defer { guardian.finish() }
        let coordinator = try start(waves: true)
        #expect(coordinator.enginePublishAddress.hasPrefix("tcp://127.0.0.1:"))
        #expect(!coordinator.enginePublishAddress.hasSuffix(":0"))
        let frontend = try subscribe(coordinator.statsPublishAddress)
        let engines = [try subscribe(coordinator.enginePublishAddress)]
        let second = try subscribe(coordinator.enginePublishAddress)
        for engine in engines + [second] {
            #expect(try engine.receiveFrames(wait: true) == [CoordinatorFrame.ready])
        }
        let push = try connect(.push, coordinator.engineOutputAddress)
        for stats in Recording.of("moe stats", "STATS") { try push.send(frames: stats.frames) }
        let loads = try state(frontend) { $0.loads?.map(\.running) == [2, 1] }
        #expect(loads?.loads?.map(\.waiting) == [3, 0] && loads?.wave == 0 && loads?.isRunning == false)

        try push.send(frames: try #require(Recording.of("moe start wave", "START_WAVE").first).frames)
        #expect(try state(frontend) { $0.isRunning }?.wave == 0)
        let wave = try #require(Recording.of("moe start wave", "START_DP_WAVE").first).frames
        for engine in engines + [second] { #expect(try next(engine) == wave) }

        try push.send(frames: try #require(Recording.of("moe wave complete", "WAVE_COMPLETE").first).frames)
        #expect(try state(frontend) { $0.wave == 1 }?.isRunning == false)
        try frontend.send(FrontendToCoordinatorMessage.firstRequest(engine: 1, wave: 1).encode())
        for engine in engines + [second] {
            #expect(
                try next(engine)
                    == StartDataParallelWave(wave: 1, excludedEngine: 1).encodeFrames())
        }

        // Garbage, on all sockets.
        for socket in [push, frontend, second] { try socket.send([0xc1, 0xff, 0x00]) }
        try push.send(Array("ENGINE_CORE_DEAD".utf8))
        // A restarted engine waits for READY as the first ones did.
        let third = try subscribe(coordinator.enginePublishAddress)
        #expect(try third.receiveFrames(wait: true) == [CoordinatorFrame.ready])
        #expect(coordinator.child.process.isAlive)
        #expect(coordinator.shutdown(timeout: nil).isEmpty)
        #expect(coordinator.child.process.exitCode == 0)
    }

    /// READY may come again whenever an engine subscribes.
    private func next(_ engine: ZMQSocket) throws -> [[UInt8]]? {
        while let frames = try engine.receiveFrames(wait: true) {
            if frames != [CoordinatorFrame.ready] { return frames }
        }
        return nil
    }

    @Test func itEndsWithItsParent() throws {
        let coordinator = try start(waves: false)
        let pid = coordinator.child.process.pid
        guardian.dropLifeline()
        #expect(eventually { !isRunning(pid) })
        guardian.finish()
    }

    @Test func itsDeathIsNoticed() throws {
        defer { guardian.finish() }
        let coordinator = try start(waves: false)
        let directory = try RuntimeDirectory.plan(in: [scratch.path])
        try directory.create()
        let frontends = try FrontendProcessManager(
            FrontendLaunch(
                kind: .swift, executable: scratch.script("exec sleep 100"), contract: .current,
                arguments: FrontendArguments(), environment: ProcessInfo.environment()),
            listener: try HTTPListener.bind(host: "127.0.0.1", port: 0),
            transport: .addresses(input: "ipc:///in", output: "ipc:///out"), directory: directory, factory: factory)
        let process = coordinator.child.process
        process.kill()
        let signals = try SignalSource(loop: loop)
        let completion = waitForCompletionOrFailure(
            frontends: frontends, engines: nil, coordinator: process, signals: signals, on: loop)
        #expect(
            completion == .processExited(name: "DPCoordinator", pid: process.pid, exit: "signal 9 (SIGKILL)"))
        frontends.shutdown(timeout: .zero)
    }

    @Test func oneThatCannotStartIsAnError() throws {
        defer { guardian.finish() }
        let error = #expect(throws: SupervisionError.self) {
            _ = try start(waves: false, executable: scratch.script("exit 3"))
        }
        #expect(error?.message.hasSuffix("ended before it told its addresses: exit status 3") == true)
    }
}

@Suite struct DataParallelTopologyTests {
    private func topology(
        _ change: (inout DataParallelTopology.Description) -> Void
    ) throws -> DataParallelTopology {
        var description = DataParallelTopology.Description()
        description.size = 4
        change(&description)
        return try DataParallelTopology(description)
    }

    @Test func everythingIsLocalUnlessSaidOtherwise() throws {
        let single = try topology { _ in }
        #expect(single.isSingleNode && single.needsCoordinator && single.localRanks == 0..<4)
        #expect(try !topology { $0.size = 1 }.needsCoordinator)
    }

    @Test func theFirstNodeServesAllAndHeadlessOnesTheirOwn() throws {
        let first = try topology {
            $0.localSize = 1
            $0.address = "10.0.0.1"
        }
        #expect(first.servedRanks == 0..<4 && first.handshakeRanks == 0..<4 && first.localRanks == 0..<1)
        #expect(!first.frontendsAreLocal && first.handshakeAddress == "tcp://10.0.0.1:29550")
        let headless = try topology {
            $0.isHeadless = true
            ($0.localSize, $0.startRank, $0.address, $0.rpcPort) = (3, 1, "::1", 5000)
        }
        #expect(headless.localRanks == 1..<4 && !headless.needsCoordinator)
        #expect(headless.handshakeAddress == "tcp://[::1]:5000")
    }

    @Test func hybridNodesServeTheirOwn() throws {
        let second = try topology { ($0.localSize, $0.startRank, $0.address) = (2, 2, "10.0.0.1") }
        #expect(second.loadBalancing == .hybrid && second.servedRanks == 2..<4 && second.handshakeRanks == 2..<4)
        #expect(!second.needsCoordinator && second.frontendsAreLocal)
        let first = try topology { ($0.localSize, $0.wantsHybrid, $0.address) = (2, true, "10.0.0.1") }
        #expect(first.servedRanks == 0..<2 && first.handshakeRanks == 0..<4 && first.needsCoordinator)
        // As in vLLM: on a single node the option has no meaning.
        #expect(try topology { ($0.localSize, $0.wantsHybrid) = (4, true) }.loadBalancing == .internal)
    }

    @Test func contradictionsAreRefused() {
        func message(_ change: (inout DataParallelTopology.Description) -> Void) -> String {
            #expect(throws: SupervisionError.self) { _ = try topology(change) }?.message ?? ""
        }
        #expect(message { $0.localSize = 2 }.contains("need --data-parallel-address"))
        #expect(message { $0.localSize = 5 }.contains("is more than --data-parallel-size 4"))
        #expect(message { $0.isHeadless = true }.contains("--headless needs --data-parallel-address"))
        #expect(message { $0.startRank = 0 }.contains("need --data-parallel-size-local"))
        #expect(message { $0.size = 0 }.contains("--data-parallel-size must be"))
        #expect(message { ($0.size, $0.localSize) = (100, 70) }.contains("must be from 0 to 64"))
        #expect(
            message { ($0.isHeadless, $0.wantsHybrid, $0.address) = (true, true, "h") }.contains("exclude each other"))
    }
}
