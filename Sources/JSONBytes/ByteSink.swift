/// Somewhere bytes can be appended to: `[UInt8]` here, NIO's `ByteBuffer` in the server module.
///
/// All `appendJSON…` methods are written against this protocol and are generic, so they specialise to the concrete
/// buffer and allocate nothing themselves.
package protocol ByteSink {
    mutating func appendByte(_ byte: UInt8)
    mutating func appendBytes(_ bytes: UnsafeRawBufferPointer)
}

extension [UInt8]: ByteSink {
    @inlinable
    package mutating func appendByte(_ byte: UInt8) { append(byte) }

    @inlinable
    package mutating func appendBytes(_ bytes: UnsafeRawBufferPointer) { append(contentsOf: bytes) }
}

extension ByteSink {
    /// Appends literal text, such as the constant parts of a response.
    @inlinable
    package mutating func appendLiteral(_ text: StaticString) {
        appendBytes(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends the UTF-8 bytes of `text`, without quotes or escapes.
    @inlinable
    package mutating func appendUTF8(_ text: String) {
        var text = text
        text.withUTF8 { appendBytes(UnsafeRawBufferPointer($0)) }
    }
}
