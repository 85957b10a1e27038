/// A map key in place, compared with literals without making a `String`:
/// `switch try reader.readKey() { case "status": … }`.
package struct MessagePackKey {
    @usableFromInline let bytes: UnsafeRawBufferPointer

    @inlinable
    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// Length in bytes: a cheap first look at maps with many keys.
    package var count: Int { @inlinable get { bytes.count } }

    @inlinable
    package static func ~= (literal: StaticString, key: MessagePackKey) -> Bool {
        let count = key.bytes.count
        guard literal.utf8CodeUnitCount == count, let bytes = key.bytes.baseAddress else { return false }
        let start = UnsafeRawPointer(literal.utf8Start)
        // Backwards: names that share a length often share their beginning.
        var index = count
        while index > 0 {
            index &-= 1
            if start.load(fromByteOffset: index, as: UInt8.self) != bytes.load(fromByteOffset: index, as: UInt8.self) {
                return false
            }
        }
        return true
    }
}

extension MessagePackReader {
    /// Reads a map key. A key that is not text is passed over and matches no literal.
    @inlinable
    package mutating func readKey() throws(MessagePackError) -> MessagePackKey {
        switch try peekType() {
        case .string, .binary: return MessagePackKey(try readStringBytes())
        default:
            try skip()
            return MessagePackKey(UnsafeRawBufferPointer(start: nil, count: 0))
        }
    }

    /// The value, or nil for a msgpack nil.
    @inlinable
    package mutating func readOptional<T>(
        _ read: (inout MessagePackReader) throws(MessagePackError) -> T
    ) throws(MessagePackError) -> T? {
        if try skipNil() { return nil }
        return try read(&self)
    }

    /// An array of values of one kind.
    @inlinable
    package mutating func readArray<T>(
        _ read: (inout MessagePackReader) throws(MessagePackError) -> T
    ) throws(MessagePackError) -> [T] {
        let count = try readArrayHeader()
        var values: [T] = []
        // Not reserved in full: a small message must not make us allocate count * stride bytes at once.
        values.reserveCapacity(Swift.min(count, 4096))
        for _ in 0..<count { values.append(try read(&self)) }
        return values
    }
}
