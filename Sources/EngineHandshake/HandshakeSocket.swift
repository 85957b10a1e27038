import EngineProtocol
import ZeroMQ

/// The ROUTER that engines dial first, with what they are told and what is known about them. Whoever owns it decides when
/// to read: ``descriptor`` becomes readable once after something has changed, as libzmq does it.
package final class HandshakeSocket {
    /// What a message meant.
    package enum Event: Equatable, Sendable {
        case hello(rank: Int)
        case ready(rank: Int)
        /// To be answered with ``answer(_:toRank:)``.
        case lost(rank: Int, returns: Bool)
        /// After ``expectAgain(rank:initMessage:)`` it may be handled once more.
        case returned(rank: Int)
        /// Nothing was answered.
        case violation(String)
    }

    /// `ipc://path` or `tcp://host:port`, with the port that the kernel chose.
    package let address: String
    package let descriptor: Int32
    package let socket: ZMQSocket
    package private(set) var state: HandshakeState
    private var initMessage: [UInt8]

    package init(
        address: String, initMessage: EngineInitMessage, state: HandshakeState, context: ZMQContext
    ) throws(ZMQError) {
        self.initMessage = initMessage.encode()
        self.state = state
        socket = try ZMQSocket(.router, context: context)
        try socket.setLinger(milliseconds: 0)
        try socket.setMaximumMessageSize(bytes: 1 << 20)
        // A restarted engine has the identity of the dead one.
        try socket.setRouterHandover(true)
        if address.hasPrefix("tcp://[") { try socket.setIPv6(true) }
        try socket.bind(address)
        self.address = try socket.lastEndpoint()
        descriptor = try socket.eventDescriptor()
    }

    deinit { close() }

    package var isClosed: Bool { socket.isClosed }

    /// Idempotent.
    package func close() { socket.close() }

    /// Another process with this rank will connect, and gets this INIT.
    package func expectAgain(rank: Int, initMessage: EngineInitMessage) {
        state.expectAgain(rank: rank)
        self.initMessage = initMessage.encode()
    }

    package func answer(_ answer: EngineReturnAnswer, toRank rank: Int) throws(ZMQError) {
        try socket.send(frames: [EngineIdentity.encode(rank: rank), answer.encode()])
    }

    /// The next message: its sender's identity first. Nil when there is none.
    package func receive() throws(ZMQError) -> [[UInt8]]? { try socket.receiveFrames() }

    /// Answers HELLO with INIT and takes note of READY.
    package func handle(_ frames: [[UInt8]]) throws(ZMQError) -> Event {
        guard frames.count == 2 else {
            return .violation("a handshake message has \(frames.count) frames instead of 2")
        }
        let message: EngineHandshakeMessage
        do {
            message = try frames[1].withUnsafeBytes { bytes in try EngineHandshakeMessage(decoding: bytes) }
        } catch {
            return .violation("an engine sent something that is not a handshake message: \(error)")
        }
        let action: HandshakeState.Action
        do throws(HandshakeState.Violation) {
            action = try state.receive(identity: frames[0], message)
        } catch {
            return .violation(error.description)
        }
        switch action {
        case .sendInit(let rank):
            try socket.send(frames: [frames[0], initMessage])
            return .hello(rank: rank)
        case .engineReady(let rank): return .ready(rank: rank)
        case .engineLost(let rank, let returns): return .lost(rank: rank, returns: returns)
        case .engineReturned(let rank): return .returned(rank: rank)
        }
    }
}
