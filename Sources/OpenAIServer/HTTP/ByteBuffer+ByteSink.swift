import JSONBytes
import NIOCore

extension ByteBuffer: ByteSink {
    @inlinable
    package mutating func appendByte(_ byte: UInt8) { writeInteger(byte) }

    @inlinable
    package mutating func appendBytes(_ bytes: UnsafeRawBufferPointer) { writeBytes(bytes) }
}

extension ByteBuffer {
    /// Appends `head`, the inside of a JSON string, and `tail`, with one reservation of room.
    mutating func appendEvent(_ head: [UInt8], escaping text: [UInt8], _ tail: StaticString) {
        let isVerbatim = text.withUnsafeBytes { bytes in
            bytes.baseAddress.map { firstStringSpecial($0, from: 0, count: bytes.count) == bytes.count } ?? true
        }
        guard isVerbatim else {
            head.withUnsafeBytes { appendBytes($0) }
            text.withUnsafeBytes { appendJSONEscaped(utf8: $0) }
            appendLiteral(tail)
            return
        }
        let count = head.count + text.count + tail.utf8CodeUnitCount
        writeWithUnsafeMutableBytes(minimumWritableBytes: count) { target in
            var position = target.baseAddress!
            head.withUnsafeBytes { position.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            position += head.count
            text.withUnsafeBytes { bytes in
                if let source = bytes.baseAddress { position.copyMemory(from: source, byteCount: bytes.count) }
            }
            position += text.count
            position.copyMemory(from: tail.utf8Start, byteCount: tail.utf8CodeUnitCount)
            return count
        }
    }
}
