// Word-at-a-time searches. Each tests eight bytes with a few integer operations; a false positive is only possible above
// the first true one, so the lowest set bit is always right.

private let ones: UInt64 = 0x0101_0101_0101_0101
private let highBits: UInt64 = 0x8080_8080_8080_8080

@inline(__always)
private func stringSpecials(_ word: UInt64) -> UInt64 {
    let quote = word ^ (ones &* 0x22)
    let backslash = word ^ (ones &* 0x5C)
    return (((quote &- ones) & ~quote) | ((backslash &- ones) & ~backslash) | ((word &- ones &* 0x20) & ~word))
        & highBits
}

/// The first byte at or after `start` that a JSON string cannot hold as itself: `"`, `\` or a control character.
/// - Returns: its offset, or `count` when there is none.
@usableFromInline
package func firstStringSpecial(_ base: UnsafeRawPointer, from start: Int, count: Int) -> Int {
    var offset = start
    while offset &+ 16 <= count {
        let low = stringSpecials(UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        let high = stringSpecials(
            UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset &+ 8, as: UInt64.self)))
        if low | high != 0 {
            return low != 0
                ? offset &+ low.trailingZeroBitCount / 8 : offset &+ 8 &+ high.trailingZeroBitCount / 8
        }
        offset &+= 16
    }
    while offset < count {
        let byte = base.load(fromByteOffset: offset, as: UInt8.self)
        if byte < 0x20 || byte == 0x22 || byte == 0x5C { return offset }
        offset &+= 1
    }
    return count
}
