import EngineHandshake
import EngineProtocol
import Glibc
import Logging
import Supervision
import Testing
import ZeroMQ

@Suite struct HandshakeStateTests {
    private let hello = EngineHandshakeMessage(status: .hello, isLocal: true, isHeadless: false)
    private let ready = EngineHandshakeMessage(status: .ready, isLocal: true, isHeadless: false)

    private func violation(_ body: () throws -> Void) -> String? {
        #expect(throws: HandshakeState.Violation.self, performing: body)?.description
    }

    /// Engines that others start may come again, and need not say that they are local.
    @Test func externalEnginesMayRestart() throws {
        var state = HandshakeState(ranks: 0..<1, localRanks: 0..<0, mayReturn: true)
        var hello = EngineHandshakeMessage(status: .hello, isLocal: false, isHeadless: true)
        #expect(try state.receive(identity: [0, 0], hello) == .sendInit(rank: 0))
        hello.status = .ready
        #expect(try state.receive(identity: [0, 0], hello) == .engineReady(rank: 0))
        hello.status = .hello
        #expect(try state.receive(identity: [0, 0], hello) == .sendInit(rank: 0))
        #expect(!state.isComplete)
    }

    /// Their nodes report them, and may be started anew as a whole.
    @Test func enginesOfOtherMachinesMayDieAndReturn() throws {
        var state = HandshakeState(ranks: 0..<2, localRanks: 0..<1)
        var message = EngineHandshakeMessage(status: .hello, isLocal: false, isHeadless: true)
        #expect(try state.receive(identity: [1, 0], message) == .sendInit(rank: 1))
        message.status = .ready
        #expect(try state.receive(identity: [1, 0], message) == .engineReady(rank: 1))
        message.status = .lost
        message.returns = true
        let read = try message.encode().withUnsafeBytes { try EngineHandshakeMessage(decoding: $0) }
        #expect(read == message)
        #expect(try state.receive(identity: [1, 0], read) == .engineLost(rank: 1, returns: true))
        message.status = .hello
        #expect(try state.receive(identity: [1, 0], message) == .engineReturned(rank: 1))
        state.expectAgain(rank: 1)
        #expect(try state.receive(identity: [1, 0], message) == .sendInit(rank: 1))
        message.status = .lost
        #expect(violation { _ = try state.receive(identity: [0, 0], message) }?.contains("started elsewhere") == true)
    }

    @Test(arguments: [nil, "the service is stopping"]) func answersToALoss(refusal: String?) throws {
        let answer = EngineReturnAnswer(refusal: refusal)
        #expect(try answer.encode().withUnsafeBytes { try EngineReturnAnswer(decoding: $0) } == answer)
    }

    @Test func everyEngineSaysHelloAndThenReady() throws {
        var state = HandshakeState(ranks: 2..<4, localRanks: 2..<4)
        #expect(state.waitingFor.map(\.rank) == [2, 3])
        #expect(try state.receive(identity: [3, 0], hello) == .sendInit(rank: 3))
        #expect(try state.receive(identity: [2, 0], hello) == .sendInit(rank: 2))
        #expect(try state.receive(identity: [2, 0], ready) == .engineReady(rank: 2))
        #expect(!state.isComplete)
        #expect(state.waitingFor.map(\.rank) == [3] && state.phase(ofRank: 3) == .awaitingReady)
        #expect(try state.receive(identity: [3, 0], ready) == .engineReady(rank: 3))
        #expect(state.isComplete)
    }

    @Test(arguments: [[], [1], [1, 0], [0, 1], [0, 0, 0], Array("engine".utf8)] as [[UInt8]])
    func strangersAreRefused(identity: [UInt8]) {
        var state = HandshakeState(ranks: 0..<1, localRanks: 0..<1)
        let text = violation { _ = try state.receive(identity: identity, hello) }
        #expect(text?.contains("unexpected identity") == true && text?.contains("expected rank 0") == true)
    }

    @Test func messagesOutOfOrderAreRefused() throws {
        var state = HandshakeState(ranks: 0..<1, localRanks: 0..<1)
        #expect(violation { _ = try state.receive(identity: [0, 0], ready) } == "engine 0 sent READY before HELLO")
        _ = try state.receive(identity: [0, 0], hello)
        #expect(violation { _ = try state.receive(identity: [0, 0], hello) }?.contains("connected twice") == true)
        _ = try state.receive(identity: [0, 0], ready)
        #expect(violation { _ = try state.receive(identity: [0, 0], ready) } == "engine 0 sent READY twice")
        #expect(violation { _ = try state.receive(identity: [0, 0], hello) }?.contains("connected twice") == true)
    }

    @Test func engineStartedElsewhereIsRefused() {
        var state = HandshakeState(ranks: 0..<1, localRanks: 0..<1)
        let remote = EngineHandshakeMessage(status: .hello, isLocal: false, isHeadless: true)
        #expect(violation { _ = try state.receive(identity: [0, 0], remote) }?.contains("started elsewhere") == true)
    }

