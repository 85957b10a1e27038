import Glibc
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// Where the server listens.
package enum ListenTarget: Sendable, Equatable {
    /// An inherited stream socket, TCP or unix, that is bound; it need not listen yet.
    case descriptor(Int32)
    case address(host: String, port: Int)
    case unixSocket(path: String)
}

/// An accepting socket. One event loop accepts; the connections are dealt to all loops of the group.
package final class HTTPListener: Sendable {
    package static let backlog: Int32 = 2048

    private let channel: any Channel
    private let loops: [any EventLoop]

    package var localAddress: SocketAddress? { channel.localAddress }

    private init(channel: any Channel, loops: [any EventLoop]) {
        self.channel = channel
        self.loops = loops
    }

    package static func start(
        on target: ListenTarget, service: HTTPService, group: any EventLoopGroup, tls: TLSContextBox? = nil
    ) throws -> HTTPListener {
        let isTCP = try target.isTCP()
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: backlog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptPause(logger: service.logger))
                }
            }
            .childChannelOption(.maxMessagesPerRead, value: 4)
            // Unix sockets have no such option and would refuse it.
            .childChannelOptions(tcp: isTCP)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try Self.configure(channel, service: service, tls: tls)
                }
            }
        let channel: any Channel
        switch target {
        case .descriptor(let descriptor):
            channel = try bootstrap.withBoundSocket(descriptor).wait()
            // NIO listens with its own default; the second call restores the long queue.
            guard listen(descriptor, backlog) == 0 else { throw IOError(errnoCode: errno, reason: "listen") }
        case .address(let host, let port):
            channel = try bootstrap.bind(host: host, port: port).wait()
        case .unixSocket(let path):
            channel = try bootstrap.bind(unixDomainSocketPath: path, cleanupExistingSocketFile: true).wait()
        }
        return HTTPListener(channel: channel, loops: Array(group.makeIterator()))
    }

    /// The pipeline of one connection; tests put it on an embedded channel.
    package static func configure(_ channel: any Channel, service: HTTPService, tls: TLSContextBox? = nil) throws {
        let pipeline = channel.pipeline.syncOperations
        if let tls { try pipeline.addHandler(NIOSSLServerHandler(context: tls.current)) }
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = max(1, service.limits.maxHeaderBytes)
        limits.maxHeaderListSize = max(1, service.limits.maxHeaderBytes)
        limits.maxHeaderFieldCount = max(1, service.limits.maxHeaderCount)
        let meter = RequestByteMeter(limits: service.limits)
        try pipeline.addHandler(meter)
        try pipeline.addHandler(ByteToMessageHandler(HTTPRequestDecoder(limitConfiguration: limits)))
        let connection = HTTPConnection(
            service: service, loopState: service.context.state(for: channel.eventLoop), meter: meter)
        try pipeline.addHandler(connection)
    }

    /// Stops accepting. Connections stay, also those that were accepted a moment ago: NIO would drop what is still on its
    /// way from this channel's loop to its own, so that way is given time to become empty first.
    package func close() -> EventLoopFuture<Void> {
        let channel = channel
        let loops = loops
        return channel.setOption(.autoRead, value: false).flatMap {
            EventLoopFuture.andAllComplete(loops.map { $0.submit {} }, on: channel.eventLoop)
        }.flatMap {
            channel.close()
        }.flatMapErrorThrowing { error in
            guard case ChannelError.alreadyClosed = error else { throw error }
        }
    }
}

extension ServerBootstrap {
    fileprivate func childChannelOptions(tcp: Bool) -> ServerBootstrap {
        guard tcp else { return self }
        return childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
    }
}

extension ListenTarget {
    /// Also proves that an inherited descriptor is a bound stream socket.
    fileprivate func isTCP() throws -> Bool {
        switch self {
        case .address: return true
        case .unixSocket: return false
        case .descriptor(let descriptor):
            var kind: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            guard getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &kind, &length) == 0 else {
                throw ServerSetupError("descriptor \(descriptor) is not a socket: \(String(cString: strerror(errno)))")
            }
            guard kind == Int32(SOCK_STREAM.rawValue) else {
                throw ServerSetupError("descriptor \(descriptor) is not a stream socket")
            }
            var storage = sockaddr_storage()
            length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let result = withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
            }
            guard result == 0 else {
                throw ServerSetupError("getsockname(\(descriptor)): \(String(cString: strerror(errno)))")
            }
            switch Int32(storage.ss_family) {
            case AF_INET, AF_INET6: return true
            case AF_UNIX: return false
            default:
                throw ServerSetupError("descriptor \(descriptor) has the unknown address family \(storage.ss_family)")
            }
        }
    }
}

/// The listening socket cannot be used.
package struct ServerSetupError: Error, CustomStringConvertible, Sendable {
    package let description: String
    package init(_ description: String) { self.description = description }
}

extension SocketAddress {
    /// `127.0.0.1:8000`, `[::1]:8000`, or the path of a unix socket (`unix` if it has none).
    package var shortDescription: String {
        switch self {
        case .v4, .v6:
            let host = ipAddress ?? "?"
            return "\(host.contains(":") ? "[\(host)]" : host):\(port ?? 0)"
        case .unixDomainSocket:
            return pathname.flatMap { $0.isEmpty ? nil : $0 } ?? "unix"
        }
    }
}
