import Glibc

/// Reads JSON in place, without building values: what the client must know of a chunk is three short strings.
///
/// Strings and nesting are followed exactly; values that nobody asks for are skipped without being checked. Every step is
/// bounded by the buffer; malformed input ends in `failed`.
struct JSONCursor {
    private let base: UnsafePointer<UInt8>
    private let end: Int
    private(set) var at: Int
    private(set) var failed = false

    init(_ bytes: UnsafeBufferPointer<UInt8>) {
        // An empty buffer may have no address; it is never read.
        base = bytes.baseAddress ?? UnsafePointer(bitPattern: 1).unsafelyUnwrapped
        end = bytes.count
        at = 0
    }

    private mutating func skipSpace() {
        while at < end, base[at] == 0x20 || (base[at] >= 0x09 && base[at] <= 0x0D) { at += 1 }
    }

    /// The next byte that is no space; 0 at the end.
    mutating func peek() -> UInt8 {
        skipSpace()
        return at < end ? base[at] : 0
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        at += 1
        return true
    }

    private mutating func fail() {
        failed = true
        at = end
    }

    /// The contents of a string as they stand between the quotes, escapes included; nil if the next value is no string (it is
    /// left where it is).
    mutating func string() -> UnsafeBufferPointer<UInt8>? {
        guard take(UInt8(ascii: "\"")) else { return nil }
        let start = at
        while at < end {
            guard let quote = memchr(base + at, Int32(UInt8(ascii: "\"")), end - at) else { break }
            let place = UnsafeRawPointer(base).distance(to: quote)
            var backslashes = 0
            while place - backslashes > start, base[place - backslashes - 1] == UInt8(ascii: "\\") { backslashes += 1 }
            at = place + 1
            if backslashes % 2 == 0 { return UnsafeBufferPointer(start: base + start, count: place - start) }
        }
        fail()
        return nil
    }

    /// A number that is not negative and has no fraction; 0 for anything else, which is skipped.
    mutating func count() -> Int {
        var value = 0
        let first = peek()
        guard first >= 0x30, first <= 0x39 else {
            skip()
            return 0
        }
        while at < end, base[at] >= 0x30, base[at] <= 0x39 {
            value = value > 1 << 50 ? value : value * 10 + Int(base[at] - 0x30)
            at += 1
        }
        return value
    }

    /// Skips one value of any kind.
    mutating func skip() {
        switch peek() {
        case UInt8(ascii: "\""): _ = string()
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            var depth = 0
            while at < end {
                switch base[at] {
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                case UInt8(ascii: "\""):
                    _ = string()
                    continue
                default: break
                }
                at += 1
                if depth == 0 { return }
            }
            fail()
        case 0: fail()
        default:
            let start = at
            loop: while at < end {
                switch base[at] {
                case UInt8(ascii: ","), UInt8(ascii: "}"), UInt8(ascii: "]"): break loop
                default: at += 1
                }
            }
            if at == start { fail() }
        }
    }

    /// The bytes of the next value, which is skipped.
    mutating func raw() -> UnsafeBufferPointer<UInt8> {
        _ = peek()
        let start = at
        skip()
        return UnsafeBufferPointer(start: base + start, count: at - start)
    }

    /// Calls `body` at the value of each member; it must read or skip it. Other kinds of values are skipped.
    mutating func members(_ body: (inout JSONCursor, UnsafeBufferPointer<UInt8>) -> Void) {
        guard take(UInt8(ascii: "{")) else { return skip() }
        if take(UInt8(ascii: "}")) { return }
        repeat {
            guard let key = string(), take(UInt8(ascii: ":")) else { return fail() }
            body(&self, key)
            if failed { return }
        } while take(UInt8(ascii: ","))
        if !take(UInt8(ascii: "}")) { fail() }
    }

    /// Calls `body` at each element; it must read or skip it. Other kinds of values are skipped.
    mutating func elements(_ body: (inout JSONCursor) -> Void) {
        guard take(UInt8(ascii: "[")) else { return skip() }
        if take(UInt8(ascii: "]")) { return }
        repeat {
            body(&self)
            if failed { return }
        } while take(UInt8(ascii: ","))
        if !take(UInt8(ascii: "]")) { fail() }
    }
}

extension UnsafeBufferPointer<UInt8> {
    func equals(_ text: StaticString) -> Bool {
        count == text.utf8CodeUnitCount && hasPrefix(text)
    }

    func hasPrefix(_ text: StaticString) -> Bool {
        guard let baseAddress else { return text.utf8CodeUnitCount == 0 }
        return count >= text.utf8CodeUnitCount && memcmp(baseAddress, text.utf8Start, text.utf8CodeUnitCount) == 0
    }
}