    @Test func aSuccessorIsExpectedAgain() throws {
        var state = HandshakeState(ranks: 0..<2, localRanks: 0..<2)
        for rank in [UInt8(0), 1] {
            _ = try state.receive(identity: [rank, 0], hello)
            var named = ready
            named.instanceID = "process \(rank)"
            _ = try state.receive(identity: [rank, 0], named)
        }
        #expect(state.instance(ofRank: 1) == "process 1")
        state.expectAgain(rank: 1)
        #expect(!state.isComplete && state.waitingFor.map(\.rank) == [1] && state.instance(ofRank: 1) == nil)
        #expect(try state.receive(identity: [1, 0], hello) == .sendInit(rank: 1))
        #expect(try state.receive(identity: [1, 0], ready) == .engineReady(rank: 1))
        #expect(state.isComplete && state.instance(ofRank: 0) == "process 0")
    }

    @Test(arguments: [true, false])
    func enginesOfOtherMachinesSaySo(headless: Bool) throws {
        var state = HandshakeState(ranks: 0..<2, localRanks: 0..<1, remoteAreHeadless: headless)
        let remote = EngineHandshakeMessage(status: .hello, isLocal: false, isHeadless: headless)
        let other = EngineHandshakeMessage(status: .hello, isLocal: false, isHeadless: !headless)
        for wrong in [hello, other] {
            #expect(
                violation { _ = try state.receive(identity: [1, 0], wrong) }?.contains("from another machine") == true)
        }
        #expect(violation { _ = try state.receive(identity: [0, 0], remote) }?.contains("started elsewhere") == true)
        #expect(try state.receive(identity: [0, 0], hello) == .sendInit(rank: 0))
        #expect(try state.receive(identity: [1, 0], remote) == .sendInit(rank: 1))
    }

    @Test func enginesMustAgreeOnTheirParallelConfiguration() throws {
        var state = HandshakeState(ranks: 0..<2, localRanks: 0..<2)
        for rank in [UInt8(0), 1] { _ = try state.receive(identity: [rank, 0], hello) }
        var first = ready
        first.parallelConfigHash = "a"
        var second = ready
        second.parallelConfigHash = "b"
        _ = try state.receive(identity: [0, 0], first)
        #expect(
            violation { _ = try state.receive(identity: [1, 0], second) }?.contains("parallel configuration") == true)
    }
}

/// Engines are DEALER sockets of the test or, where their end matters, real processes.
@Suite struct HandshakeServerTests {
    private let scratch = Scratch()
    private let loop = EventLoop()
    private let context: ZMQContext
    private let server: HandshakeServer
    private let guardian: OrphanGuard
    private let factory: ChildFactory

    init() throws {
        context = try ZMQContext()
        server = try HandshakeServer(
            address: "ipc://\(scratch.file("handshake.sock"))",
            initMessage: EngineInitMessage(inputs: ["ipc:///in"], outputs: ["ipc:///out"]), ranks: 0..<1,
            localRanks: 0..<1, context: context, loop: loop, logger: quiet)
        guardian = try OrphanGuard(directory: scratch.file("runtime"))
        let null = LogOutput(descriptor: open("/dev/null", O_WRONLY | O_CLOEXEC))
        factory = ChildFactory(loop: loop, orphanGuard: guardian, logger: quiet, output: null)
    }

    private func connect(identity: [UInt8]) throws -> ZMQSocket {
        let socket = try ZMQSocket(.dealer, context: context)
        try socket.setLinger(milliseconds: 0)
        try socket.setIdentity(identity)
        try socket.setReceiveTimeout(milliseconds: 10_000)
        try socket.connect(server.address)
        return socket
    }

    private func engines(_ line: String) throws -> EngineProcessManager {
        let program = scratch.script(line, name: "engine")
        return try EngineProcessManager(
            EngineLaunch(
                executable: program, model: "m", handshakeAddress: server.address, arguments: [],
                environment: ProcessInfo.environment()), factory: factory)
    }

    private func failure(_ body: () throws -> Bool) -> String? {
        let error = #expect(throws: SupervisionError.self) { _ = try body() }
        #expect(error?.code == .startupFailure)
        return error?.message
    }

    @Test func engineLearnsTheAddressesAndBecomesReady() throws {
        defer { guardian.finish() }
        let engine = try connect(identity: [0, 0])
        try engine.send(EngineHandshakeMessage(status: .hello, isLocal: true, isHeadless: false).encode())
        try engine.send(EngineHandshakeMessage(status: .ready, isLocal: true, isHeadless: false).encode())
        #expect(try server.run(engines: nil, frontends: nil, signals: nil, timeout: .seconds(10)))
        let answer = try #require(try engine.receiveFrames(wait: true))
        #expect(answer.count == 1)
        let message = try answer[0].withUnsafeBytes { try EngineInitMessage(decoding: $0) }
        #expect(message.inputs == ["ipc:///in"] && message.outputs == ["ipc:///out"])
    }

