import Glibc
import JSONBytes
import Logging

/// The supervisor's own door: a unix socket (0600, in the private runtime directory) for `vllm-engine status`, `drain`
/// and `swap`. One request per connection: a line of JSON in, one or more lines of JSON out.
package final class ControlServer {
    package static let fileName = "control.sock"
    /// A request names a command and a few paths.
    static let longestRequest = 64 << 10
    private static let mostConnections = 32

    /// One client with its request; answers stay possible until it hangs up.
    package final class Exchange {
        fileprivate let socket: FileDescriptor
        fileprivate var bytes: [UInt8] = []
        fileprivate var timer: EventLoop.TimerID?
        private unowned let server: ControlServer

        fileprivate init(_ socket: FileDescriptor, server: ControlServer) {
            self.socket = socket
            self.server = server
        }

        /// Sends one line. A client that does not read loses its connection, not our time.
        package func send(_ reply: JSONObject) {
            guard socket.isOpen else { return }
            let line = Array((JSONValue.object(reply).serialized() + "\n").utf8)
            let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
            if Glibc.send(socket.rawValue, line, line.count, flags) != line.count { close() }
        }

        /// Sends the last line and hangs up.
        package func finish(_ reply: JSONObject) {
            send(reply)
            close()
        }

        /// Sends `{"error": ...}` and hangs up.
        package func fail(_ message: String) {
            finish(JSONObject([("error", .string(message))]))
        }

        package func close() { server.remove(self) }
    }

    private let listener: FileDescriptor
    private let loop: EventLoop
    private let handler: (JSONObject, Exchange) -> Void
    private var exchanges: [Int32: Exchange] = [:]

    /// - Parameter handler: called with each request; it answers through the exchange, now or later.
    package init(
        path: String, loop: EventLoop, handler: @escaping (_ request: JSONObject, _ exchange: Exchange) -> Void
    ) throws {
        self.loop = loop
        self.handler = handler
        listener = try makePrivateListener(path: path)
        loop.watch(listener.rawValue) { [unowned self] in accept() }
    }

    deinit { close() }

    /// Idempotent. Clients that wait for more see the end of their connection.
    package func close() {
        guard listener.isOpen else { return }
        loop.unwatch(listener.rawValue)
        listener.close()
        for exchange in exchanges.values { remove(exchange) }
    }

    private func accept() {
        while let socket = acceptConnection(listener) {
            guard exchanges.count < Self.mostConnections, isFromOwner(socket) else { continue }
            let exchange = Exchange(socket, server: self)
            exchanges[socket.rawValue] = exchange
            exchange.timer = loop.schedule(after: .seconds(5)) { [unowned exchange] in
                exchange.fail("no request within 5 s")
            }
            loop.watch(socket.rawValue) { [unowned self, unowned exchange] in read(exchange) }
        }
    }

    /// The file's mode already keeps others out; this holds even if somebody changed it.
    private func isFromOwner(_ socket: FileDescriptor) -> Bool {
        // `struct ucred`: pid, uid, gid.
        var peer: [UInt32] = [0, .max, .max]
        var length = socklen_t(MemoryLayout<UInt32>.size * peer.count)
        guard getsockopt(socket.rawValue, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 else { return false }
        return peer[1] == geteuid() || peer[1] == 0
    }

    private func read(_ exchange: Exchange) {
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = recv(exchange.socket.rawValue, &chunk, chunk.count, 0)
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else { return remove(exchange) }
        // A request that was already handled: more bytes mean nothing, the end is noticed above.
        guard exchange.timer != nil else { return }
        exchange.bytes += chunk[..<count]
        guard let end = exchange.bytes.firstIndex(of: UInt8(ascii: "\n")) else {
            if exchange.bytes.count > Self.longestRequest { exchange.fail("the request is too long") }
            return
        }
        loop.cancel(exchange.timer)
        exchange.timer = nil
        let text = String(decoding: exchange.bytes[..<end], as: UTF8.self)
        exchange.bytes = []
        guard let request = (try? JSONValue.parse(text, limits: JSONLimits(maximumDepth: 8)))?.objectValue else {
            return exchange.fail("the request is not a JSON object")
        }
        handler(request, exchange)
    }

    private func remove(_ exchange: Exchange) {
        guard exchange.socket.isOpen else { return }
        loop.cancel(exchange.timer)
        loop.unwatch(exchange.socket.rawValue)
        let descriptor = exchange.socket.rawValue
        exchange.socket.close()
        // Last: this may be the only owner.
        exchanges[descriptor] = nil
    }
}
