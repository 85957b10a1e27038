// Scalars as Python's `json.dumps(ensure_ascii=False)` spells them.

extension ByteSink {
    /// Appends `text` as a JSON string with quotes.
    @inlinable
    package mutating func appendJSONString(_ text: String) {
        var text = text
        text.withUTF8 { appendJSONString(utf8: UnsafeRawBufferPointer($0)) }
    }

    /// Appends UTF-8 bytes as a JSON string with quotes. The bytes are not validated.
    @inlinable
    package mutating func appendJSONString(utf8: UnsafeRawBufferPointer) {
        appendByte(0x22)
        appendJSONEscaped(utf8: utf8)
        appendByte(0x22)
    }

    /// Appends the inside of a JSON string: escapes without the quotes, for text that arrives in pieces.
    @inlinable
    package mutating func appendJSONEscaped(utf8: UnsafeRawBufferPointer) {
        guard let base = utf8.baseAddress else { return }
        let count = utf8.count
        var start = 0
        while start < count {
            let special = firstStringSpecial(base, from: start, count: count)
            if special > start { appendBytes(UnsafeRawBufferPointer(start: base + start, count: special - start)) }
            if special < count { appendJSONEscape(base.load(fromByteOffset: special, as: UInt8.self)) }
            start = special + 1
        }
    }

    @usableFromInline
    mutating func appendJSONEscape(_ byte: UInt8) {
        switch byte {
        case 0x22: appendLiteral("\\\"")
        case 0x5C: appendLiteral("\\\\")
        case 0x0A: appendLiteral("\\n")
        case 0x0D: appendLiteral("\\r")
        case 0x09: appendLiteral("\\t")
        case 0x08: appendLiteral("\\b")
        case 0x0C: appendLiteral("\\f")
        default: appendUnicodeEscape(UInt16(byte))
        }
    }

    mutating func appendUnicodeEscape(_ unit: UInt16) {
        appendLiteral("\\u")
        for shift: UInt16 in [12, 8, 4, 0] {
            let digit = UInt8(truncatingIfNeeded: unit >> shift & 0xF)
            appendByte(digit < 10 ? 0x30 + digit : 0x61 - 10 + digit)
        }
    }

    /// Appends a decimal integer.
    @inlinable
    package mutating func appendJSONInt(_ value: some FixedWidthInteger) {
        if value < 0 { appendByte(0x2D) }
        appendDecimal(UInt64(value.magnitude))
    }

    @inlinable
    package mutating func appendDecimal(_ value: UInt64) {
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
            var rest = value
            var start = 20
            repeat {
                start -= 1
                let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
                digits[start] = 0x30 + UInt8(truncatingIfNeeded: digit)
                rest = quotient
            } while rest != 0
            appendBytes(UnsafeRawBufferPointer(rebasing: digits[start...]))
        }
    }

    @inlinable
    package mutating func appendJSONBool(_ value: Bool) { appendLiteral(value ? "true" : "false") }

    @inlinable
    package mutating func appendJSONNull() { appendLiteral("null") }

    /// Appends a double with the shortest digits that read back to it, spelled as Python's `repr`: always with a point or
    /// an exponent, exponents from 1e+16 and below 1e-04 with at least two digits, `NaN`, `Infinity`, `-Infinity`.
    ///
    /// A 32-bit logprob is passed as its exact double, as Python prints it.
    @inlinable
    package mutating func appendJSONDouble(_ value: Double) {
        withUnsafeTemporaryAllocation(byteCount: DoubleSpelling.capacity, alignment: 1) { room in
            var spelling = DoubleSpelling(room: room)
            spelling.append(value)
            appendBytes(UnsafeRawBufferPointer(rebasing: room[..<spelling.count]))
        }
    }
}

/// Room for one number. Its spelling is made here, once for all kinds of sinks, and not generically for each.
@usableFromInline
struct DoubleSpelling: ByteSink {
    /// A sign, 17 digits, a point, up to 16 zeros or an exponent; and then some.
    @usableFromInline static let capacity = 64

