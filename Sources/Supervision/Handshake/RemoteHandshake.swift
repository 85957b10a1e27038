import EngineProtocol
import Logging
import ZeroMQ

/// The handshake with the node of rank 0, which this node's supervisor does for its engines (hybrid load balancing).
///
/// A vLLM engine shakes hands twice in that mode: with rank 0, which has the coordinator, and with its own node, which
/// has the frontends. Our engines do it once, with their supervisor; it speaks for them at rank 0.
final class RemoteHandshake {
    private let address: String
    private let ranks: Range<Int>
    private let loop: EventLoop
    private let logger: Logger
    private var sockets: [ZMQSocket] = []
    private(set) var answers: [Int: EngineInitMessage] = [:]
    private var problem: String?

    init(address: String, ranks: Range<Int>, context: ZMQContext, loop: EventLoop, logger: Logger) throws {
        self.address = address
        self.ranks = ranks
        self.loop = loop
        self.logger = logger
        for rank in ranks {
            do {
                let socket = try ZMQSocket(.dealer, context: context)
                // READY has to get through even if it is the last thing that is sent here.
                try socket.setLinger(milliseconds: 5000)
                try socket.setIdentity(EngineIdentity.encode(rank: rank))
                try socket.setMaximumMessageSize(bytes: 1 << 20)
                if address.hasPrefix("tcp://[") { try socket.setIPv6(true) }
                try socket.connect(address)
                try send(.hello, on: socket)
                sockets.append(socket)
                loop.watch(try socket.eventDescriptor()) { [unowned self] in drain() }
            } catch {
                throw SupervisionError(.failure, "handshake with \(address): \(error)")
            }
        }
    }

    deinit { close() }

    /// Idempotent.
    func close() {
        for socket in sockets where !socket.isClosed {
            if let descriptor = try? socket.eventDescriptor() { loop.unwatch(descriptor) }
            socket.close()
        }
    }

    private func send(
        _ status: EngineHandshakeMessage.Status, hash: String? = nil, on socket: ZMQSocket
    ) throws(ZMQError) {
        try socket.send(
            EngineHandshakeMessage(status: status, isLocal: false, isHeadless: false, parallelConfigHash: hash)
                .encode())
    }

    private func drain() {
        for (rank, socket) in zip(ranks, sockets) where answers[rank] == nil && !socket.isClosed {
            do {
                guard let frames = try socket.receiveFrames(), let payload = frames.first else { continue }
                answers[rank] = try payload.withUnsafeBytes { try EngineInitMessage(decoding: $0) }
            } catch {
                problem = "the answer of \(address) for engine \(rank) is unreadable: \(error)"
            }
        }
    }

    /// Waits for rank 0's answers for all engines of this node.
    ///
    /// - Returns: the first; they say the same. Nil when interrupted.
    func waitForInit(timeout: Duration, isInterrupted: () -> Bool) throws -> EngineInitMessage? {
        logger.info("Waiting for the node of rank 0 at \(address)")
        loop.run(until: .now + timeout) {
            drain()
            return answers.count < ranks.count && problem == nil && !isInterrupted()
        }
        if isInterrupted() { return nil }
        if let problem { throw SupervisionError(.startupFailure, problem) }
        guard answers.count == ranks.count, let first = answers[ranks.lowerBound] else {
            throw SupervisionError(
                .startupFailure, "the node of rank 0 at \(address) has not answered within \(timeout.inSeconds) s")
        }
        return first
    }

    /// Tells rank 0 that the engines of this node are ready.
    func sendReady(hash: String?) throws {
        for socket in sockets {
            do { try send(.ready, hash: hash, on: socket) } catch {
                throw SupervisionError(.startupFailure, "handshake with \(address): \(error)")
            }
        }
        close()
    }
}
