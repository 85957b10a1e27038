/// A cursor over msgpack bytes: reads in place, copies nothing, never traps on any input.
///
/// Counts are checked against the bytes that are left before they are returned, so a caller may reserve memory for them.
/// A failed read leaves the cursor where it was. The buffer must outlive the reader and everything it hands out.
package struct MessagePackReader {
    @usableFromInline let base: UnsafeRawPointer
    /// Length of the buffer in bytes.
    package let count: Int
    /// Position of the next value.
    package var offset: Int { @inlinable get { position } }
    @usableFromInline var position = 0

    @inlinable
    package init(_ bytes: UnsafeRawBufferPointer) {
        // An empty buffer may have no address; no byte is ever read from the placeholder.
        base = bytes.baseAddress ?? UnsafeRawPointer(bitPattern: 1)!
        count = bytes.count
    }

    /// Reads `bytes` inside `body`.
    @inlinable
    package static func read<R>(
        _ bytes: [UInt8], _ body: (inout MessagePackReader) throws(MessagePackError) -> R
    ) throws(MessagePackError) -> R {
        try bytes.withUnsafeBufferPointer { buffer throws(MessagePackError) in
            var reader = MessagePackReader(UnsafeRawBufferPointer(buffer))
            return try body(&reader)
        }
    }

    package var remaining: Int { @inlinable get { count &- position } }
    package var isAtEnd: Bool { @inlinable get { position >= count } }

    /// Moves back to a position seen before in ``offset``, or forward to one that a skipped value ended at.
    @inlinable
    package mutating func seek(to offset: Int) { position = Swift.min(Swift.max(offset, 0), count) }

    @inlinable
    package func requireEnd() throws(MessagePackError) {
        if !isAtEnd { throw MessagePackError(.trailingBytes, offset: position) }
    }

    // MARK: - Type of the next value

    @inlinable
    package func peekType() throws(MessagePackError) -> MessagePackType {
        guard position < count else { throw MessagePackError(.truncated, offset: position) }
        return Self.type(of: base.load(fromByteOffset: position, as: UInt8.self))
    }

    @inlinable
    static func type(of byte: UInt8) -> MessagePackType {
        switch byte {
        case 0x00...0x7f, 0xe0...0xff, 0xcc...0xd3: .integer
        case 0x80...0x8f, 0xde, 0xdf: .map
        case 0x90...0x9f, 0xdc, 0xdd: .array
        case 0xa0...0xbf, 0xd9...0xdb: .string
        case 0xc0: .nil
        case 0xc1: .reserved
        case 0xc2, 0xc3: .bool
        case 0xc4...0xc6: .binary
        case 0xc7...0xc9, 0xd4...0xd8: .ext
        default: .float
        }
    }

    @usableFromInline
    func mismatch(_ expected: MessagePackType) -> MessagePackError {
        guard position < count else { return MessagePackError(.truncated, offset: position) }
        let found = Self.type(of: base.load(fromByteOffset: position, as: UInt8.self))
        if found == .reserved { return MessagePackError(.reservedByte, offset: position) }
        return MessagePackError(.typeMismatch(expected: expected, found: found), offset: position)
    }

    // MARK: - Raw access

    @inlinable
    func firstByte() throws(MessagePackError) -> UInt8 {
        guard position < count else { throw MessagePackError(.truncated, offset: position) }
        return base.load(fromByteOffset: position, as: UInt8.self)
    }

    /// The big-endian integer `distance` bytes after the cursor.
    @inlinable
    func bigEndian<T: FixedWidthInteger>(_ type: T.Type, at distance: Int) throws(MessagePackError) -> T {
        guard distance &+ MemoryLayout<T>.size <= count &- position else {
            throw MessagePackError(.truncated, offset: position)
        }
        return T(bigEndian: base.loadUnaligned(fromByteOffset: position &+ distance, as: T.self))
    }

    /// Hands out the body after a header and moves behind it.
    @inlinable
    mutating func takeBody(header: Int, length: Int) throws(MessagePackError) -> UnsafeRawBufferPointer {
        guard length <= count &- position &- header else { throw MessagePackError(.truncated, offset: position) }
        let body = UnsafeRawBufferPointer(start: base + (position &+ header), count: length)
        position &+= header &+ length
        return body
    }

    // MARK: - Scalars

    /// Consumes a nil if one is next.
    @inlinable
    package mutating func skipNil() throws(MessagePackError) -> Bool {
        guard try firstByte() == 0xc0 else { return false }
        position &+= 1
        return true
    }

    @inlinable
    package mutating func readBool() throws(MessagePackError) -> Bool {
        let byte = try firstByte()
        guard byte == 0xc2 || byte == 0xc3 else { throw mismatch(.bool) }
        position &+= 1
        return byte == 0xc3
    }

    /// Any integer width that fits into 64 bits with sign.
    @inlinable
    package mutating func readInt() throws(MessagePackError) -> Int {
        let byte = try firstByte()
        if byte < 0x80 {
            position &+= 1
            return Int(byte)
        }
        if byte >= 0xe0 {
            position &+= 1
            return Int(Int8(bitPattern: byte))
        }
        let value: Int
        switch byte {
        case 0xcc: (value, position) = (Int(try bigEndian(UInt8.self, at: 1)), position &+ 2)
        case 0xcd: (value, position) = (Int(try bigEndian(UInt16.self, at: 1)), position &+ 3)
        case 0xce: (value, position) = (Int(try bigEndian(UInt32.self, at: 1)), position &+ 5)
        case 0xcf:
            guard let fitting = Int(exactly: try bigEndian(UInt64.self, at: 1)) else {
                throw MessagePackError(.outOfRange, offset: position)
            }
            (value, position) = (fitting, position &+ 9)
        case 0xd0: (value, position) = (Int(try bigEndian(Int8.self, at: 1)), position &+ 2)
        case 0xd1: (value, position) = (Int(try bigEndian(Int16.self, at: 1)), position &+ 3)
        case 0xd2: (value, position) = (Int(try bigEndian(Int32.self, at: 1)), position &+ 5)
        case 0xd3: (value, position) = (Int(try bigEndian(Int64.self, at: 1)), position &+ 9)
        default: throw mismatch(.integer)
        }
        return value
    }

    /// Any integer; negative ones keep their 64-bit pattern (vLLM's utility call ids are opaque 64-bit values).
    @inlinable
    package mutating func readBits64() throws(MessagePackError) -> UInt64 {
        if try firstByte() == 0xcf {
            let value = try bigEndian(UInt64.self, at: 1)
            position &+= 9
            return value
        }
        return UInt64(bitPattern: Int64(try readInt()))
    }

    /// Not generic over the width: the unspecialised form was the slowest part of reading a token.
    @inlinable
    package mutating func readInt32() throws(MessagePackError) -> Int32 {
        let start = position
        guard let value = Int32(exactly: try readInt()) else {
            position = start
            throw MessagePackError(.outOfRange, offset: start)
        }
        return value
    }

    /// A float of either width, or an integer.
    @inlinable
    package mutating func readDouble() throws(MessagePackError) -> Double {
        switch try firstByte() {
        case 0xcb:
            let bits = try bigEndian(UInt64.self, at: 1)
            position &+= 9
            return Double(bitPattern: bits)
        case 0xca:
            let bits = try bigEndian(UInt32.self, at: 1)
            position &+= 5
            return Double(Float(bitPattern: bits))
        case 0xcf:
            let value = try bigEndian(UInt64.self, at: 1)
            position &+= 9
            return Double(value)
        case 0x00...0x7f, 0xe0...0xff, 0xcc...0xd3: return Double(try readInt())
        default: throw mismatch(.float)
        }
    }

    // MARK: - Text and bytes

    /// The bytes of a str or a bin (older writers used one for the other), not checked for UTF-8.
    @inlinable
    package mutating func readStringBytes() throws(MessagePackError) -> UnsafeRawBufferPointer {
        let byte = try firstByte()
        if byte & 0xe0 == 0xa0 { return try takeBody(header: 1, length: Int(byte & 0x1f)) }
        switch byte {
        case 0xd9, 0xc4: return try takeBody(header: 2, length: Int(try bigEndian(UInt8.self, at: 1)))
        case 0xda, 0xc5: return try takeBody(header: 3, length: Int(try bigEndian(UInt16.self, at: 1)))
        case 0xdb, 0xc6: return try takeBody(header: 5, length: Int(try bigEndian(UInt32.self, at: 1)))
        default: throw mismatch(.string)
        }
    }

    package mutating func readString() throws(MessagePackError) -> String {
        let start = position
        let bytes = try readStringBytes()
        guard let text = String(validating: bytes, as: UTF8.self) else {
            position = start
            throw MessagePackError(.invalidUTF8, offset: start)
        }
        return text
    }

    package mutating func readExt() throws(MessagePackError) -> (type: Int8, body: UnsafeRawBufferPointer) {
        let header: Int
        let length: Int
        switch try firstByte() {
        case 0xd4: (header, length) = (2, 1)
        case 0xd5: (header, length) = (2, 2)
        case 0xd6: (header, length) = (2, 4)
        case 0xd7: (header, length) = (2, 8)
        case 0xd8: (header, length) = (2, 16)
        case 0xc7: (header, length) = (3, Int(try bigEndian(UInt8.self, at: 1)))
        case 0xc8: (header, length) = (4, Int(try bigEndian(UInt16.self, at: 1)))
        case 0xc9: (header, length) = (6, Int(try bigEndian(UInt32.self, at: 1)))
        default: throw mismatch(.ext)
        }
        let type = try bigEndian(Int8.self, at: header - 1)
        return (type, try takeBody(header: header, length: length))
    }

    // MARK: - Containers

    /// The number of elements that follow.
    @inlinable
    package mutating func readArrayHeader() throws(MessagePackError) -> Int {
        let byte = try firstByte()
        let header: Int
        let elements: Int
        if byte & 0xf0 == 0x90 {
            (header, elements) = (1, Int(byte & 0x0f))
        } else if byte == 0xdc {
            (header, elements) = (3, Int(try bigEndian(UInt16.self, at: 1)))
        } else if byte == 0xdd {
            (header, elements) = (5, Int(try bigEndian(UInt32.self, at: 1)))
        } else {
            throw mismatch(.array)
        }
        guard elements <= count &- position &- header else { throw MessagePackError(.truncated, offset: position) }
        position &+= header
        return elements
    }

    /// The number of key-value pairs that follow.
    @inlinable
    package mutating func readMapHeader() throws(MessagePackError) -> Int {
        let byte = try firstByte()
        let header: Int
        let pairs: Int
        if byte & 0xf0 == 0x80 {
            (header, pairs) = (1, Int(byte & 0x0f))
        } else if byte == 0xde {
            (header, pairs) = (3, Int(try bigEndian(UInt16.self, at: 1)))
        } else if byte == 0xdf {
            (header, pairs) = (5, Int(try bigEndian(UInt32.self, at: 1)))
        } else {
            throw mismatch(.map)
        }
        guard 2 &* pairs <= count &- position &- header else { throw MessagePackError(.truncated, offset: position) }
        position &+= header
        return pairs
    }

    // MARK: - Skipping

    /// Passes over `values` whole values. Works with a counter, not with recursion: depth costs nothing.
    package mutating func skip(_ values: Int = 1) throws(MessagePackError) {
        let start = position
        var pending = values
        while pending > 0 {
            guard position < count else { throw truncated(start) }
            let byte = base.load(fromByteOffset: position, as: UInt8.self)
            pending &-= 1
            // Positional structs are mostly nils, small integers and short texts: no calls for those.
            switch byte {
            case 0x00...0x7f, 0xe0...0xff, 0xc0, 0xc2, 0xc3: position &+= 1
            case 0xa0...0xbf:
                position &+= 1 &+ Int(byte & 0x1f)
                guard position <= count else { throw truncated(start) }
            default:
                do throws(MessagePackError) {
                    pending += try skipOne()
                } catch {
                    position = start
                    throw error
                }
                // Every value needs a byte: this also keeps the counter far from overflowing.
                guard pending <= remaining else { throw truncated(start) }
            }
        }
    }

    /// The error of a skip that began at `start`, where the cursor goes back to.
    private mutating func truncated(_ start: Int) -> MessagePackError {
        let error = MessagePackError(.truncated, offset: position)
        position = start
        return error
    }

    /// Passes over nils.
    /// - Returns: how many there were, at most `limit`.
    @inlinable
    package mutating func skipNils(limit: Int) -> Int {
        let end = Swift.min(count, position &+ limit)
        let start = position
        while position < end, base.load(fromByteOffset: position, as: UInt8.self) == 0xc0 { position &+= 1 }
        return position &- start
    }

    /// Passes over one value without its elements.
    /// - Returns: the number of elements that follow.
    private mutating func skipOne() throws(MessagePackError) -> Int {
        switch try peekType() {
        case .nil, .bool: position &+= 1
        case .integer, .float: _ = try readDouble()
        case .string, .binary: _ = try readStringBytes()
        case .ext: _ = try readExt()
        case .array: return try readArrayHeader()
        case .map: return 2 &* (try readMapHeader())
        case .reserved: throw MessagePackError(.reservedByte, offset: position)
        }
        return 0
    }

    /// The bytes of the next value as they are.
    package mutating func readRaw() throws(MessagePackError) -> UnsafeRawBufferPointer {
        let start = position
        try skip()
        return UnsafeRawBufferPointer(start: base + start, count: position &- start)
    }
}
