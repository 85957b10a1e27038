/// U+FFFD
let replacementCharacter: [UInt8] = [0xEF, 0xBF, 0xBD]

/// What stands at a position of bytes that may not be UTF-8.
enum UTF8Step {
    case valid(Int)
    /// Length of the longest beginning of a character, or 1: what becomes one U+FFFD.
    case invalid(Int)
    /// The bytes end inside a character.
    case truncated

    @inline(__always)
    init(_ bytes: UnsafeBufferPointer<UInt8>, at index: Int) {
        let first = bytes[index]
        if first < 0x80 {
            self = .valid(1)
            return
        }
        // Range of the second byte; it excludes overlong forms, surrogates and everything above U+10FFFF.
        var second: ClosedRange<UInt8> = 0x80...0xBF
        let length: Int
        switch first {
        case 0xC2...0xDF: length = 2
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xE1...0xEF: length = 3
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF1...0xF3: length = 4
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        default:
            self = .invalid(1)
            return
        }
        for offset in 1..<length {
            guard index + offset < bytes.count else {
                self = .truncated
                return
            }
            let allowed = offset == 1 ? second : 0x80...0xBF
            guard allowed.contains(bytes[index + offset]) else {
                self = .invalid(offset)
                return
            }
        }
        self = .valid(length)
    }
}

/// Whether all of `bytes` is UTF-8.
func isValidUTF8(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
    guard let base = bytes.baseAddress else { return true }
    let raw = UnsafeRawPointer(base)
    var index = 0
    while index < bytes.count {
        if index &+ 8 <= bytes.count,
            raw.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
        {
            index &+= 8
            continue
        }
        guard case .valid(let length) = UTF8Step(bytes, at: index) else { return false }
        index &+= length
    }
    return true
}
