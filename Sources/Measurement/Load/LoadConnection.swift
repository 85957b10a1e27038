import Glibc
import NIOCore
import NIOPosix

/// One connection of the load generator, at most one request at a time. Lives on the generator's event loop.
final class LoadConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let run: LoadRun
    private var context: ChannelHandlerContext?
    private var parser = AnswerParser()
    private var answer = RawAnswer.none
    private var isBusy = false
    /// To send again on a new connection if the server had closed this one while it was idle.
    private var bytes: ByteBuffer?
    private(set) var hasServed = false
    /// Data segments of the answers before this one.
    private var earlierSegments = 0
    private var lastActivity: Nanoseconds = 0
    /// A fault found while reading; decides how the answer ends once the channel is closed.
    private var fault: (RequestFailure, String)?

    init(run: LoadRun) { self.run = run }

    var isIdle: Bool { context != nil && !isBusy }

    // MARK: - Sending

    /// - Parameter bytes: the complete request.
    func send(_ bytes: ByteBuffer, _ answer: consuming RawAnswer) {
        guard let context else { return }
        parser = AnswerParser()
        fault = nil
        self.bytes = bytes
        let now = monotonicNanoseconds()
        answer.sent = now
        lastActivity = now
        self.answer = answer
        isBusy = true
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    }

    /// Ends the request if nothing has come since `limit`.
    func checkSilence(before limit: Nanoseconds) {
        guard isBusy, lastActivity < limit else { return }
        fault = (.timeout, "no bytes for too long")
        context?.close(promise: nil)
    }

    func close() { context?.close(promise: nil) }

    // MARK: - ChannelInboundHandler

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let now = monotonicNanoseconds()
        let buffer = unwrapInboundIn(data)
        guard isBusy else {
            // Bytes that nobody asked for.
            context.close(promise: nil)
            return
        }
        lastActivity = now
        let chunks = answer.offsets.count
        let progress = buffer.withUnsafeReadableBytes { raw -> AnswerParser.Progress in
            answer.noteRead(bytes: raw.count, at: now)
            return parser.feed(raw.assumingMemoryBound(to: UInt8.self), &answer)
        }
        run.advance(chunks: answer.offsets.count - chunks)
        switch progress {
        case .more: break
        case .malformed(let reason):
            fault = (.malformed, reason)
            context.close(promise: nil)
        case .complete(let keepAlive):
            hasServed = true
            finish(at: now)
            if keepAlive {
                run.connectionIsFree(self)
            } else {
                context.close(promise: nil)
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A reset of a connection that had been idle is no fault of the request, see below.
        if fault == nil, answer.bytesReceived > 0 || !hasServed { fault = (.disconnected, "\(error)") }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.context = nil
        let now = monotonicNanoseconds()
        if isBusy {
            if fault == nil, answer.bytesReceived == 0, hasServed, let bytes {
                // It was closed while idle, and our request crossed that: every HTTP client tries once more.
                isBusy = false
                run.retry(bytes, answer)
            } else {
                if fault == nil, !parser.closeEndsAnswer() {
                    fault = (.disconnected, "the server closed the connection")
                }
                finish(at: now)
            }
        }
        run.connectionClosed(self)
    }

    private func finish(at now: Nanoseconds) {
        bytes = nil
        isBusy = false
        var answer = answer
        self.answer = .none
        answer.end = now
        if let segments = receivedSegments() {
            answer.segments = segments - earlierSegments
            earlierSegments = segments
        }
        if let fault, answer.error == nil {
            answer.error = fault.0
            answer.errorDetail = Array(fault.1.utf8)
        }
        run.finished(answer)
    }

    /// Segments with data since the connection was opened; nil if this is no TCP connection, or it is closed.
    private func receivedSegments() -> Int? {
        var segments: Int?
        let options = context?.channel as? any SocketOptionProvider
        let information: EventLoopFuture<TCPInformation>? = options?.unsafeGetSocketOption(
            level: .tcp, name: NIOBSDSocket.Option(rawValue: TCP_INFO))
        // Complete already: we are on the channel's loop.
        information?.assumeIsolated().whenSuccess { segments = Int($0[TCPInformation.segmentsWithData]) }
        return segments
    }
}

/// The kernel's `struct tcp_info`, of which glibc declares only the beginning; the kernel fills in what it has.
private typealias TCPInformation = SIMD64<UInt32>

extension TCPInformation {
    /// Place of `tcpi_data_segs_in`.
    fileprivate static let segmentsWithData = 38
}
