import NIOCore

/// One peer of a ``ZMTPSocket``. Lives on the socket's event loop.
package final class ZMTPConnection: ChannelInboundHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum State { case greeting, handshake, open, closed }

    private let socket: ZMTPSocket
    private var context: ChannelHandlerContext?
    private var state = State.greeting
    /// The beginning of what the next bytes continue.
    private var rest = ByteBuffer()
    private var scanner: ZMTPFrameScanner
    private var timer: Scheduled<Void>?
    private var hasHandedOut = false
    private var needsFlush = false
    /// The peer has left more unread than the socket queues for one peer, and has not read all of it since.
    private var isBehind = false
    /// The peer's name for itself; empty if it has none.
    package private(set) var identity: [UInt8] = []
    /// The handshake was finished once.
    private(set) var wasOpen = false

    /// Bytes of memory that stay with the connection; larger messages get some of their own.
    private static let keptCapacity = 1 << 20
    /// libzmq's default too.
    private static let handshakeTimeout = TimeAmount.seconds(30)

    init(_ socket: ZMTPSocket) {
        self.socket = socket
        scanner = ZMTPFrameScanner(limit: socket.maximumMessageSize)
    }

    // MARK: - Channel events

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { greet(context) }
    }

    package func channelActive(context: ChannelHandlerContext) { greet(context) }

    private func greet(_ context: ChannelHandlerContext) {
        guard timer == nil else { return }
        socket.connected(self)
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: Self.handshakeTimeout) { [weak self] in
            self?.fail("it did not finish the handshake in time")
        }
        write(ZMTPWire.greeting + ZMTPWire.ready(socket.kind))
        context.flush()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if rest.readableBytes == 0 {
            consume(&bytes)
            // The channel reads into its buffers again: what must wait moves out of them.
            rest.clear()
        } else {
            rest.discardReadBytes()
            rest.writeBuffer(&bytes)
            swap(&bytes, &rest)
            consume(&bytes)
            swap(&bytes, &rest)
            if rest.readableBytes > 0 || rest.capacity <= Self.keptCapacity { return }
            rest = ByteBuffer()
        }
        if state != .closed { rest.writeBuffer(&bytes) }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        guard hasHandedOut else { return }
        hasHandedOut = false
        socket.onReadComplete()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        guard isBehind, context.channel.isWritable else { return }
        isBehind = false
        socket.caughtUp(self)
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    package func channelInactive(context: ChannelHandlerContext) {
        state = .closed
        timer?.cancel()
        rest = ByteBuffer()
        self.context = nil
        socket.disconnected(self)
    }

    // MARK: - Receiving

    private func consume(_ input: inout ByteBuffer) {
        if state == .greeting {
            guard input.readableBytes >= ZMTPWire.greetingLength else { return }
            if let problem = input.withUnsafeReadableBytes({ ZMTPWire.problem(ofGreeting: $0) }) {
                return fail(problem)
            }
            input.moveReaderIndex(forwardBy: ZMTPWire.greetingLength)
            state = .handshake
        }
        while state == .handshake || state == .open {
            let count = input.withUnsafeReadableBytes { consumeOne($0) }
            if count == 0 { break }
            input.moveReaderIndex(forwardBy: count)
        }
    }

    /// - Returns: the bytes of what was found.
    private func consumeOne(_ bytes: UnsafeRawBufferPointer) -> Int {
        let length: Int
        switch scanner.scan(bytes) {
        case .incomplete: return 0
        case .violation(let problem):
            fail(problem)
            return 0
        case .command(let range):
            receive(command: UnsafeRawBufferPointer(rebasing: bytes[range]))
            length = range.upperBound
        case .message(let end):
            guard state == .open else {
                fail("it sent a message before the handshake was over")
                return 0
            }
            hasHandedOut = true
            socket.hand(out: scanner.frames, in: bytes, from: self)
            length = end
        }
        scanner.next()
        return length
    }

    private func receive(command: UnsafeRawBufferPointer) {
        guard let (name, body) = ZMTPWire.split(command: command) else { return fail("a command without a name") }
        switch (state, name) {
        case (.handshake, "READY"):
            guard let (type, identity) = ZMTPWire.properties(body) else { return fail("damaged metadata") }
            guard socket.kind.accepts(type) else {
                return fail("a \(type) socket cannot talk to \(socket.kind.rawValue)")
            }
            self.identity = identity
            state = .open
            wasOpen = true
            timer?.cancel()
            socket.opened(self)
        case (.open, "PING"):
            // One that asks without reading the answers gets no more of them.
            guard body.count >= 2, context?.channel.isWritable ?? false else { return }
            write(ZMTPWire.pong(body.dropFirst(2).prefix(16)))
            context?.flush()
        case (_, "ERROR"), (.handshake, _): fail("it refused the handshake")
        // Subscriptions and what later versions know.
        default: break
        }
    }

    private func fail(_ problem: String) {
        guard state != .closed, let context else { return }
        state = .closed
        socket.onViolation("a connection was closed: \(problem)")
        context.close(promise: nil)
    }

    // MARK: - Sending

    private func write(_ bytes: [UInt8]) {
        guard let context else { return }
        context.write(wrapOutboundOut(context.channel.allocator.buffer(bytes: bytes)), promise: nil)
    }

    /// Queues a message until ``flush()``.
    /// - Parameter always: also for a peer that has left too much unread.
    /// - Returns: false if the peer must read first.
    func write(frames: [UnsafeRawBufferPointer], always: Bool = false) -> Bool {
        guard let context else { return true }
        if !always, leavesTooMuchUnread(context.channel) { return false }
        var buffer = context.channel.allocator.buffer(capacity: frames.reduce(0) { $0 + $1.count + 9 })
        for (index, frame) in frames.enumerated() {
            let more = index + 1 < frames.count ? ZMTPWire.more : 0
            if frame.count > 255 {
                buffer.writeInteger(more | ZMTPWire.long)
                buffer.writeInteger(UInt64(frame.count))
            } else {
                buffer.writeInteger(more)
                buffer.writeInteger(UInt8(frame.count))
            }
            buffer.writeBytes(frame)
        }
        context.write(wrapOutboundOut(buffer), promise: nil)
        if !needsFlush { socket.unflushed.append(self) }
        needsFlush = true
        return true
    }

    /// Once there is too much it stays so until the peer has read nearly all.
    private func leavesTooMuchUnread(_ channel: any Channel) -> Bool {
        if isBehind { return true }
        // Cheap, and true for all that read.
        if channel.isWritable { return false }
        let queued = (try? channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
        isBehind = queued >= socket.maximumQueuedBytes
        return isBehind
    }

    func flush() {
        needsFlush = false
        context?.flush()
    }

    /// Closes, at once or when everything queued has been taken by the peer.
    func close(afterWrites: Bool = false) {
        guard let context else { return }
        guard afterWrites else { return context.close(promise: nil) }
        let written = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
        written.futureResult.assumeIsolated().whenComplete { _ in self.context?.close(promise: nil) }
    }
}
