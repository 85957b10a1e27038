import EngineClient
import JSONBytes
import Logging
import Metrics
import NIOCore
import NIOHTTP1

/// One client connection: reads requests one after the other, bounds them, and hands them to their routes.
///
/// Sits behind NIO's request decoder and writes responses as finished bytes. Pipelined requests wait until the response
/// before theirs has ended.
final class HTTPConnection: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = Never
    typealias OutboundOut = ByteBuffer

    private enum State {
        /// Waiting for a request head.
        case idle
        /// Reading the body of the current exchange.
        case receiving
        /// The current exchange has its whole request.
        case responding
        /// The response is out, the rest of its request is thrown away.
        case discarding
        /// The last response is out; waiting for the client to take it.
        case closing
    }

    private let service: HTTPService
    private let loopState: LoopState
    private let meter: RequestByteMeter
    private var context: ChannelHandlerContext?
    private var state = State.idle
    /// A request has come.
    private var wasUsed = false
    private var exchange: HTTPExchange?
    private var handler: (any RouteHandler)?
    private var path = ""
    private var query = ""
    private var body = ByteBuffer()
    private var discarded = 0
    private var waitingParts = CircularBuffer<HTTPServerRequestPart>()
    private var isProcessing = false
    private var readIsHeldBack = false
    private var timer: Scheduled<Void>?
    private(set) var peer = "-"
    private var socket = DirectSocket()

    /// Decoded parts of later requests after which the socket is not read any more.
    private static let waitingPartLimit = 32

    init(service: HTTPService, loopState: LoopState, meter: RequestByteMeter) {
        self.service = service
        self.loopState = loopState
        self.meter = meter
    }

    // MARK: - Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { activate(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        activate(context)
        context.fireChannelActive()
    }

    private func activate(_ context: ChannelHandlerContext) {
        guard timer == nil, state == .idle else { return }
        peer = context.remoteAddress.map(\.shortDescription) ?? "-"
        loopState.add(self)
        socket.attach(context.channel)
        startIdleTimer()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        timer = nil
        loopState.remove(self)
        socket = DirectSocket()
        let exchange = exchange
        self.exchange = nil
        handler = nil
        waitingParts.removeAll()
        state = .closing
        exchange?.clientGone()
        context.fireChannelInactive()
        self.context = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        waitingParts.append(unwrapInboundIn(data))
        processParts()
    }

    func read(context: ChannelHandlerContext) {
        if state == .responding, waitingParts.count > Self.waitingPartLimit {
            readIsHeldBack = true
        } else {
            context.read()
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { exchange?.becameWritable() }
        context.fireChannelWritabilityChanged()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch error {
        case HTTPParserError.headerOverflow:
            refuseBytes(
                APIError(
                    status: .requestHeaderFieldsTooLarge, type: "RequestHeaderFieldsTooLarge",
                    message: "The request has too many header fields or too many bytes in them."))
        case is HTTPParserError, is NIOHTTPDecoderError:
            refuseBytes(.invalidBody("Invalid HTTP request received."))
        default:
            // Resets, TLS alerts and the like: nobody is left to answer.
            context.close(promise: nil)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed {
            context.close(promise: nil)
        }
        context.fireUserInboundEventTriggered(event)
    }

    // MARK: - Requests

    private func processParts() {
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        while state != .responding, let part = waitingParts.popFirst() {
            switch part {
            case .head(let head): receiveHead(head)
            case .body(let bytes): receiveBody(bytes)
            case .end: receiveEnd()
            }
        }
        if readIsHeldBack, waitingParts.count <= Self.waitingPartLimit {
            readIsHeldBack = false
            context?.read()
        }
    }

    private func receiveHead(_ head: HTTPRequestHead) {
        guard state == .idle else { return }
        timer?.cancel()
        timer = nil
        state = .receiving
        wasUsed = true
        body = ByteBuffer()
        meter.startBody()
        let uri = head.uri.prefix { $0 != "#" }
        let mark = uri.firstIndex(of: "?") ?? uri.endIndex
        path = service.routePath(of: uri[..<mark])
        query = mark < uri.endIndex ? String(uri[uri.index(after: mark)...]) : ""
        let entry = service.router.entry(for: path)
        let exchange = HTTPExchange(
            head: head, entry: entry, connection: self, service: service, loopState: loopState)
        self.exchange = exchange
        let check = HeadCheck(service: service, head: head, path: path, query: query, entry: entry)
        if let refusal = check.refusal() { return send(refusal, as: exchange) }
        handler = entry?.handler(for: head.method)
        if head.headers[canonicalForm: "expect"].contains(where: { $0.lowercased() == "100-continue" }),
            head.version != .http1_0
        {
            write(ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n"), flush: true)
        }
        startBodyTimer()
    }

    private func send(_ refusal: HeadCheck.Refusal, as exchange: HTTPExchange) {
        if refusal.breaksConnection { isBroken = true }
        exchange.isDecorated = refusal.isDecorated
        exchange.endCause = refusal.endCause
        switch refusal.answer {
        case .error(let error): exchange.send(error)
        case .text(let status, let contentType, let headers, let text):
            exchange.send(
                status: status, contentType: contentType, headers: headers, body: ByteBuffer(string: text))
        }
    }

    private func receiveBody(_ bytes: ByteBuffer) {
        switch state {
        case .receiving:
            guard let exchange else { return }
            exchange.requestBytes += bytes.readableBytes
            let limit = service.limits.maxBodyBytes
            if limit > 0, exchange.requestBytes > limit {
                body = ByteBuffer()
                exchange.send(.bodyTooLarge(limit: limit))
            } else if body.readableBytes == 0 {
                body = bytes
            } else {
                body.writeImmutableBuffer(bytes)
            }
        case .discarding:
            discarded += bytes.readableBytes
            if discarded > service.limits.maxDiscardedBody { closeAfterWrites() }
        case .idle, .responding, .closing: break
        }
    }

    private func receiveEnd() {
        switch state {
        case .receiving:
            guard let exchange, let handler else { return }
            timer?.cancel()
            timer = nil
            state = .responding
            let request = HTTPRequest(
                method: exchange.head.method, path: path, query: query, headers: exchange.head.headers, body: body)
            body = ByteBuffer()
            self.handler = nil
            exchange.begin()
            if service.context.configuration.enableLogRequests, exchange.entry?.options.contains(.work) == true {
                service.logger.info("\(peer) - received \(path), \(exchange.requestBytes) bytes")
            }
            handler.handle(request, exchange)
        case .discarding:
            becomeIdle()
        case .idle, .responding, .closing: break
        }
    }

    /// The bytes are not HTTP, or more than allowed: one last answer, then the end.
    private func refuseBytes(_ error: APIError) {
        guard state != .closing, context != nil else { return }
        if let exchange, !exchange.hasEnded {
            if exchange.hasStartedStream || state == .responding {
                // A broken follow-up request must not disturb the answer that is being written.
                waitingParts.removeAll()
                closesAfterResponse = true
                return
            }
            isBroken = true
            exchange.send(error)
            return
        }
        isBroken = true
        let head = HTTPRequestHead(version: .http1_1, method: .RAW(value: "-"), uri: "-")
        let exchange = HTTPExchange(
            head: head, entry: nil, connection: self, service: service, loopState: loopState)
        self.exchange = exchange
        exchange.send(error)
    }

    private var closesAfterResponse = false
    /// The byte stream cannot be parsed any further, or not be trusted.
    private var isBroken = false

    // MARK: - For the exchange

    /// False as soon as the client does not take what is written: a stream's tokens are then cheaper to keep unwritten.
    var isWritable: Bool { socket.isDirect ? socket.isIdle : context?.channel.isWritable ?? false }

    /// The socket, when nothing else is on the way to it.
    var idleDescriptor: Int32? { socket.idleDescriptor }

    var unsentBytes: Int {
        guard let options = context?.channel.syncOptions else { return 0 }
        return (try? options.getOption(.bufferedWritableBytes)) ?? 0
    }

    func allocate(_ capacity: Int) -> ByteBuffer {
        context?.channel.allocator.buffer(capacity: capacity) ?? ByteBuffer()
    }

    func write(_ buffer: ByteBuffer, flush: Bool) {
        var rest = buffer
        if flush, socket.send(&rest) { return }
        guard let context else { return }
        let written = context.eventLoop.makePromise(of: Void.self)
        socket.channelTakesOver()
        context.write(wrapOutboundOut(rest), promise: written)
        written.futureResult.assumeIsolated().whenComplete { [self] _ in
            socket.channelIsDone()
            // Nothing is sent from here, see `DirectSocket`.
            guard socket.isIdle, exchange != nil else { return }
            loopState.loop.assumeIsolated().execute { if self.isWritable { self.exchange?.becameWritable() } }
        }
        if flush { context.flush() }
    }

    /// Whether the response must announce that the connection ends with it.
    func mustCloseAfter(_ exchange: HTTPExchange) -> Bool {
        let head = exchange.head
        if closesAfterResponse || isBroken || !head.isKeepAlive || service.limits.keepAliveTimeout == .zero
            || service.context.life.phase != .serving || head.headers.contains(name: "upgrade")
        {
            return true
        }
        guard state == .receiving else { return false }
        // Answered before the request was complete: only a short rest is worth reading.
        if head.headers.contains(name: "transfer-encoding") || head.headers.contains(name: "expect") { return true }
        guard let length = head.headers.first(name: "content-length") else { return false }
        return (Int(length) ?? .max) > service.limits.maxDiscardedBody
    }

    func responseEnded(_ exchange: HTTPExchange, close: Bool) {
        guard self.exchange === exchange else { return }
        self.exchange = nil
        handler = nil
        if close || closesAfterResponse || service.context.life.phase != .serving {
            closeAfterWrites()
        } else if state == .receiving {
            state = .discarding
            discarded = 0
        } else {
            becomeIdle()
            processParts()
        }
    }

    /// Gives up on a client that does not read.
    func drop() {
        context?.close(promise: nil)
    }

    // MARK: - Life of the connection

    private func becomeIdle() {
        if service.context.life.phase != .serving {
            closeAfterWrites()
            return
        }
        state = .idle
        meter.startHead()
        if waitingParts.isEmpty { startIdleTimer() }
    }

    /// Closes once everything is written and, if the client is still sending, after a moment in which it can read the
    /// response: closing with unread input resets the connection and may destroy what was just written.
    private func closeAfterWrites() {
        guard let context else { return }
        let requestIsComplete = state == .responding || state == .idle
        state = .closing
        waitingParts.removeAll()
        timer?.cancel()
        timer = nil
        // An empty write comes back when everything before it has reached the socket.
        let written = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
        written.futureResult.assumeIsolated().whenComplete { _ in
            guard let context = self.context else { return }
            if requestIsComplete && !self.isBroken {
                context.close(promise: nil)
            } else {
                context.close(mode: .output, promise: nil)
                self.schedule(after: self.service.limits.lingerTimeout) { $0.context?.close(promise: nil) }
            }
        }
    }

    /// Ends an idle connection; a busy one ends with its response, and one that was never used with its first: that may
    /// be on its way, and clients repeat only what was lost on a connection that they had used before.
    func drain() {
        if state == .idle, wasUsed, !meter.hasBytesOfHead { closeAfterWrites() }
    }

    /// Gives an idle connection a last chance to be used; a busy one ends with its response.
    func leave() {
        if state == .idle, !meter.hasBytesOfHead { startIdleTimer() }
    }

    /// Ends the current exchange with an error that names the shutdown.
    func terminate(_ error: APIError) {
        if let exchange, !exchange.hasEnded {
            exchange.terminate(error, cause: "shutdown")
        } else if state != .closing {
            closeAfterWrites()
        }
    }

    /// Ends the current request if it makes an engine work and its id is one of `ids` (or `ids` is empty).
    func abort(ids: [String]) -> Bool {
        guard let exchange, !exchange.hasEnded, exchange.entry?.options.contains(.work) == true else { return false }
        if !ids.isEmpty {
            // Clients know the id with or without the prefix of its answer.
            guard let id = exchange.requestID, ids.contains(where: { id == $0 || id.hasSuffix("-" + $0) })
            else { return false }
        }
        exchange.abort()
        return true
    }

    // MARK: - Timers

    private func schedule(after delay: TimeAmount, _ body: @escaping (HTTPConnection) -> Void) {
        timer?.cancel()
        // Not weak: that would make every later retain of the connection slow. The timer ends with the channel.
        timer = loopState.loop.assumeIsolated().scheduleTask(in: delay) { [self] in
            if context != nil { body(self) }
        }
    }

    private func startIdleTimer() {
        var idle = service.limits.keepAliveTimeout
        if service.context.life.phase == .leaving { idle = min(idle, service.limits.headTimeout) }
        schedule(after: idle == .zero ? service.limits.headTimeout : idle) { connection in
            guard connection.state == .idle else { return }
            guard connection.meter.hasBytesOfHead else { return connection.closeAfterWrites() }
            // A head that is under way gets its own time.
            connection.schedule(after: connection.service.limits.headTimeout) { connection in
                guard connection.state == .idle else { return }
                connection.refuseBytes(.requestTimeout("The request head did not arrive in time."))
            }
        }
    }

    private func startBodyTimer(progress: Int = 0) {
        schedule(after: service.limits.bodyTimeout) { connection in
            guard connection.state == .receiving, let exchange = connection.exchange else { return }
            if exchange.requestBytes >= progress + connection.service.limits.minBodyProgress {
                connection.startBodyTimer(progress: exchange.requestBytes)
            } else {
                connection.isBroken = true
                exchange.send(.requestTimeout("The request body did not arrive in time."))
            }
        }
    }
}