    private let room: UnsafeMutableRawBufferPointer
    @usableFromInline private(set) var count = 0

    @usableFromInline
    init(room: UnsafeMutableRawBufferPointer) { self.room = room }

    @usableFromInline
    package mutating func appendByte(_ byte: UInt8) {
        room[count] = byte
        count += 1
    }

    @usableFromInline
    package mutating func appendBytes(_ bytes: UnsafeRawBufferPointer) {
        UnsafeMutableRawBufferPointer(rebasing: room[count...]).copyMemory(from: bytes)
        count += bytes.count
    }

    @usableFromInline
    mutating func append(_ value: Double) {
        guard value.isFinite else {
            appendLiteral(value.isNaN ? "NaN" : value < 0 ? "-Infinity" : "Infinity")
            return
        }
        if value.sign == .minus { appendByte(0x2D) }
        let magnitude = value.magnitude
        if magnitude < 1e15, magnitude == Double(UInt64(magnitude)) {
            appendDecimal(UInt64(magnitude))
            appendLiteral(".0")
            return
        }
        var description = magnitude.description
        description.withUTF8 { appendPythonRepr(of: $0) }
    }

    /// Respells Swift's shortest description of a positive finite number.
    private mutating func appendPythonRepr(of description: UnsafeBufferPointer<UInt8>) {
        withUnsafeTemporaryAllocation(byteCount: 32, alignment: 1) { digits in
            // Significant digits without leading zeros; `point` is the position of the decimal point relative to them.
            var count = 0
            var point = 0
            var seenPoint = false
            var exponent = 0
            var index = 0
            while index < description.count {
                let byte = description[index]
                index += 1
                if byte == UInt8(ascii: ".") {
                    seenPoint = true
                } else if byte | 0x20 == UInt8(ascii: "e") {
                    var negative = false
                    while index < description.count {
                        switch description[index] {
                        case UInt8(ascii: "-"): negative = true
                        case 0x30...0x39: exponent = exponent * 10 + Int(description[index] - 0x30)
                        default: break
                        }
                        index += 1
                    }
                    if negative { exponent = -exponent }
                } else if count > 0 || byte != 0x30 {
                    if count < 32 {
                        digits[count] = byte
                        count += 1
                    }
                    if !seenPoint { point += 1 }
                } else if seenPoint {
                    point -= 1
                }
            }
            point += exponent
            while count > 1, digits[count - 1] == 0x30 { count -= 1 }
            appendPythonRepr(digits: UnsafeRawBufferPointer(rebasing: digits[..<count]), point: point)
        }
    }

    private mutating func appendPythonRepr(digits: UnsafeRawBufferPointer, point: Int) {
        if point > 16 || point < -3 {
            appendByte(digits[0])
            if digits.count > 1 {
                appendByte(UInt8(ascii: "."))
                appendBytes(UnsafeRawBufferPointer(rebasing: digits[1...]))
            }
            appendByte(UInt8(ascii: "e"))
            let exponent = point - 1
            appendByte(exponent < 0 ? UInt8(ascii: "-") : UInt8(ascii: "+"))
            if exponent.magnitude < 10 { appendByte(0x30) }
            appendDecimal(UInt64(exponent.magnitude))
        } else if point <= 0 {
            appendLiteral("0.")
            for _ in point..<0 { appendByte(0x30) }
            appendBytes(digits)
        } else if digits.count <= point {
            appendBytes(digits)
            for _ in digits.count..<point { appendByte(0x30) }
            appendLiteral(".0")
        } else {
            appendBytes(UnsafeRawBufferPointer(rebasing: digits[..<point]))
            appendByte(UInt8(ascii: "."))
            appendBytes(UnsafeRawBufferPointer(rebasing: digits[point...]))
        }
    }
}
