import EngineHandshake
import EngineProtocol
import Glibc
import Logging
import Synchronization
import ZeroMQ

/// Answers the handshake of engines that others start, on a thread of its own, as long as the process lives: an engine
/// that is started again may come again.
///
/// What is not a handshake costs a log line and nothing else: anybody who reaches the port can send it.
final class HandshakeResponder: Sendable {
    /// Owned by the thread once it runs.
    private struct Parts: @unchecked Sendable {
        let socket: HandshakeSocket
    }

    let address: String
    private let parts: Parts
    private let wakeup: WakeupDescriptor
    private let logger: Logger
    private let isStopping = Atomic(false)
    private static let loggedViolations = 16

    /// - Parameter address: `tcp://host:port`; port 0 lets the kernel choose.
    init(
        address: String, initMessage: EngineInitMessage, engineCount: Int, context: ZMQContext, logger: Logger
    ) throws(ZMQError) {
        let state = HandshakeState(ranks: 0..<engineCount, localRanks: 0..<0, mayReturn: true)
        let socket = try HandshakeSocket(address: address, initMessage: initMessage, state: state, context: context)
        wakeup = try WakeupDescriptor()
        self.address = socket.address
        parts = Parts(socket: socket)
        self.logger = logger
    }

    func start() throws(ZMQError) {
        try startDetachedThread(named: "handshake", owning: self) { $0.run() }
    }

    /// Ends the thread, which gives up the port.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        wakeup.signal()
    }

    private func run() {
        let poller = ZMQPoller()
        var violations = 0
        do throws(ZMQError) {
            _ = poller.add(descriptor: wakeup.descriptor)
            _ = try poller.add(parts.socket.socket)
            while !isStopping.load(ordering: .acquiring) {
                try poller.wait(milliseconds: -1)
                while let frames = try parts.socket.receive() {
                    do throws(ZMQError) {
                        switch try parts.socket.handle(frames) {
                        case .hello(let rank): logger.info("engine \(rank) has connected and loads its model")
                        case .ready(let rank): logger.info("engine \(rank) says that it is ready")
                        case .lost(let rank, let returns):
                            logger.warning("engine \(rank) has died\(returns ? " and will be started again" : "")")
                            try parts.socket.answer(EngineReturnAnswer(), toRank: rank)
                        case .returned: break  // HELLO is taken at any time here
                        case .violation(let text):
                            violations += 1
                            if violations <= Self.loggedViolations { logger.error("handshake: \(text)") }
                        }
                    } catch {
                        logger.error("an engine cannot be answered: \(error)")
                    }
                }
            }
        } catch {
            logger.error("the handshake socket failed: \(error)")
        }
        poller.removeAll()
        parts.socket.close()
    }
}
