/// A JSON number as it was spelled.
package struct JSONNumber: Sendable, Equatable, Hashable {
    /// The source text, for example `1e0`; also `NaN`, `Infinity` and `-Infinity`, which Python's reader accepts.
    package let text: String

    package init(text: String) { self.text = text }
    package init(_ value: Int) { self.text = String(value) }
    /// Spelled as Python's `repr` does: `1.0`, `1e-05`, `1e+16`, `NaN`, `Infinity`.
    package init(_ value: Double) {
        var bytes: [UInt8] = []
        bytes.appendJSONDouble(value)
        self.text = String(decoding: bytes, as: UTF8.self)
    }

    /// The value when it is spelled as an integer (no point, no exponent) that fits into 64 bits.
    package var intValue: Int? { Int(text) }

    /// Whether the source had neither a fraction nor an exponent (Python: `int`, otherwise `float`).
    package var isInteger: Bool {
        !text.utf8.contains { $0 == 0x2E || $0 == 0x65 || $0 == 0x45 || $0 == 0x4E || $0 == 0x49 }
    }

    /// The nearest double; infinite when the magnitude is too large, as in Python.
    package var doubleValue: Double { exactDouble ?? Double(text) ?? .nan }

    /// The value of short decimal spellings, where one multiplication or division by an exact power of ten is correctly
    /// rounded; nil when the general algorithm is needed.
    private var exactDouble: Double? {
        var mantissa: UInt64 = 0
        var digits = 0
        var fractionDigits = 0
        var seenPoint = false
        var negative = false
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39:
                mantissa = mantissa &* 10 &+ UInt64(byte &- 0x30)
                digits += 1
                if seenPoint { fractionDigits += 1 }
                if digits > 15 { return nil }
            case 0x2E: seenPoint = true
            case 0x2D where digits == 0 && !negative: negative = true
            default: return nil
            }
        }
        guard digits > 0 else { return nil }
        let value = Double(mantissa) / powersOfTen[fractionDigits]
        return negative ? -value : value
    }
}

private let powersOfTen: [Double] = [
    1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
]
