import EngineProtocol
import Glibc
import JSONBytes
import Logging
import MessagePack
import ZeroMQ

/// The coordinator process: three sockets around `CoordinatorLogic`, until it is told to stop or its parent is gone.
package struct CoordinatorProcess {
    package struct Configuration {
        package var engineCount: Int
        package var coordinatesWaves = false
        /// What the frontends understand.
        package var family = ProtocolFamily.newest
        /// `ipc://path` or `tcp://host:port`, port 0 = any.
        package var statsPublish: String
        package var engineOutput: String
        package var enginePublish: String
        /// Pipe to tell the bound addresses over.
        package var addressDescriptor: Int32?
        /// Becomes readable when the parent is gone.
        package var deathDescriptor: Int32?

        package init(engineCount: Int, statsPublish: String, engineOutput: String, enginePublish: String) {
            self.engineCount = engineCount
            self.statsPublish = statsPublish
            self.engineOutput = engineOutput
            self.enginePublish = enginePublish
        }
    }

    /// Names in what is told over the address pipe.
    static let addressNames = ["stats_publish_address", "engine_output_address", "engine_publish_address"]
    private static let messagesPerTurn = 256

    private let configuration: Configuration
    private let logger: Logger
    private let frontends: ZMQSocket
    private let outputs: ZMQSocket
    private let engines: ZMQSocket
    private let frames = ZMQFrames()
    private var logic: CoordinatorLogic
    /// Engines that have subscribed; frontends' requests are only sent on once all have.
    private var subscriptions = 0
    private var warnings = 0

    package init(_ configuration: Configuration, context: ZMQContext, logger: Logger) throws {
        self.configuration = configuration
        self.logger = logger
        logic = CoordinatorLogic(
            engineCount: configuration.engineCount, coordinatesWaves: configuration.coordinatesWaves)
        frontends = try ZMQSocket(.xpub, context: context)
        outputs = try ZMQSocket(.pull, context: context)
        engines = try ZMQSocket(.xpub, context: context)
        for (socket, address) in [
            (frontends, configuration.statsPublish), (outputs, configuration.engineOutput),
            (engines, configuration.enginePublish),
        ] {
            try socket.setLinger(milliseconds: 0)
            try socket.setReceiveHighWaterMark(0)
            try socket.setMaximumMessageSize(bytes: 16 << 20)
            if address.hasPrefix("tcp://[") { try socket.setIPv6(true) }
        }
        // Every engine's subscription counts, not only the first.
        try engines.setXPUBVerbose(true)
        try engines.setSendHighWaterMark(0)
        try frontends.bind(configuration.statsPublish)
        try outputs.bind(configuration.engineOutput)
        try engines.bind(configuration.enginePublish)
    }

    /// Where the sockets are bound, in the order of `addressNames`.
    private func addresses() throws -> [String] {
        try [frontends.lastEndpoint(), outputs.lastEndpoint(), engines.lastEndpoint()]
    }

    /// Serves until the parent is gone; signals end the process.
    package mutating func run() throws {
        if let descriptor = configuration.addressDescriptor {
            let members = zip(Self.addressNames, try addresses()).map { ($0, JSONValue.string($1)) }
            let bytes = Array(JSONValue.object(JSONObject(members)).serialized().utf8)
            guard write(descriptor, bytes, bytes.count) == bytes.count else {
                throw SupervisionError(.failure, "cannot tell the addresses: \(describeErrno(errno))")
            }
            close(descriptor)
        }
        let poller = ZMQPoller()
        let fromFrontends = try poller.add(frontends)
        let fromEngines = try poller.add(outputs)
        let fromSubscribers = try poller.add(engines)
        let death = configuration.deathDescriptor.map { poller.add(descriptor: $0) }

        var lastPublication = ContinuousClock.now
        var lastArrival = lastPublication
        try publish(logic.takePublication())
        while true {
            let due = logic.nextPublication(after: lastPublication, lastArrival: lastArrival)
            try poller.wait(milliseconds: Int((due - .now).pollMilliseconds))
            if let death, poller.isReadable(death) { return }
            if poller.isReadable(fromSubscribers) { try receiveSubscriptions() }
            if poller.isReadable(fromFrontends) { try receiveFromFrontends() }
            if poller.isReadable(fromEngines) {
                try receiveFromEngines()
                lastArrival = .now
            }
            if ContinuousClock.now >= logic.nextPublication(after: lastPublication, lastArrival: lastArrival) {
                try publish(logic.takePublication())
                lastPublication = .now
            }
        }
    }

    private func publish(_ state: CoordinatorState) throws {
        try frontends.send(state.encode(family: configuration.family))
    }

    private mutating func receiveSubscriptions() throws {
        while try engines.receive(into: frames) {
            guard frames.count == 1, frames[0].elementsEqual(CoordinatorFrame.subscribe) else { continue }
            subscriptions += 1
            if subscriptions == configuration.engineCount {
                logger.info("All \(configuration.engineCount) engines have subscribed")
            }
            // A restarted engine waits for it like the first ones; the others ignore it.
            if subscriptions >= configuration.engineCount { try engines.send(CoordinatorFrame.ready) }
        }
    }

    private mutating func receiveFromFrontends() throws {
        while try frontends.receive(into: frames) {
            guard frames.count > 0 else { continue }
            do {
                try perform(logic.receive(try FrontendToCoordinatorMessage(decoding: frames[0])))
            } catch let error as MessagePackError {
                warn("unreadable message from a frontend: \(error)")
            }
        }
    }

    private mutating func receiveFromEngines() throws {
        for _ in 0..<Self.messagesPerTurn {
            guard try outputs.receive(into: frames) else { return }
            guard frames.count > 0 else { continue }
            do {
                try perform(logic.receive(try EngineCoreOutputsView(decoding: frames[0])))
            } catch let error as MessagePackError {
                // The sentinel is for frontends, and not msgpack either.
                warn("unreadable message from an engine: \(error)")
            }
        }
    }

    private mutating func perform(_ actions: [CoordinatorLogic.Action]) throws {
        for action in actions {
            switch action {
            case .publish(let state): try publish(state)
            case .startWave(let message): try engines.send(frames: message.encodeFrames())
            case .warn(let text): warn(text)
            }
        }
    }

    /// The first ones, then every power of two: a mad peer must not fill a disk.
    private mutating func warn(_ text: String) {
        warnings += 1
        if warnings <= 16 || warnings & (warnings - 1) == 0 { logger.warning("\(text) (\(warnings) in all)") }
    }
}
