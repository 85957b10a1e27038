import JSONBytes
import NIOCore

extension ByteBuffer: ByteSink {
    @inlinable
    package mutating func appendByte(_ byte: UInt8) { writeInteger(byte) }

    @inlinable
    package mutating func appendBytes(_ bytes: UnsafeRawBufferPointer) { writeBytes(bytes) }
}
