/// Byte strings numbered by token id, with a hash lookup in the other direction.
///
/// All strings lie in one block; the lookup is open addressing over 64-bit slots that hold half of the hash and the id,
/// so that a miss rarely touches a string. The hash is seeded per process: a hostile vocabulary cannot aim at it.
final class ByteStringTable: @unchecked Sendable {
    /// Number of ids, including ids without a string.
    let count: Int
    private let storage: UnsafeMutablePointer<UInt8>
    /// `count + 1` offsets into `storage`.
    private let offsets: UnsafeMutablePointer<UInt32>
    private let slots: UnsafeMutablePointer<UInt64>
    private let findable: [Bool]
    private let mask: Int
    private let seed: UInt64
    /// Length of the longest string in bytes.
    let longest: Int
    /// Whether two ids that may be found have the same string.
    let hasRepetition: Bool

    /// Collects strings in the order of their ids.
    struct Builder {
        private(set) var bytes: [UInt8] = []
        private(set) var offsets: [UInt32] = [0]
        /// Whether ``ByteStringTable/id(of:)`` may return an id.
        private(set) var lookup: [Bool] = []

        init(capacity: Int) {
            offsets.reserveCapacity(capacity + 1)
            lookup.reserveCapacity(capacity)
            bytes.reserveCapacity(capacity * 8)
        }

        var count: Int { lookup.count }

        /// - Parameter isFindable: whether ``ByteStringTable/id(of:)`` may return this id.
        mutating func append(_ string: some Sequence<UInt8>, isFindable: Bool) {
            bytes.append(contentsOf: string)
            offsets.append(UInt32(truncatingIfNeeded: bytes.count))
            lookup.append(isFindable)
        }

        /// Appends the bytes that a byte-level vocabulary's `name` stands for; a name outside the alphabet is appended as
        /// it is and cannot be found.
        mutating func appendByteLevel(_ name: UnsafeBufferPointer<UInt8>, isFindable: Bool) {
            let start = bytes.count
            let isMapped = ByteLevelAlphabet.decode(name, into: &bytes)
            if !isMapped {
                bytes.removeLast(bytes.count - start)
                bytes.append(contentsOf: name)
            }
            offsets.append(UInt32(truncatingIfNeeded: bytes.count))
            lookup.append(isFindable && isMapped)
        }
    }

    init(_ builder: Builder) {
        count = builder.count
        let storage = UnsafeMutablePointer<UInt8>.allocate(capacity: max(1, builder.bytes.count))
        builder.bytes.withUnsafeBufferPointer { source in
            if let base = source.baseAddress { storage.initialize(from: base, count: source.count) }
        }
        self.storage = storage
        offsets = .allocate(capacity: count + 1)
        for (index, offset) in builder.offsets.enumerated() { offsets[index] = offset }
        var capacity = 16
        while capacity < count * 2 { capacity *= 2 }
        mask = capacity - 1
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: 0, count: capacity)
        seed = UInt64.random(in: .min ... .max)
        var longest = 0
        var repeats = false
        for id in 0..<count where builder.lookup[id] {
            let start = Int(offsets[id])
            let length = Int(offsets[id + 1]) - start
            longest = max(longest, length)
            let hash = hashBytes(storage + start, length, seed: seed)
            var slot = Int(truncatingIfNeeded: hash) & mask
            while slots[slot] != 0 {
                if slots[slot] >> 32 == hash >> 32 {
                    let other = Int(truncatingIfNeeded: slots[slot] & 0xFFFF_FFFF) - 1
                    let otherStart = Int(offsets[other])
                    repeats =
                        repeats
                        || (Int(offsets[other + 1]) - otherStart == length
                            && equalBytes(storage + otherStart, storage + start, length))
                }
                slot = (slot + 1) & mask
            }
            slots[slot] = (hash & 0xFFFF_FFFF_0000_0000) | UInt64(id + 1)
        }
        self.longest = longest
        hasRepetition = repeats
        findable = builder.lookup
    }

    /// Whether ``id(of:)`` can return this id.
    func isFindable(_ id: Int) -> Bool { findable[id] }

    deinit {
        storage.deallocate()
        offsets.deallocate()
        slots.deallocate()
    }

    /// The string of an id below ``count``; valid as long as the table lives.
    @inline(__always)
    subscript(id: Int) -> UnsafeBufferPointer<UInt8> {
        let start = Int(offsets[id])
        return UnsafeBufferPointer(start: storage + start, count: Int(offsets[id &+ 1]) &- start)
    }

    @inline(__always)
    func id(of bytes: UnsafePointer<UInt8>, count length: Int) -> Int32? {
        if length > longest { return nil }
        let hash = hashBytes(bytes, length, seed: seed)
        var slot = Int(truncatingIfNeeded: hash) & mask
        while true {
            let entry = slots[slot]
            if entry == 0 { return nil }
            if entry >> 32 == hash >> 32 {
                let id = Int(truncatingIfNeeded: entry & 0xFFFF_FFFF) &- 1
                let start = Int(offsets[id])
                if Int(offsets[id &+ 1]) &- start == length, equalBytes(storage + start, bytes, length) {
                    return Int32(truncatingIfNeeded: id)
                }
            }
            slot = (slot &+ 1) & mask
        }
    }

    func id(of bytes: UnsafeBufferPointer<UInt8>) -> Int32? {
        guard let base = bytes.baseAddress else { return nil }
        return id(of: base, count: bytes.count)
    }

    func id(of text: String) -> Int32? {
        var text = text
        return text.withUTF8 { id(of: $0) }
    }
}

/// A multiply-and-fold hash over eight bytes at a time.
@inline(__always)
private func hashBytes(_ bytes: UnsafePointer<UInt8>, _ count: Int, seed: UInt64) -> UInt64 {
    let raw = UnsafeRawPointer(bytes)
    var state = seed ^ (UInt64(truncatingIfNeeded: count) &* 0x9E37_79B9_7F4A_7C15)
    var index = 0
    while index &+ 8 <= count {
        state = fold(state ^ raw.loadUnaligned(fromByteOffset: index, as: UInt64.self), 0xD6E8_FEB8_6659_FD93)
        index &+= 8
    }
    let rest = count &- index
    if rest > 0 {
        // Two loads that may overlap cover what is left; the length is part of the seed.
        let last: UInt64
        if rest >= 4 {
            let low = raw.loadUnaligned(fromByteOffset: index, as: UInt32.self)
            let high = raw.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self)
            last = UInt64(low) | UInt64(high) << 32
        } else {
            last = UInt64(bytes[index]) | UInt64(bytes[index &+ rest / 2]) << 8 | UInt64(bytes[count &- 1]) << 16
        }
        state = fold(state ^ last, 0xA076_1D64_78BD_642F)
    }
    return fold(state ^ seed, 0xE703_7ED1_A0B4_28DB)
}

@inline(__always)
private func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
}

@inline(__always)
private func equalBytes(_ a: UnsafePointer<UInt8>, _ b: UnsafePointer<UInt8>, _ count: Int) -> Bool {
    let left = UnsafeRawPointer(a)
    let right = UnsafeRawPointer(b)
    var index = 0
    while index &+ 8 <= count {
        if left.loadUnaligned(fromByteOffset: index, as: UInt64.self)
            != right.loadUnaligned(fromByteOffset: index, as: UInt64.self)
        {
            return false
        }
        index &+= 8
    }
    while index < count {
        if a[index] != b[index] { return false }
        index &+= 1
    }
    return true
}
