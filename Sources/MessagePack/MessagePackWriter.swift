/// Appending msgpack values to a byte array. Integers take their shortest form, non-negative ones as unsigned, which is
/// what vLLM's Python and Rust encoders write.
extension [UInt8] {
    @inlinable
    package mutating func packNil() { append(0xc0) }

    @inlinable
    package mutating func pack(_ value: Bool) { append(value ? 0xc3 : 0xc2) }

    @inlinable
    package mutating func pack(_ value: Int) {
        if value >= 0 {
            pack(unsigned: UInt64(value))
        } else if value >= -32 {
            append(UInt8(truncatingIfNeeded: value))
        } else if value >= Int(Int8.min) {
            append(0xd0)
            append(UInt8(truncatingIfNeeded: value))
        } else if value >= Int(Int16.min) {
            pack(tag: 0xd1, UInt16(truncatingIfNeeded: value))
        } else if value >= Int(Int32.min) {
            pack(tag: 0xd2, UInt32(truncatingIfNeeded: value))
        } else {
            pack(tag: 0xd3, UInt64(truncatingIfNeeded: value))
        }
    }

    @inlinable
    package mutating func pack(unsigned value: UInt64) {
        if value < 0x80 {
            append(UInt8(truncatingIfNeeded: value))
        } else if value <= 0xff {
            append(0xcc)
            append(UInt8(truncatingIfNeeded: value))
        } else if value <= 0xffff {
            pack(tag: 0xcd, UInt16(truncatingIfNeeded: value))
        } else if value <= 0xffff_ffff {
            pack(tag: 0xce, UInt32(truncatingIfNeeded: value))
        } else {
            pack(tag: 0xcf, value)
        }
    }

    /// Always 64 bits wide, as Python writes floats.
    @inlinable
    package mutating func pack(_ value: Double) { pack(tag: 0xcb, value.bitPattern) }

    @inlinable
    package mutating func pack(_ text: String) {
        var text = text
        text.withUTF8 { pack(utf8: UnsafeRawBufferPointer($0)) }
    }

    @inlinable
    package mutating func pack(utf8 bytes: UnsafeRawBufferPointer) {
        let length = bytes.count
        if length < 32 {
            append(0xa0 | UInt8(truncatingIfNeeded: length))
        } else if length <= 0xff {
            append(0xd9)
            append(UInt8(truncatingIfNeeded: length))
        } else if length <= 0xffff {
            pack(tag: 0xda, UInt16(truncatingIfNeeded: length))
        } else {
            pack(tag: 0xdb, UInt32(truncatingIfNeeded: length))
        }
        append(contentsOf: bytes)
    }

    package mutating func pack(binary bytes: UnsafeRawBufferPointer) {
        let length = bytes.count
        if length <= 0xff {
            append(0xc4)
            append(UInt8(truncatingIfNeeded: length))
        } else if length <= 0xffff {
            pack(tag: 0xc5, UInt16(truncatingIfNeeded: length))
        } else {
            pack(tag: 0xc6, UInt32(truncatingIfNeeded: length))
        }
        append(contentsOf: bytes)
    }

    package mutating func pack(ext type: Int8, _ bytes: UnsafeRawBufferPointer) {
        let length = bytes.count
        switch length {
        case 1: append(0xd4)
        case 2: append(0xd5)
        case 4: append(0xd6)
        case 8: append(0xd7)
        case 16: append(0xd8)
        case 0...0xff:
            append(0xc7)
            append(UInt8(truncatingIfNeeded: length))
        case 0...0xffff: pack(tag: 0xc8, UInt16(truncatingIfNeeded: length))
        default: pack(tag: 0xc9, UInt32(truncatingIfNeeded: length))
        }
        append(UInt8(bitPattern: type))
        append(contentsOf: bytes)
    }

    @inlinable
    package mutating func packArrayHeader(_ elements: Int) {
        if elements < 16 {
            append(0x90 | UInt8(truncatingIfNeeded: elements))
        } else if elements <= 0xffff {
            pack(tag: 0xdc, UInt16(truncatingIfNeeded: elements))
        } else {
            pack(tag: 0xdd, UInt32(truncatingIfNeeded: elements))
        }
    }

    @inlinable
    package mutating func packMapHeader(_ pairs: Int) {
        if pairs < 16 {
            append(0x80 | UInt8(truncatingIfNeeded: pairs))
        } else if pairs <= 0xffff {
            pack(tag: 0xde, UInt16(truncatingIfNeeded: pairs))
        } else {
            pack(tag: 0xdf, UInt32(truncatingIfNeeded: pairs))
        }
    }

    /// An array of integers (prompts are long: this writes through a stack buffer instead of byte by byte).
    package mutating func pack(_ values: [Int32]) {
        packArrayHeader(values.count)
        let chunk = 128
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: chunk * 5) { buffer in
            var start = 0
            while start < values.count {
                let end = Swift.min(start + chunk, values.count)
                var used = 0
                for index in start..<end { used += Self.write(values[index], to: buffer.baseAddress! + used) }
                append(contentsOf: UnsafeBufferPointer(rebasing: buffer[..<used]))
                start = end
            }
        }
    }

    /// - Returns: the number of bytes written, at most 5.
    private static func write(_ value: Int32, to target: UnsafeMutablePointer<UInt8>) -> Int {
        let raw = UnsafeMutableRawPointer(target)
        if value >= 0 {
            if value < 0x80 {
                target[0] = UInt8(truncatingIfNeeded: value)
                return 1
            }
            if value <= 0xff {
                target[0] = 0xcc
                target[1] = UInt8(truncatingIfNeeded: value)
                return 2
            }
            if value <= 0xffff {
                target[0] = 0xcd
                raw.storeBytes(of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: 1, as: UInt16.self)
                return 3
            }
            target[0] = 0xce
            raw.storeBytes(of: UInt32(truncatingIfNeeded: value).bigEndian, toByteOffset: 1, as: UInt32.self)
            return 5
        }
        if value >= -32 {
            target[0] = UInt8(truncatingIfNeeded: value)
            return 1
        }
        if value >= Int32(Int8.min) {
            target[0] = 0xd0
            target[1] = UInt8(truncatingIfNeeded: value)
            return 2
        }
        if value >= Int32(Int16.min) {
            target[0] = 0xd1
            raw.storeBytes(of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: 1, as: UInt16.self)
            return 3
        }
        target[0] = 0xd2
        raw.storeBytes(of: UInt32(truncatingIfNeeded: value).bigEndian, toByteOffset: 1, as: UInt32.self)
        return 5
    }

    @inlinable
    mutating func pack<T: FixedWidthInteger>(tag: UInt8, _ value: T) {
        append(tag)
        Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
    }
}
