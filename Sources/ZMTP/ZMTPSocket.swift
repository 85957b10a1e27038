import Glibc
import NIOCore
import NIOPosix

/// A ZeroMQ socket on an event loop: what libzmq's sockets do for us, without its I/O thread between the peer and the loop.
///
/// Everything but ``open(_:)`` happens on the loop. What a peer has not read yet is queued up to a number of bytes, where
/// libzmq counts messages. Its callbacks keep nothing alive after ``close(linger:)``.
package final class ZMTPSocket: @unchecked Sendable {
    package enum Kind: String, Sendable {
        case router = "ROUTER"
        case pull = "PULL"
        case xsub = "XSUB"

        func accepts(_ peer: String) -> Bool {
            switch self {
            case .router: ["DEALER", "REQ", "ROUTER"].contains(peer)
            case .pull: peer == "PUSH"
            case .xsub: ["PUB", "XPUB"].contains(peer)
            }
        }
    }

    package enum Origin: Sendable {
        /// A bound stream socket, listening or not, which belongs to this object from here on.
        case listener(descriptor: Int32)
        /// An address to bind; a socket file that is in the way is replaced, and ours is removed at the end.
        case bind(String)
    }

    package let kind: Kind
    package let eventLoop: any EventLoop
    let maximumMessageSize: Int64
    let maximumQueuedBytes: Int

    /// A message of a peer.
    package var onMessage: (ZMTPMessage, ZMTPConnection) -> Void = { _, _ in }
    /// All messages that had arrived have been handed out.
    package var onReadComplete: () -> Void = {}
    /// A peer finished the handshake.
    package var onOpen: (ZMTPConnection) -> Void = { _ in }
    /// The connection of a peer that had finished the handshake has ended.
    package var onClose: (ZMTPConnection) -> Void = { _ in }
    /// A peer with an identity that had left too much unread has read it.
    package var onCaughtUp: ([UInt8]) -> Void = { _ in }
    /// A peer that does not keep to the protocol was disconnected, or the socket cannot accept.
    package var onViolation: (String) -> Void = { _ in }

    private let message = ZMTPMessage()
    private var listener: (any Channel)?
    private var ownedPath: String?
    private var connections: [ObjectIdentifier: ZMTPConnection] = [:]
    /// ROUTER: the open connection of each peer that has an identity.
    private var routes: [[UInt8]: ZMTPConnection] = [:]
    var unflushed: [ZMTPConnection] = []
    private var isClosed = false
    /// XSUB: where to connect again.
    private var remote: SocketAddress?

    /// The step of an engine with a thousand requests fits into one read. A peer that is ahead of us fills several: they are
    /// handed out together, and other work of the loop has its turn after half a megabyte.
    private static let readSize = 1 << 15
    private static let readsPerTurn: UInt = 16
    private static let acceptPause = TimeAmount.milliseconds(50)
    private static let reconnectPause = TimeAmount.milliseconds(100)

    /// - Parameters:
    ///   - maximumMessageSize: bytes; a peer that sends more is disconnected.
    ///   - maximumQueuedBytes: what one peer may leave unread before messages for it are refused.
    package init(
        _ kind: Kind, on eventLoop: any EventLoop, maximumMessageSize: Int64 = 1 << 30,
        maximumQueuedBytes: Int = 1 << 28
    ) {
        self.kind = kind
        self.eventLoop = eventLoop
        self.maximumMessageSize = maximumMessageSize
        self.maximumQueuedBytes = maximumQueuedBytes
    }

    // MARK: - Endpoints

    /// Accepts connections. Blocks, so not on an event loop.
    /// - Returns: the address for peers.
    package func open(_ origin: Origin) throws(ZMTPError) -> String {
        do {
            let channel: any Channel
            var path: String?
            switch origin {
            case .listener(let descriptor):
                channel = try bootstrap(tcp: isTCP(descriptor)).withBoundSocket(descriptor).wait()
            case .bind(let text):
                switch try ZMTPEndpoint(text) {
                case .unix(let own):
                    channel = try bootstrap(tcp: false)
                        .bind(unixDomainSocketPath: own, cleanupExistingSocketFile: true).wait()
                    path = own
                case .tcp(let host, let port): channel = try bootstrap(tcp: true).bind(host: host, port: port).wait()
                }
            }
            try eventLoop.submit { [path] in (self.listener, self.ownedPath) = (channel, path) }.wait()
            guard let address = ZMTPEndpoint.text(of: channel.localAddress) else {
                throw ZMTPError("the socket has no address that peers could use")
            }
            return address
        } catch let error as ZMTPError {
            throw error
        } catch {
            throw ZMTPError("\(origin): \(error)")
        }
    }

    private func bootstrap(tcp: Bool) -> ServerBootstrap {
        let bootstrap = ServerBootstrap(group: eventLoop)
            .serverChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptErrors(self))
                }
            }
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.readSize))
            .childChannelOption(.maxMessagesPerRead, value: Self.readsPerTurn)
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ZMTPConnection(self))
                }
            }
        guard tcp else { return bootstrap }
        return bootstrap.serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
    }

    private func isTCP(_ descriptor: Int32) throws(ZMTPError) -> Bool {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard result == 0 else {
            throw ZMTPError("getsockname of listener \(descriptor): \(String(cString: strerror(errno)))")
        }
        return Int32(storage.ss_family) != AF_UNIX
    }

    /// Connects, and again whenever the connection breaks.
    package func connect(to text: String) throws(ZMTPError) {
        remote = try ZMTPEndpoint(text).socketAddress()
        reconnect()
    }

    private func reconnect() {
        guard !isClosed, let remote else { return }
        ClientBootstrap(group: eventLoop)
            .channelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ZMTPConnection(self))
                }
            }
            .connect(to: remote)
            .whenFailure { [self] _ in reconnectLater() }
    }

    private func reconnectLater() {
        eventLoop.scheduleTask(in: Self.reconnectPause) { [self] in reconnect() }
    }

    // MARK: - For connections

    func connected(_ connection: ZMTPConnection) {
        if isClosed { return connection.close() }
        connections[ObjectIdentifier(connection)] = connection
    }

    func opened(_ connection: ZMTPConnection) {
        if kind == .router, !connection.identity.isEmpty {
            // A restarted peer has the identity of the dead one, whose connection may not be gone yet.
            let former = routes.updateValue(connection, forKey: connection.identity)
            former?.close()
        }
        onOpen(connection)
    }

    func disconnected(_ connection: ZMTPConnection) {
        connections[ObjectIdentifier(connection)] = nil
        if routes[connection.identity] === connection { routes[connection.identity] = nil }
        if connection.wasOpen { onClose(connection) }
        if remote != nil, !isClosed { reconnectLater() }
    }

    func caughtUp(_ connection: ZMTPConnection) {
        if routes[connection.identity] === connection { onCaughtUp(connection.identity) }
    }

    func hand(out frames: [Range<Int>], in bytes: UnsafeRawBufferPointer, from connection: ZMTPConnection) {
        guard !isClosed else { return }
        message.begin(frames, in: bytes)
        onMessage(message, connection)
        message.end()
    }

    // MARK: - Sending

    package enum SendResult: Sendable {
        case queued
        /// Nobody with that identity is connected.
        case noPeer
        /// It has left too much unread; ``onCaughtUp`` tells when messages are taken again.
        case peerIsBehind
    }

    /// ROUTER: queues a message for the peer with that identity.
    /// - Parameter always: also for a peer that has left too much unread.
    package func send(
        _ frames: [UnsafeRawBufferPointer], to identity: [UInt8], always: Bool = false
    ) -> SendResult {
        guard let connection = routes[identity] else { return .noPeer }
        return connection.write(frames: frames, always: always) ? .queued : .peerIsBehind
    }

    /// Queues a message for every peer.
    /// - Returns: false if there is none that takes it.
    package func sendToAll(_ frame: [UInt8]) -> Bool {
        var taken = false
        for connection in connections.values where send(frame, to: connection) { taken = true }
        return taken
    }

    /// Queues a message for a peer.
    /// - Returns: false if it has left too much unread.
    @discardableResult
    package func send(_ frame: [UInt8], to connection: ZMTPConnection) -> Bool {
        frame.withUnsafeBytes { connection.write(frames: [$0]) }
    }

    /// Sends what is queued.
    package func flush() {
        guard !unflushed.isEmpty else { return }
        for connection in unflushed { connection.flush() }
        unflushed.removeAll(keepingCapacity: true)
    }

    // MARK: - End

    /// - Parameter linger: how long peers may take for what is queued for them.
    package func close(linger: TimeAmount = .zero) {
        guard !isClosed else { return }
        isClosed = true
        (onMessage, onReadComplete, onOpen, onClose, onViolation) = ({ _, _ in }, {}, { _ in }, { _ in }, { _ in })
        onCaughtUp = { _ in }
        flush()
        listener?.close(promise: nil)
        listener = nil
        if let ownedPath { unlink(ownedPath) }
        let rest = Array(connections.values)
        for connection in rest { connection.close(afterWrites: linger > .zero) }
        if linger > .zero, !rest.isEmpty {
            eventLoop.assumeIsolated().scheduleTask(in: linger) { for connection in rest { connection.close() } }
        }
    }

    /// Lets waiting connections wait while the process has no descriptors left: they would be tried at full speed.
    fileprivate func acceptFailed(_ error: any Error, _ channel: any Channel) {
        onViolation("no connection can be accepted: \(error)")
        try? channel.syncOptions?.setOption(.autoRead, value: false)
        eventLoop.scheduleTask(in: Self.acceptPause) { try? channel.syncOptions?.setOption(.autoRead, value: true) }
    }
}

private final class AcceptErrors: ChannelInboundHandler {
    typealias InboundIn = any Channel
    private let socket: ZMTPSocket
    init(_ socket: ZMTPSocket) { self.socket = socket }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { socket.acceptFailed(error, context.channel) }
}
