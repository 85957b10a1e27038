/// Working memory for merging, reused from piece to piece, and the merging itself.
final class MergeScratch {
    /// Input and output of ``merge(count:with:)``.
    private(set) var symbols: UnsafeMutablePointer<Int32>
    /// Rank of the merge of each symbol with its successor; `none` where there is none.
    private var ranks: UnsafeMutablePointer<UInt32>
    private var results: UnsafeMutablePointer<Int32>
    private var capacity: Int
    private var next: [Int32] = []
    private var previous: [Int32] = []
    /// Binary heap of rank << 32 | position.
    private var heap: [UInt64] = []

    private static let none = UInt32.max
    /// Up to here a linear search for the best merge beats a heap.
    private static let shortPiece = 48

    init() {
        capacity = 256
        symbols = .allocate(capacity: capacity)
        ranks = .allocate(capacity: capacity)
        results = .allocate(capacity: capacity)
    }

    deinit {
        symbols.deallocate()
        ranks.deallocate()
        results.deallocate()
    }

    /// Makes room for `count` symbols; the previous content is lost.
    func reserve(_ count: Int) {
        // One more, because a waiting unknown token may come on top of the characters.
        guard count >= capacity else { return }
        symbols.deallocate()
        ranks.deallocate()
        results.deallocate()
        capacity = max(count + 1, capacity * 2)
        symbols = .allocate(capacity: capacity)
        ranks = .allocate(capacity: capacity)
        results = .allocate(capacity: capacity)
    }

    /// Merges the first `count` symbols until no merge applies: always the lowest rank, leftmost first.
    /// - Returns: how many symbols are left.
    func merge(count: Int, with merges: MergeTable) -> Int {
        if count < 2 { return count }
        for index in 0..<count &- 1 { look(index, symbols[index], symbols[index &+ 1], merges) }
        ranks[count &- 1] = Self.none
        return count <= Self.shortPiece ? mergeShort(count, merges) : mergeLong(count, merges)
    }

    @inline(__always)
    private func look(_ index: Int, _ left: Int32, _ right: Int32, _ merges: MergeTable) {
        if let merge = merges.find(left, right) {
            ranks[index] = merge.rank
            results[index] = merge.result
        } else {
            ranks[index] = Self.none
        }
    }

    private func mergeShort(_ initial: Int, _ merges: MergeTable) -> Int {
        var count = initial
        while count > 1 {
            var best = Self.none
            var position = 0
            for index in 0..<count &- 1 where ranks[index] < best {
                best = ranks[index]
                position = index
            }
            if best == Self.none { break }
            symbols[position] = results[position]
            // Close the gap that the right-hand symbol leaves.
            let moved = count &- position &- 2
            if moved > 0 {
                (symbols + position + 1).update(from: symbols + position + 2, count: moved)
                (ranks + position + 1).update(from: ranks + position + 2, count: moved)
                (results + position + 1).update(from: results + position + 2, count: moved)
            }
            count &-= 1
            if position &+ 1 < count {
                look(position, symbols[position], symbols[position &+ 1], merges)
            } else {
                ranks[position] = Self.none
            }
            if position > 0 { look(position &- 1, symbols[position &- 1], symbols[position], merges) }
        }
        return count
    }

    /// Linked list and heap: n log n for any input.
    private func mergeLong(_ count: Int, _ merges: MergeTable) -> Int {
        next = (1...Int32(count)).map { $0 }
        previous = (-1..<Int32(count) - 1).map { $0 }
        heap.removeAll(keepingCapacity: true)
        for index in 0..<count where ranks[index] != Self.none { push(index) }
        while let top = pop() {
            let position = Int(truncatingIfNeeded: top & 0xFFFF_FFFF)
            // An entry is stale when its symbol was swallowed or its pair has changed since.
            guard ranks[position] == UInt32(truncatingIfNeeded: top >> 32) else { continue }
            let swallowed = Int(next[position])
            symbols[position] = results[position]
            ranks[swallowed] = Self.none
            let following = Int(next[swallowed])
            next[position] = Int32(following)
            if following < count {
                previous[following] = Int32(position)
                look(position, symbols[position], symbols[following], merges)
                if ranks[position] != Self.none { push(position) }
            } else {
                ranks[position] = Self.none
            }
            let preceding = Int(previous[position])
            if preceding >= 0 {
                look(preceding, symbols[preceding], symbols[position], merges)
                if ranks[preceding] != Self.none { push(preceding) }
            }
        }
        var written = 0
        var position = 0
        while position < count {
            symbols[written] = symbols[position]
            written += 1
            position = Int(next[position])
        }
        return written
    }

    private func push(_ position: Int) {
        heap.append(UInt64(ranks[position]) << 32 | UInt64(position))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            if heap[parent] <= heap[child] { break }
            heap.swapAt(parent, child)
            child = parent
        }
    }

    private func pop() -> UInt64? {
        guard let top = heap.first else { return nil }
        let last = heap.removeLast()
        guard !heap.isEmpty else { return top }
        var parent = 0
        while true {
            var child = 2 * parent + 1
            if child >= heap.count { break }
            if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
            if last <= heap[child] { break }
            heap[parent] = heap[child]
            parent = child
        }
        heap[parent] = last
        return top
    }
}
