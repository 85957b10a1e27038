import CProcessShims
import Glibc

/// A private unix socket (in the 0700 runtime directory) that leads to one frontend of several on the same port, for its
/// own `/metrics` and `/health`, and for load that shall reach this frontend alone (`ab --live`). It passes bytes on;
/// encrypted ones stay encrypted. Whoever begins with a zero byte is given the connection to the frontend itself instead, so
/// that nothing lies between the two.
package final class FrontendDoor {
    /// At a time; those that were handed over do not count.
    private static let mostConnections = 256
    /// Asks for the connection itself; no request begins with it, and no TLS handshake.
    private static let handOver: UInt8 = 0
    /// Everything happens on the loop's thread, so one place to read into is enough.
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)

    package let path: String
    private let target: HTTPListener
    private let group: ReusePortGroup
    private let loop: EventLoop
    private let listener: FileDescriptor
    private var passages: [ObjectIdentifier: Passage] = [:]

    package init(path: String, to target: HTTPListener, in group: ReusePortGroup, loop: EventLoop) throws {
        self.path = path
        self.target = target
        self.group = group
        self.loop = loop
        listener = try makePrivateListener(path: path)
        loop.watch(listener.rawValue) { [unowned self] in accept() }
    }

    deinit {
        close()
        buffer.deallocate()
    }

    /// A TCP connection to the frontend behind the door at `path`, made by its supervisor. Waits for it.
    package static func connection(through path: String) throws -> FileDescriptor {
        let socket = try makeStreamSocket(AF_UNIX)
        let address = try SocketAddress.unix(path: path)
        var request = handOver
        guard address.withPointer({ connect(socket.rawValue, $0, $1) }) == 0,
            send(socket.rawValue, &request, 1, Int32(MSG_NOSIGNAL)) == 1
        else { throw SupervisionError(.failure, "\(path): \(describeErrno(errno))") }
        let descriptor = cps_receive_descriptor(socket.rawValue)
        guard descriptor >= 0 else { throw SupervisionError(.failure, "\(path): \(describeErrno(errno))") }
        return FileDescriptor(owning: descriptor)
    }

    /// Idempotent.
    package func close() {
        guard listener.isOpen else { return }
        loop.unwatch(listener.rawValue)
        listener.close()
        unlink(path)
        for passage in passages.values { passage.close() }
        passages = [:]
    }

    private func accept() {
        guard let client = acceptConnection(listener) else { return }
        // Beyond the limit, or without the frontend, the client sees the end of its connection.
        guard passages.count < Self.mostConnections, let (server, settled) = try? group.connect(to: target) else {
            return
        }
        let passage = Passage(client, server, loop: loop, buffer: buffer, settled: settled)
        let id = ObjectIdentifier(passage)
        passage.onEnd = { [unowned self] in passages[id] = nil }
        passages[id] = passage
    }

    /// Two sockets, each of which gets what the other sends.
    private final class Passage {
        private final class Side {
            let socket: FileDescriptor
            /// Not written to this side yet.
            var pending: [UInt8] = []
            /// This side sends no more.
            var hasEnded = false
            var wasShut = false
            init(_ socket: FileDescriptor) { self.socket = socket }
        }

        private let client: Side
        private let server: Side
        private let loop: EventLoop
        private let buffer: UnsafeMutableRawBufferPointer
        private var settled: (() -> Void)?
        private var hasBegun = false
        var onEnd: (() -> Void)?

        /// - Parameter buffer: lives as long as the door.
        init(
            _ client: FileDescriptor, _ server: FileDescriptor, loop: EventLoop, buffer: UnsafeMutableRawBufferPointer,
            settled: @escaping () -> Void
        ) {
            self.client = Side(client)
            self.server = Side(server)
            self.loop = loop
            self.buffer = buffer
            self.settled = settled
            // Writable = connected, or failed, which the first read tells.
            loop.watch(server.rawValue, for: POLLOUT) { [unowned self] in
                self.settled?()
                self.settled = nil
                pump()
            }
        }

        func close() {
            settled?()
            settled = nil
            for side in [client, server] where side.socket.isOpen {
                loop.unwatch(side.socket.rawValue)
                side.socket.close()
            }
        }

        private func pump() {
            guard move(from: client, to: server), move(from: server, to: client) else {
                close()
                onEnd?()
                return
            }
            for (side, other) in [(client, server), (server, client)] {
                // Reading waits while the other side does not take what is there.
                let events =
                    (side.hasEnded || !other.pending.isEmpty ? 0 : POLLIN) | (side.pending.isEmpty ? 0 : POLLOUT)
                if events == 0 {
                    loop.unwatch(side.socket.rawValue)
                } else {
                    loop.watch(side.socket.rawValue, for: events) { [unowned self] in pump() }
                }
            }
        }

        private static let sendFlags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)

        /// Whether the passage goes on.
        private func move(from source: Side, to target: Side) -> Bool {
            if !source.hasEnded, target.pending.isEmpty {
                let count = recv(source.socket.rawValue, buffer.baseAddress, buffer.count, 0)
                if count > 0 {
                    if !hasBegun, source === client, buffer[0] == FrontendDoor.handOver {
                        // If that fails the client sees the end of its connection.
                        _ = cps_send_descriptor(client.socket.rawValue, server.socket.rawValue)
                        return false
                    }
                    hasBegun = true
                    // Mostly all of it goes out at once; only the rest is kept.
                    let sent = send(target.socket.rawValue, buffer.baseAddress, count, Self.sendFlags)
                    if sent < 0, errno != EAGAIN && errno != EINTR { return false }
                    target.pending = Array(buffer[max(sent, 0)..<count])
                } else if count == 0 {
                    source.hasEnded = true
                } else if errno != EAGAIN && errno != EINTR {
                    return false
                }
            }
            if !target.pending.isEmpty {
                let count = send(target.socket.rawValue, target.pending, target.pending.count, Self.sendFlags)
                if count > 0 {
                    target.pending.removeFirst(count)
                } else if errno != EAGAIN && errno != EINTR {
                    return false
                }
            }
            if source.hasEnded, target.pending.isEmpty, !target.wasShut {
                target.wasShut = true
                shutdown(target.socket.rawValue, Int32(SHUT_WR))
            }
            return !(source.hasEnded && target.hasEnded && source.pending.isEmpty && target.pending.isEmpty)
        }
    }
}
