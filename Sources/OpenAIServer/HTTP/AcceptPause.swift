import Glibc
import Logging
import NIOCore

/// Stops accepting for a moment when the process has no descriptors left.
///
/// The waiting connection keeps the listening socket readable, so without a pause the loop would try and fail at full
/// speed. The client waits in the kernel's queue instead and is served once a descriptor is free.
final class AcceptPause: ChannelInboundHandler {
    typealias InboundIn = any Channel

    private static let pause = TimeAmount.milliseconds(50)
    private static let warningInterval = TimeAmount.seconds(10)

    private let logger: Logger
    private var lastWarning: NIODeadline?

    init(logger: Logger) { self.logger = logger }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError, [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(error.errnoCode) else {
            context.fireErrorCaught(error)
            return
        }
        warn(error)
        let channel = context.channel
        try? channel.syncOptions?.setOption(.autoRead, value: false)
        context.eventLoop.scheduleTask(in: Self.pause) {
            try? channel.syncOptions?.setOption(.autoRead, value: true)
        }
    }

    private func warn(_ error: IOError) {
        let now = NIODeadline.now()
        if let lastWarning, now - lastWarning < Self.warningInterval { return }
        lastWarning = now
        logger.warning("connections wait: \(String(cString: strerror(error.errnoCode))); raise the limit of open files")
    }
}
