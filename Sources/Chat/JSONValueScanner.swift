/// Finds the end of one JSON value byte by byte. Checks brackets and strings only as far as that needs.
struct JSONValueScanner {
    enum Step {
        case more
        /// The byte was the last one of the value.
        case endsAfter
        /// The value ended before the byte.
        case endsBefore
        case invalid
    }

    private enum Kind { case unknown, string, container, scalar }

    private var kind = Kind.unknown
    private var depth = 0
    private var isInString = false
    private var isEscaped = false

    mutating func consume(_ byte: UInt8) -> Step {
        switch kind {
        case .unknown: return begin(byte)
        case .string:
            consumeInString(byte)
            return isInString ? .more : .endsAfter
        case .container:
            if isInString {
                consumeInString(byte)
                return .more
            }
            switch byte {
            case UInt8(ascii: "\""): isInString = true
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                depth -= 1
                if depth == 0 { return .endsAfter }
            default: break
            }
            return .more
        case .scalar: return Self.isScalarByte(byte) ? .more : .endsBefore
        }
    }

    private mutating func begin(_ byte: UInt8) -> Step {
        switch byte {
        case UInt8(ascii: "\""):
            kind = .string
            isInString = true
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            kind = .container
            depth = 1
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "t"), UInt8(ascii: "f"),
            UInt8(ascii: "n"), UInt8(ascii: "N"), UInt8(ascii: "I"):
            kind = .scalar
        default: return .invalid
        }
        return .more
    }

    private mutating func consumeInString(_ byte: UInt8) {
        if isEscaped {
            isEscaped = false
        } else if byte == UInt8(ascii: "\\") {
            isEscaped = true
        } else if byte == UInt8(ascii: "\"") {
            isInString = false
        }
    }

    private static func isScalarByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
            true
        default: false
        }
    }
}
