/// One byte per Unicode scalar: its general category as far as split patterns ask for it, white space, and whether
/// canonical composition has to look at it.
struct CharacterClass: OptionSet {
    let rawValue: UInt8

    /// Lu, Lt
    static let upper = CharacterClass(rawValue: 1)
    /// Ll
    static let lower = CharacterClass(rawValue: 2)
    /// Lm, Lo
    static let otherLetter = CharacterClass(rawValue: 4)
    static let mark = CharacterClass(rawValue: 8)
    static let number = CharacterClass(rawValue: 16)
    /// White_Space, which is `\s`
    static let space = CharacterClass(rawValue: 32)
    /// P and S
    static let punctuation = CharacterClass(rawValue: 64)
    /// May be changed by, or compose in, NFC; also every scalar with a combining class.
    static let composition = CharacterClass(rawValue: 128)

    static let letter: CharacterClass = [.upper, .lower, .otherLetter]

    @inline(__always)
    func meets(_ other: CharacterClass) -> Bool { rawValue & other.rawValue != 0 }
}

/// Two-stage lookup table of ``CharacterClass``; built once from the generated runs and never freed.
struct CharacterClasses: @unchecked Sendable {
    /// Block number of `scalar >> 8`.
    private let blocks: UnsafePointer<UInt8>
    private let classes: UnsafePointer<CharacterClass>

    static let shared = CharacterClasses()

    private init() {
        var flat = [UInt8]()
        flat.reserveCapacity(0x110000)
        var reader = Base36Reader(UnicodeTables.classRuns)
        while let length = reader.next(), let value = reader.next() {
            flat.append(contentsOf: repeatElement(UInt8(value), count: Int(length)))
        }
        precondition(flat.count == 0x110000, "the generated class table covers all of Unicode")
        var numbers: [[UInt8]: UInt8] = [:]
        let blocks = UnsafeMutablePointer<UInt8>.allocate(capacity: 0x1100)
        var storage: [UInt8] = []
        for block in 0..<0x1100 {
            let content = Array(flat[block << 8..<(block + 1) << 8])
            let number = numbers[content] ?? UInt8(numbers.count)
            if numbers.updateValue(number, forKey: content) == nil { storage += content }
            blocks[block] = number
        }
        let classes = UnsafeMutablePointer<CharacterClass>.allocate(capacity: storage.count)
        for (index, value) in storage.enumerated() { classes[index] = CharacterClass(rawValue: value) }
        self.blocks = UnsafePointer(blocks)
        self.classes = UnsafePointer(classes)
    }

    @inline(__always)
    subscript(scalar: UInt32) -> CharacterClass {
        classes[Int(blocks[Int(scalar >> 8)]) << 8 | Int(scalar & 0xFF)]
    }
}

/// Reads numbers like `2s` separated by single spaces.
struct Base36Reader {
    private var position: UnsafePointer<UInt8>
    private let end: UnsafePointer<UInt8>

    init(_ text: StaticString) {
        position = text.utf8Start
        end = position + text.utf8CodeUnitCount
    }

    mutating func next() -> UInt32? {
        guard position < end else { return nil }
        var value: UInt32 = 0
        while position < end, position.pointee != 0x20 {
            let byte = position.pointee
            value = value * 36 + UInt32(byte <= 0x39 ? byte - 0x30 : byte - 0x61 + 10)
            position += 1
        }
        if position < end { position += 1 }
        return value
    }
}

/// Reads the scalar at `index`; the bytes must be valid UTF-8.
@inline(__always)
func decodeScalar(_ bytes: UnsafePointer<UInt8>, at index: Int) -> (scalar: UInt32, length: Int) {
    let first = UInt32(bytes[index])
    if first < 0x80 { return (first, 1) }
    let second = UInt32(bytes[index &+ 1] & 0x3F)
    if first < 0xE0 { return ((first & 0x1F) << 6 | second, 2) }
    let third = UInt32(bytes[index &+ 2] & 0x3F)
    if first < 0xF0 { return ((first & 0x0F) << 12 | second << 6 | third, 3) }
    return ((first & 0x07) << 18 | second << 12 | third << 6 | UInt32(bytes[index &+ 3] & 0x3F), 4)
}

/// Length of the UTF-8 sequence that starts with `byte`.
@inline(__always)
func sequenceLength(_ byte: UInt8) -> Int {
    byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4
}

@inline(__always)
func appendScalar(_ scalar: UInt32, to bytes: inout [UInt8]) {
    switch scalar {
    case 0..<0x80: bytes.append(UInt8(truncatingIfNeeded: scalar))
    case 0x80..<0x800:
        bytes.append(UInt8(truncatingIfNeeded: 0xC0 | scalar >> 6))
        bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    case 0x800..<0x10000:
        bytes.append(UInt8(truncatingIfNeeded: 0xE0 | scalar >> 12))
        bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3F))
        bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    default:
        bytes.append(UInt8(truncatingIfNeeded: 0xF0 | scalar >> 18))
        bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 12 & 0x3F))
        bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3F))
        bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    }
}
