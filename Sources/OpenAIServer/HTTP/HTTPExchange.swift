import JSONBytes
import Metrics
import NIOCore
import NIOHTTP1

/// One request and its response on a connection. Lives on the connection's event loop.
///
/// After the response has ended, or the client has gone, every call is ignored.
package final class HTTPExchange: ResponseWriter {
    private enum State { case waiting, streaming, ended }

    package let eventLoop: any EventLoop
    package var requestID: String?
    package var endCause: String?
    package var onDisconnect: (() -> Void)?
    package var onAbort: (() -> Void)?
    package var onWritable: (() -> Void)?

    let head: HTTPRequestHead
    let entry: Router.Entry?
    /// Whether the middleware headers go on the response; the 401 of the key check comes from outside of them.
    var isDecorated = true
    var requestBytes = 0

    private let service: HTTPService
    private let loopState: LoopState
    /// nil once the response has ended.
    private var connection: HTTPConnection?
    private let started = NIODeadline.now()
    private var state = State.waiting
    private var status = 499
    private var responseBytes = 0
    private var countsAsInFlight = false
    private var isChunked = true
    /// The stream's head, until the first write takes it along.
    private var streamHead: ByteBuffer?
    /// The chunk under construction: room for its size line, then events. Reused after each write.
    private var pending = ByteBuffer()
    private var isFlushDeferred = false
    private var flushWhenWritable = false
    private var lastWrite = NIODeadline.now()
    private var keepAliveTimer: Scheduled<Void>?

    /// Eight hex digits and a line break.
    private static let sizeLineLength = 10

    init(
        head: HTTPRequestHead, entry: Router.Entry?, connection: HTTPConnection, service: HTTPService,
        loopState: LoopState
    ) {
        self.head = head
        self.entry = entry
        self.connection = connection
        self.service = service
        self.loopState = loopState
        eventLoop = loopState.loop
    }

    var hasEnded: Bool { state == .ended }
    var hasStartedStream: Bool { state == .streaming }

    /// Counts the request as running until its response has ended.
    func begin() {
        countsAsInFlight = true
        loopState.requestStarted()
        if entry?.options.contains(.work) == true { service.context.metrics.changeServerLoad(by: 1) }
    }

    package var isWritable: Bool { connection?.isWritable ?? false }
    package var bufferedBytes: Int { pending.readableBytes + (connection?.unsentBytes ?? 0) }

    // MARK: - Whole responses

    package func send(status: HTTPResponseStatus, contentType: String, headers: HTTPHeaders, body: ByteBuffer) {
        assert(state != .streaming, "a second response head")
        guard state == .waiting, let connection else { return }
        let close = connection.mustCloseAfter(self)
        var buffer = connection.allocate(512 + (body.readableBytes <= 1 << 16 ? body.readableBytes : 0))
        writeHead(status: status, framing: .length(body.readableBytes), contentType, close, headers, into: &buffer)
        self.status = Int(status.code)
        let hasBody = head.method != .HEAD && body.readableBytes > 0
        if hasBody, body.readableBytes > 1 << 16 {
            responseBytes = body.readableBytes
            connection.write(buffer, flush: false)
            connection.write(body, flush: true)
        } else {
            if hasBody {
                responseBytes = body.readableBytes
                buffer.writeImmutableBuffer(body)
            }
            connection.write(buffer, flush: true)
        }
        end(close: close)
    }

    private func writeHead(
        status: HTTPResponseStatus, framing: ResponseHead.Framing, _ contentType: String, _ close: Bool,
        _ headers: HTTPHeaders, into buffer: inout ByteBuffer
    ) {
        var middleware = HTTPHeaders()
        if isDecorated { service.cors.decorate(&middleware, origin: head.headers.first(name: "origin")) }
        if service.context.configuration.enableRequestIDHeaders {
            middleware.add(
                name: "x-request-id", value: head.headers.first(name: "x-request-id") ?? RandomID.hex(32))
        }
        ResponseHead.write(
            status: status, framing: framing, contentType: contentType.isEmpty ? nil : contentType,
            date: loopState.date(), close: close, announceKeepAlive: head.version == .http1_0,
            headers: [headers, middleware],
            into: &buffer)
    }

    // MARK: - Event streams

    package func startEventStream(headers: HTTPHeaders) {
        assert(state != .streaming, "a second response head")
        guard state == .waiting, let connection else { return }
        isChunked = head.version != .http1_0
        let close = !isChunked || connection.mustCloseAfter(self)
        var buffer = connection.allocate(512)
        var headers = headers
        headers.add(name: "cache-control", value: "no-cache")
        status = 200
        state = .streaming
        closesAfterStream = close
        writeHead(
            status: .ok, framing: isChunked ? .chunked : .untilClose, "text/event-stream; charset=utf-8", close,
            headers, into: &buffer)
        streamHead = buffer
        pending = connection.allocate(2048)
        scheduleKeepAlive()
    }

    private var closesAfterStream = false

    package func appendEvents(_ body: (inout ByteBuffer) -> Void) {
        assert(state != .waiting, "events before the stream has started")
        guard state == .streaming else { return }
        reserveSizeLine()
        body(&pending)
    }

    private func reserveSizeLine() {
        if isChunked, pending.readableBytes == 0 {
            pending.clear()
            pending.appendLiteral("00000000\r\n")
        }
    }

    package func flush() {
        guard state == .streaming, !isFlushDeferred else { return }
        if loopState.isDelivering {
            isFlushDeferred = true
            loopState.flushAfterDelivery(self)
        } else {
            writePending(last: false)
        }
    }

    /// The loop has handed out its batch.
    func flushDeferred() {
        isFlushDeferred = false
        if state == .streaming { writePending(last: false) }
    }

    /// As ``flushDeferred()``, but leaves the sending to the batch where it can; ``sent(_:)`` says what came of it, and
    /// nothing happens in between.
    /// - Returns: whether the batch has it now.
    func flushDeferred(with batch: SendBatch) -> Bool {
        guard state == .streaming, streamHead == nil, let descriptor = connection?.idleDescriptor else {
            flushDeferred()
            return false
        }
        isFlushDeferred = false
        finishChunk()
        guard pending.readableBytes > 0 else { return false }
        batch.add(pending, to: descriptor)
        return true
    }

    /// - Parameter count: what the socket has taken, in bytes; negative if nothing, because of an error.
    func sent(_ count: Int) {
        guard let connection else { return }
        responseBytes += pending.readableBytes
        pending.moveReaderIndex(forwardBy: max(0, count))
        // Errors are met again there.
        if pending.readableBytes > 0 { connection.write(pending, flush: true) }
        pending.clear()
        if keepAliveTimer != nil { lastWrite = eventLoop.now }
    }

    package func endEventStream() {
        assert(state != .waiting, "the end of a stream that has not started")
        guard state == .streaming else { return }
        writePending(last: true)
        if state != .ended { end(close: closesAfterStream) }
    }

    /// Writes the pending chunk with one call. A client that does not read gets nothing more until it does; events
    /// coalesce meanwhile, up to a limit.
    private func writePending(last: Bool) {
        guard let connection else { return }
        if !last, !connection.isWritable {
            flushWhenWritable = true
            if bufferedBytes > service.limits.maxStreamBacklog { dropSlowReader() }
            return
        }
        finishChunk()
        if last, isChunked { pending.appendLiteral("0\r\n\r\n") }
        if var head = streamHead {
            streamHead = nil
            head.writeBuffer(&pending)
            responseBytes += head.readableBytes
            connection.write(head, flush: true)
        } else if pending.readableBytes > 0 {
            responseBytes += pending.readableBytes
            connection.write(pending, flush: true)
        }
        pending.clear()
        if keepAliveTimer != nil { lastWrite = eventLoop.now }
    }

    /// Puts the size in front of the events; no leading zeros, so the chunk starts at the first digit.
    private func finishChunk() {
        guard isChunked, pending.readableBytes > 0 else { return }
        let start = pending.readerIndex
        let size = pending.readableBytes - Self.sizeLineLength
        guard size > 0 else { return pending.clear() }
        pending.appendLiteral("\r\n")
        var rest = size
        var position = start + Self.sizeLineLength - 2
        repeat {
            position -= 1
            let digit = UInt8(rest & 0xF)
            pending.setInteger(digit < 10 ? 0x30 + digit : 0x57 + digit, at: position)
            rest >>= 4
        } while rest > 0
        pending.moveReaderIndex(to: position)
    }

    private func scheduleKeepAlive() {
        let interval = service.context.configuration.sseKeepAliveInterval
        guard interval > 0 else { return }
        lastWrite = eventLoop.now
        scheduleKeepAlive(after: .nanoseconds(Int64(min(interval, 1e6) * 1e9)))
    }

    private func scheduleKeepAlive(after delay: TimeAmount) {
        let interval = Int64(min(service.context.configuration.sseKeepAliveInterval, 1e6) * 1e9)
        keepAliveTimer = eventLoop.assumeIsolated().scheduleTask(in: delay) { [weak self] in
            guard let self, self.state == .streaming else { return }
            let idle = self.eventLoop.now - self.lastWrite
            if idle.nanoseconds >= interval {
                self.appendEvents { $0.appendLiteral(": keep-alive\n\n") }
                self.writePending(last: false)
                self.scheduleKeepAlive(after: .nanoseconds(interval))
            } else {
                self.scheduleKeepAlive(after: .nanoseconds(interval) - idle)
            }
        }
    }

    // MARK: - Ends

    private func end(close: Bool) {
        guard state != .ended, let connection else { return }
        finish()
        connection.responseEnded(self, close: close)
    }

    /// Bookkeeping that every end shares; exactly once.
    private func finish() {
        state = .ended
        keepAliveTimer?.cancel()
        keepAliveTimer = nil
        onDisconnect = nil
        onAbort = nil
        onWritable = nil
        pending = ByteBuffer()
        streamHead = nil
        let peer = connection?.peer ?? "-"
        connection = nil
        if countsAsInFlight {
            loopState.requestEnded()
            if entry?.options.contains(.work) == true { service.context.metrics.changeServerLoad(by: -1) }
        }
        service.finished(
            ExchangeRecord(
                peer: peer, method: head.method, uri: head.uri, version: head.version, template: entry?.path,
                isProbe: entry?.options.contains(.probe) ?? false, status: status,
                seconds: Double((NIODeadline.now() - started).nanoseconds) / 1e9, requestBytes: requestBytes,
                responseBytes: responseBytes, requestID: requestID, endCause: endCause))
    }

    /// The connection is gone.
    func clientGone() {
        guard state != .ended else { return }
        if endCause == nil { endCause = "client_abort" }
        let notify = onDisconnect
        finish()
        notify?()
    }

    private func dropSlowReader() {
        endCause = "slow_reader"
        connection?.drop()
    }

    func becameWritable() {
        guard state == .streaming else { return }
        if flushWhenWritable {
            flushWhenWritable = false
            writePending(last: false)
        }
        onWritable?()
    }

    /// Ends the request for the operator.
    func abort() {
        if let onAbort {
            onAbort()
        } else {
            terminate(.serviceUnavailable("The request was aborted by the operator."), cause: "operator_abort")
        }
    }

    /// Ends the exchange for the handler: a stream gets `error` as its last event, a waiting client a response. The
    /// handler is told as if the client had gone, so that it stops the engine.
    func terminate(_ error: APIError, cause: String) {
        guard state != .ended else { return }
        endCause = cause
        let notify = onDisconnect
        switch state {
        case .waiting:
            send(error)
        case .streaming:
            appendEvents { buffer in
                error.appendEvent(to: &buffer)
                buffer.appendLiteral("data: [DONE]\n\n")
            }
            closesAfterStream = true
            endEventStream()
        case .ended: break
        }
        notify?()
    }
}
