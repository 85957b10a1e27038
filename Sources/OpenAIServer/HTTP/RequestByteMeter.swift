import NIOCore
import NIOHTTP1

/// Counts the raw bytes in front of the decoder: it tells an idle connection from a half-sent head, and bounds what the
/// framing of a chunked body may cost.
final class RequestByteMeter: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let maxBodyBytes: Int
    private var bytes = 0
    private var inHead = true
    private var isShut = false

    init(limits: HTTPLimits) { maxBodyBytes = limits.maxBodyBytes }

    var hasBytesOfHead: Bool { inHead && bytes > 0 }

    func startHead() {
        inHead = true
        bytes = 0
    }

    func startBody() {
        inHead = false
        bytes = 0
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isShut else { return }
        bytes += unwrapInboundIn(data).readableBytes
        // One-byte chunks cost six bytes each; whatever is beyond that is chunk extensions.
        if !inHead, maxBodyBytes > 0, bytes / 8 > maxBodyBytes + (64 << 10) {
            isShut = true
            context.fireErrorCaught(HTTPParserError.headerOverflow)
            return
        }
        context.fireChannelRead(data)
    }
}
