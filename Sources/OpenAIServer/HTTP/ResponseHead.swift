import JSONBytes
import NIOCore
import NIOHTTP1

/// Writes response heads straight into the output buffer; NIO's encoder would cost three buffers per response.
enum ResponseHead {
    enum Framing {
        case length(Int)
        case chunked
        /// HTTP/1.0: the body ends with the connection.
        case untilClose
    }

    static func write(
        status: HTTPResponseStatus, framing: Framing, contentType: String?, date: String, close: Bool,
        announceKeepAlive: Bool, headers: [HTTPHeaders], into buffer: inout ByteBuffer
    ) {
        buffer.appendLiteral("HTTP/1.1 ")
        buffer.appendJSONInt(status.code)
        buffer.appendLiteral(" ")
        buffer.writeString(status.reasonPhrase)
        buffer.appendLiteral("\r\ndate: ")
        buffer.writeString(date)
        if let contentType {
            buffer.appendLiteral("\r\ncontent-type: ")
            buffer.writeString(contentType)
        }
        switch framing {
        case .length(let count):
            buffer.appendLiteral("\r\ncontent-length: ")
            buffer.appendJSONInt(count)
        case .chunked: buffer.appendLiteral("\r\ntransfer-encoding: chunked")
        case .untilClose: break
        }
        if close {
            buffer.appendLiteral("\r\nconnection: close")
        } else if announceKeepAlive {
            buffer.appendLiteral("\r\nconnection: keep-alive")
        }
        for list in headers {
            for (name, value) in list {
                buffer.appendLiteral("\r\n")
                appendClean(name, into: &buffer)
                buffer.appendLiteral(": ")
                appendClean(value, into: &buffer)
            }
        }
        buffer.appendLiteral("\r\n\r\n")
    }

    /// A line break in a header would let its author write headers of their own.
    private static func appendClean(_ text: String, into buffer: inout ByteBuffer) {
        if text.utf8.contains(where: { $0 == 0x0D || $0 == 0x0A || $0 == 0 }) {
            for byte in text.utf8 { buffer.appendByte(byte == 0x0D || byte == 0x0A || byte == 0 ? 0x20 : byte) }
        } else {
            buffer.writeString(text)
        }
    }
}
