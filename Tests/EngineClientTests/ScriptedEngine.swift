import EngineProtocol
import Glibc
import MessagePack
import Synchronization
import ZeroMQ

/// An engine whose behaviour a test writes down: real ZMQ sockets on a thread of its own, no model behind them.
final class ScriptedEngine: Sendable {
    enum Incoming: Sendable {
        case add(EngineCoreRequest)
        case abort([String])
        case utility(UtilityCall)
    }

    private enum Order: Sendable {
        case output([[UInt8]])
        case input([[UInt8]])
        case stop
    }

    let rank: Int
    let family: ProtocolFamily
    /// What the frontend sent, in order.
    let incoming: AsyncStream<Incoming>
    private let continuation: AsyncStream<Incoming>.Continuation
    private let orders = Mutex<[Order]>([])
    private let wakeup: WakeupDescriptor
    private let stopped: AsyncStream<Void>
    private let stoppedContinuation: AsyncStream<Void>.Continuation

    /// - Parameter respond: called on the engine's thread for every message; what it returns is sent as outputs.
    init(
        rank: Int = 0, input: String, output: String, family: ProtocolFamily = .v0_33,
        response: EngineCoreReadyResponse? = nil,
        respond: @escaping @Sendable (Incoming) -> [EngineCoreOutputs] = { _ in [] }
    ) throws {
        self.rank = rank
        self.family = family
        (incoming, continuation) = AsyncStream.makeStream()
        (stopped, stoppedContinuation) = AsyncStream.makeStream()
        wakeup = try WakeupDescriptor()
        var ready: [UInt8] = []
        (response ?? Self.response(rank: rank, family: family)).encode(into: &ready)
        let start = Start(engine: self, input: input, output: output, ready: ready, respond: respond)
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { raw in
                let start = Unmanaged<Start>.fromOpaque(raw!).takeRetainedValue()
                start.engine.run(start)
                return nil
            }, Unmanaged.passRetained(start).toOpaque())
        precondition(status == 0)
        pthread_detach(thread)
    }

    private final class Start {
        let engine: ScriptedEngine
        let input: String
        let output: String
        let ready: [UInt8]
        let respond: @Sendable (Incoming) -> [EngineCoreOutputs]
        init(
            engine: ScriptedEngine, input: String, output: String, ready: [UInt8],
            respond: @escaping @Sendable (Incoming) -> [EngineCoreOutputs]
        ) {
            (self.engine, self.input, self.output) = (engine, input, output)
            (self.ready, self.respond) = (ready, respond)
        }
    }

    static func response(
        rank: Int = 0, family: ProtocolFamily = .v0_33, instance: String = "instance", maxModelLength: Int = 2048
    ) -> EngineCoreReadyResponse {
        var response = EngineCoreReadyResponse()
        response.maxModelLength = maxModelLength
        response.numGPUBlocks = 100
        response.blockSize = 16
        response.dtype = "bfloat16"
        response.vllmVersion = "\(family).0"
        response.dataParallelRank = rank
        response.maxNumSeqs = 8
        response.maxNumBatchedTokens = 512
        response.instanceID = instance
        return response
    }

    // MARK: - What a test tells it

    func send(_ outputs: EngineCoreOutputs) { sendRaw(outputs.encode(family: family)) }

    /// Tokens for one request, optionally its last ones.
    func send(_ id: String, _ tokens: [Int32], finish: FinishReason? = nil) {
        send(Self.outputs([Self.output(id, tokens, finish: finish)], engine: rank))
    }

    func sendRaw(_ frames: [[UInt8]]) { order(.output(frames)) }

    /// Sends frames on the input socket, as a registration is sent.
    func sendOnInput(_ frames: [[UInt8]]) { order(.input(frames)) }

    func register(_ response: EngineCoreReadyResponse) {
        var bytes: [UInt8] = []
        response.encode(into: &bytes)
        sendOnInput([bytes])
    }

    func sendSentinel() { sendRaw([Array("ENGINE_CORE_DEAD".utf8)]) }

    /// Closes the sockets, after sending what was ordered before, and ends the thread.
    func stop() async {
        order(.stop)
        for await _ in stopped {}
    }

    private func order(_ order: Order) {
        orders.withLock { $0.append(order) }
        wakeup.signal()
    }

    static func output(_ id: String, _ tokens: [Int32], finish: FinishReason? = nil) -> EngineCoreOutput {
        var output = EngineCoreOutput()
        output.requestID = id
        output.newTokenIDs = tokens
        output.finishReason = finish
        return output
    }

    static func outputs(_ outputs: [EngineCoreOutput], engine: Int = 0) -> EngineCoreOutputs {
        var message = EngineCoreOutputs()
        message.engineIndex = engine
        message.outputs = outputs
        message.timestamp = 1
        return message
    }

    static func stats(_ running: Int, _ waiting: Int, engine: Int = 0) -> EngineCoreOutputs {
        var message = EngineCoreOutputs()
        message.engineIndex = engine
        message.schedulerStats = SchedulerStats()
        message.schedulerStats?.numRunningReqs = running
        message.schedulerStats?.numWaitingReqs = waiting
        return message
    }

    // MARK: - Its thread

    private func run(_ start: Start) {
        do {
            let context = try ZMQContext()
            let input = try ZMQSocket(.dealer, context: context)
            try input.setIdentity(EngineIdentity.encode(rank: rank))
            let output = try ZMQSocket(.push, context: context)
            for socket in [input, output] {
                try socket.setLinger(milliseconds: 4000)
                try socket.setSendHighWaterMark(0)
            }
            try input.setReceiveHighWaterMark(0)
            try input.connect(start.input)
            try output.connect(start.output)
            if !start.ready.isEmpty { try input.send(start.ready) }
            let poller = ZMQPoller()
            let wakeItem = poller.add(descriptor: wakeup.descriptor)
            try poller.add(input)
            var isRunning = true
            while isRunning {
                try poller.wait(milliseconds: -1)
                while let frames = try input.receiveFrames() {
                    let message = try decode(frames)
                    continuation.yield(message)
                    for outputs in start.respond(message) { try output.send(frames: outputs.encode(family: family)) }
                }
                guard poller.isReadable(wakeItem) else { continue }
                wakeup.clear()
                for order in orders.withLock({ orders in
                    defer { orders = [] }
                    return orders
                }) {
                    switch order {
                    case .output(let frames): try output.send(frames: frames)
                    case .input(let frames): try input.send(frames: frames)
                    case .stop: isRunning = false
                    }
                }
            }
        } catch {
            fatalError("scripted engine \(rank): \(error)")
        }
        continuation.finish()
        stoppedContinuation.finish()
    }

    private func decode(_ frames: [[UInt8]]) throws -> Incoming {
        guard frames.count == 2, frames[0].count == 1, let type = EngineRequestType(rawValue: frames[0][0]) else {
            throw MessagePackError(.invalid("frames \(frames.map(\.count))"), offset: 0)
        }
        return try MessagePackReader.read(frames[1]) { reader throws(MessagePackError) in
            let message: Incoming
            switch type {
            case .add: message = .add(try EngineCoreRequest(decoding: &reader))
            case .abort: message = .abort(try AbortRequest.decode(&reader))
            case .utility: message = .utility(try UtilityCall(decoding: &reader))
            case .startDataParallelWave: throw MessagePackError(.invalid("wave from a frontend"), offset: 0)
            }
            try reader.requireEnd()
            return message
        }
    }
}
