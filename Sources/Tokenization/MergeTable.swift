/// The merges of a BPE model: (left id, right id) → (rank, id of the result).
final class MergeTable: @unchecked Sendable {
    struct Merge {
        /// Lower ranks merge first.
        var rank: UInt32
        var result: Int32
    }

    private struct Slot {
        var key: UInt64
        var merge: Merge
    }

    private static let empty = UInt64.max
    private let slots: UnsafeMutablePointer<Slot>
    private let mask: Int
    private let multiplier: UInt64

    init(capacity: Int) {
        var size = 16
        while size < capacity + capacity / 2 { size *= 2 }
        mask = size - 1
        slots = .allocate(capacity: size)
        slots.initialize(repeating: Slot(key: Self.empty, merge: Merge(rank: 0, result: 0)), count: size)
        multiplier = UInt64.random(in: .min ... .max) | 1
    }

    deinit { slots.deallocate() }

    /// At most as many pairs as the capacity given to `init`; a repeated pair takes the new rank, as in `tokenizers`.
    func insert(_ left: Int32, _ right: Int32, rank: UInt32, result: Int32) {
        let key = Self.key(left, right)
        var index = slot(of: key)
        while slots[index].key != Self.empty, slots[index].key != key { index = (index + 1) & mask }
        slots[index] = Slot(key: key, merge: Merge(rank: rank, result: result))
    }

    @inline(__always)
    func find(_ left: Int32, _ right: Int32) -> Merge? {
        let key = Self.key(left, right)
        var index = slot(of: key)
        while true {
            let candidate = slots[index].key
            if candidate == key { return slots[index].merge }
            if candidate == Self.empty { return nil }
            index = (index &+ 1) & mask
        }
    }

    @inline(__always)
    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }

    @inline(__always)
    private func slot(of key: UInt64) -> Int {
        let product = key.multipliedFullWidth(by: multiplier)
        return Int(truncatingIfNeeded: product.high ^ product.low) & mask
    }
}
