import Glibc
import NIOCore
import NIOSSL

/// Writes straight to a connection's socket as long as the channel has nothing of its own to write: the way through the
/// pipeline costs a fifth of a streamed token.
///
/// What the socket does not take goes through the channel, which waits until the socket is writable, and so does
/// everything after it. Used on the connection's event loop only.
///
/// The descriptor is the connection's until ``HTTPConnection/channelInactive(context:)`` puts a new value in place of this
/// one: NIO closes a socket without calling out and then tells its handlers before any other task of the loop runs. Only the
/// promises of unfinished writes come in between, and nothing is sent from those.
struct DirectSocket {
    /// -1 when bytes must pass the pipeline: under TLS, and on channels that are no sockets.
    private var descriptor: Int32 = -1
    /// Writes that the channel has not finished.
    private var channelWrites = 0

    private static let flags = Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL)

    /// False when bytes pass the pipeline.
    var isDirect: Bool { descriptor >= 0 }

    /// Whether nothing waits for the socket.
    var isIdle: Bool { descriptor >= 0 && channelWrites == 0 }

    mutating func attach(_ channel: any Channel) {
        let pipeline = channel.pipeline.syncOperations
        guard (try? pipeline.handler(type: NIOSSLServerHandler.self)) == nil else { return }
        descriptor = (try? pipeline.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { $0 }) ?? -1
    }

    /// Sends what the socket takes at once and moves the reader index behind it. Errors are left to the channel, which
    /// meets them again.
    /// - Returns: whether that was everything.
    func send(_ buffer: inout ByteBuffer) -> Bool {
        guard isIdle else { return false }
        let count = buffer.withUnsafeReadableBytes { bytes in
            bytes.isEmpty ? 0 : Glibc.send(descriptor, bytes.baseAddress, bytes.count, Self.flags)
        }
        if count > 0 { buffer.moveReaderIndex(forwardBy: count) }
        return buffer.readableBytes == 0
    }

    /// Where bytes can go at once.
    var idleDescriptor: Int32? { isIdle ? descriptor : nil }

    mutating func channelTakesOver() { channelWrites += 1 }
    mutating func channelIsDone() { channelWrites -= 1 }
}