    /// libzmq announces an arrival once, and the next call on the socket takes the announcement.
    @Test func eventThatArrivesBeforeACommandIsSentIsRead() throws {
        defer { guardian.finish() }
        let engine = try connect(identity: [0, 0])
        try engine.send(EngineHandshakeMessage(status: .hello, isLocal: true, isHeadless: false).encode())
        try engine.send(EngineHandshakeMessage(status: .ready, isLocal: true, isHeadless: false).encode())
        #expect(try server.run(engines: nil, frontends: nil, signals: nil, timeout: .seconds(10)))
        var events: [EngineControlEvent] = []
        server.onEvent = { _, event in events.append(event) }
        // {"status": "FRONTEND_LOST", "client_index": 0}
        let lost = [0x82, 0xa6] + "status".utf8 + [0xad] + "FRONTEND_LOST".utf8 + [0xac] + "client_index".utf8 + [0]
        try engine.send(lost)
        let hasArrived = eventually {
            var entry = pollfd(fd: server.descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&entry, 1, 0) == 1
        }
        #expect(hasArrived)
        try server.send(.disconnectFrontend(clientIndex: 0), toRank: 0)
        #expect(loop.run(until: .now + .seconds(10)) { events.isEmpty })
        #expect(events == [EngineControlEvent(status: .lost, clientIndex: 0)])
    }

    @Test(arguments: [[[1, 2, 3]], [[0xc1]], [[0x80]], [], [[0x80], [0x80]]] as [[[UInt8]]])
    func garbageEndsTheStartUp(frames: [[UInt8]]) throws {
        defer { guardian.finish() }
        let engine = try connect(identity: [0, 0])
        if frames.isEmpty { try engine.send([]) } else { try engine.send(frames: frames) }
        let text = failure { try server.run(engines: nil, frontends: nil, signals: nil, timeout: .seconds(10)) }
        #expect(text?.hasPrefix("engine start-up failed: a") == true, "\(text ?? "")")
    }

    @Test func engineWithAnotherRankEndsTheStartUp() throws {
        defer { guardian.finish() }
        let engine = try connect(identity: [5, 0])
        try engine.send(EngineHandshakeMessage(status: .hello, isLocal: true, isHeadless: false).encode())
        let text = failure { try server.run(engines: nil, frontends: nil, signals: nil, timeout: .seconds(10)) }
        #expect(text?.contains("unexpected identity [5 0]") == true)
    }

    @Test func engineThatNeverConnectsIsGivenUp() throws {
        defer { guardian.finish() }
        let engines = try engines("exec sleep 100")
        let text = failure {
            try server.run(engines: engines, frontends: nil, signals: nil, timeout: .milliseconds(100))
        }
        #expect(text?.contains("rank 0 has not connected") == true)
    }

    @Test(arguments: [0, 3])
    func engineThatEndsBeforeItConnectsIsReported(status: Int) throws {
        defer { guardian.finish() }
        let engines = try engines("echo ERROR no weights >&2; exit \(status)")
        let text = failure { try server.run(engines: engines, frontends: nil, signals: nil, timeout: .seconds(10)) }
        #expect(text?.hasPrefix("engine process EngineCore (pid ") == true)
        #expect(text?.hasSuffix("ended during start-up, before it connected: exit status \(status)") == true)
        #expect(engines.failedProcessName == (status == 0 ? nil : "EngineCore"))
        engines.children[0].log.drain()
        #expect(engines.children[0].log.errorBlock == ["ERROR no weights"])
    }

    @Test func engineThatDiesWhileLoadingIsReported() throws {
        defer { guardian.finish() }
        let engines = try engines("exec sleep 100")
        let socket = try connect(identity: [0, 0])
        try socket.send(EngineHandshakeMessage(status: .hello, isLocal: true, isHeadless: false).encode())
        loop.run(until: .now + .seconds(10)) { server.state.phase(ofRank: 0) == .awaitingHello }
        engines.processes[0].kill()
        let text = failure { try server.run(engines: engines, frontends: nil, signals: nil, timeout: .seconds(10)) }
        #expect(text?.hasSuffix("while it loaded the model: signal 9 (SIGKILL)") == true)
    }

    @Test func enginesGetTheirCommandLine() throws {
        defer { guardian.finish() }
        let program = scratch.script("echo \"$@\"; readlink /proc/$$/fd/3 | cut -d: -f1", name: "engine")
        var launch = EngineLaunch(
            executable: program, model: "/models/x", handshakeAddress: "ipc:///h", arguments: ["--seed", "1"],
            environment: ProcessInfo.environment())
        launch.count = 2
        launch.startIndex = 4
        let engines = try EngineProcessManager(launch, factory: factory)
        for engine in engines.children {
            engine.process.join()
            engine.log.drain()
        }
        #expect(engines.children.map(\.name) == ["EngineCore_DP4", "EngineCore_DP5"])
        #expect(
            engines.children[1].log.lastLines == [
                "--model /models/x --handshake-address ipc:///h --engine-index 5 --local --seed 1 --death-fd 3", "pipe",
            ])
        engines.shutdown(timeout: nil)
    }
}
