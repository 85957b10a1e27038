import EngineClient
import EngineProtocol
import Glibc
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing
import ZMTP

/// A client and its engines in a temporary directory.
final class TestBench: Sendable {
    let directory: String
    let configuration: EngineClientConfiguration
    let client: EngineClient
    let states: AsyncStream<EngineClientState>

    init(
        _ change: (inout EngineClientConfiguration) -> Void = { _ in }, start: Bool = true
    ) throws {
        var template = Array("/tmp/engine-client-XXXXXX".utf8CString)
        guard let path = mkdtemp(&template) else { throw Problem(description: "mkdtemp: errno \(errno)") }
        directory = String(cString: path)
        var configuration = EngineClientConfiguration(
            input: .bind("ipc://\(directory)/in"), output: .bind("ipc://\(directory)/out"))
        configuration.readyTimeout = .seconds(30)
        change(&configuration)
        self.configuration = configuration
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        client = try EngineClient(
            configuration: configuration, eventLoop: MultiThreadedEventLoopGroup.singleton.next(), logger: logger)
        let (states, continuation) = AsyncStream.makeStream(of: EngineClientState.self)
        self.states = states
        if start { try client.start() }
        client.onStateChange { state in
            continuation.yield(state)
            if state == .closed { continuation.finish() }
        }
    }

    deinit {
        for name in ["in", "out", "coordinator"] { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }

    var input: String { "ipc://\(directory)/in" }
    var output: String { "ipc://\(directory)/out" }

    func engine(
        rank: Int = 0, family: ProtocolFamily = .v0_33, response: EngineCoreReadyResponse? = nil,
        respond: @escaping @Sendable (ScriptedEngine.Incoming) -> [EngineCoreOutputs] = { _ in [] }
    ) throws -> ScriptedEngine {
        try ScriptedEngine(
            rank: rank, input: input, output: output, family: family, response: response, respond: respond)
    }

    /// Waits until the client is in a state that `matches`.
    func wait(for matches: (EngineClientState) -> Bool) async {
        for await state in states where matches(state) { return }
    }

    func add(
        _ id: String, prompt: [Int32] = [1, 2, 3], inbox: any OutputInbox = DirectInbox(), rank: Int? = nil,
        change: (inout EngineCoreRequest) -> Void = { _ in }
    ) -> TestRequest {
        var request = EngineCoreRequest(
            requestID: id, promptTokenIDs: prompt, samplingParams: SamplingParams(), arrivalTime: 1)
        request.dataParallelRank = rank
        change(&request)
        let receiver = TestReceiver()
        return TestRequest(receiver: receiver, handle: client.add(request, inbox: inbox, receiver: receiver))
    }
}

struct Problem: Error, CustomStringConvertible { var description: String }

struct TestRequest: Sendable {
    var receiver: TestReceiver
    var handle: RequestHandle
}

/// Hands events to their receivers at once, on the client's event loop.
final class DirectInbox: OutputInbox {
    private let sizes = Mutex<[Int]>([])

    func deliver(_ batch: [Delivery]) {
        sizes.withLock { $0.append(batch.count) }
        for delivery in batch { delivery.receiver.receive(delivery.event) }
    }

    /// Sizes of all batches so far.
    var batches: [Int] { sizes.withLock { $0 } }
}

final class TestReceiver: RequestReceiver {
    private let log = Mutex<[RequestEvent]>([])
    private let stream: AsyncStream<RequestEvent>
    private let continuation: AsyncStream<RequestEvent>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream() }

    func receive(_ event: RequestEvent) {
        log.withLock { $0.append(event) }
        continuation.yield(event)
        if event.isLast { continuation.finish() }
    }

    /// Events so far.
    var events: [RequestEvent] { log.withLock { $0 } }
    var lastEvents: Int { events.filter(\.isLast).count }

    /// All tokens and the last event, once it is there.
    func finish() async -> (tokens: [Int32], last: RequestEvent?) {
        var tokens: [Int32] = []
        var last: RequestEvent?
        for await event in stream {
            if case .output(let output, _) = event { tokens += output.newTokenIDs }
            last = event
        }
        return (tokens, last)
    }

    /// The next event; for one reader, before ``finish()``.
    func next() async -> RequestEvent? {
        for await event in stream { return event }
        return nil
    }
}

extension RequestEvent {
    var isLast: Bool {
        switch self {
        case .output(let output, _): output.finishReason != nil
        case .failed: true
        }
    }
    var failure: EngineFailure? {
        if case .failed(let failure) = self { failure } else { nil }
    }
    var output: EngineCoreOutput? {
        if case .output(let output, _) = self { output } else { nil }
    }
}

extension EngineClientState {
    var isReady: Bool { if case .ready = self { true } else { false } }
    var isDead: Bool { if case .dead = self { true } else { false } }
}

extension ScriptedEngine {
    func nextAdd() async throws -> EngineCoreRequest {
        for await message in incoming {
            if case .add(let request) = message { return request }
            throw Problem(description: "expected an ADD, got \(message)")
        }
        throw Problem(description: "engine stopped")
    }

    func nextAbort() async throws -> [String] {
        for await message in incoming {
            if case .abort(let ids) = message { return ids }
            throw Problem(description: "expected an ABORT, got \(message)")
        }
        throw Problem(description: "engine stopped")
    }

    func nextUtility() async throws -> UtilityCall {
        for await message in incoming {
            if case .utility(let call) = message { return call }
            throw Problem(description: "expected a utility call, got \(message)")
        }
        throw Problem(description: "engine stopped")
    }
}
