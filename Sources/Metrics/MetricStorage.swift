import Synchronization

/// A block of 64-bit cells with **one writing thread** and any number of readers, also in other processes.
///
/// A cell is only ever loaded and stored (relaxed), never read-modify-written, so an update costs as much as a plain
/// memory write. The page adds the cells of all blocks up.
final class MetricCells: @unchecked Sendable {
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    let count: Int
    /// The mapping that the cells are in; nil = they are our own.
    private let owner: AnyObject?

    init(count: Int) {
        self.count = count
        owner = nil
        cells = .allocate(capacity: count)
        for index in 0..<count { (cells + index).initialize(to: Atomic(0)) }
    }

    /// Cells in mapped memory, which `owner` keeps mapped; they keep the values that are there.
    init(mapped memory: UnsafeMutableRawPointer, count: Int, owner: AnyObject) {
        self.count = count
        self.owner = owner
        cells = memory.bindMemory(to: Atomic<UInt64>.self, capacity: count)
    }

    deinit {
        guard owner == nil else { return }
        cells.deinitialize(count: count)
        cells.deallocate()
    }

    @inline(__always)
    func add(_ value: UInt64, at index: Int) {
        let cell = cells + index
        cell.pointee.store(cell.pointee.load(ordering: .relaxed) &+ value, ordering: .relaxed)
    }

    @inline(__always)
    func addDouble(_ value: Double, at index: Int) {
        let cell = cells + index
        let sum = Double(bitPattern: cell.pointee.load(ordering: .relaxed)) + value
        cell.pointee.store(sum.bitPattern, ordering: .relaxed)
    }

    func set(_ value: Double, at index: Int) {
        (cells + index).pointee.store(value.bitPattern, ordering: .relaxed)
    }

    func setInteger(_ value: UInt64, at index: Int) { (cells + index).pointee.store(value, ordering: .relaxed) }

    /// For cells with several writers.
    func addAtomically(_ value: Int, at index: Int) {
        (cells + index).pointee.wrappingAdd(UInt64(bitPattern: Int64(value)), ordering: .relaxed)
    }

    func integer(at index: Int) -> UInt64 { (cells + index).pointee.load(ordering: .relaxed) }
    func double(at index: Int) -> Double { Double(bitPattern: integer(at: index)) }
}

/// Where a histogram lives in a block: one cell per bucket (not cumulative), one for +Inf, one for the sum.
struct HistogramSlot: Sendable {
    let bounds: [Double]
    let offset: Int

    var cellCount: Int { bounds.count + 2 }
    var sumCell: Int { offset + bounds.count + 1 }

    /// What is no number is not counted: an engine's broken clock would spoil the sum for ever.
    @inline(__always)
    func observe(_ value: Double, in cells: MetricCells, base: Int) {
        guard value.isFinite else { return }
        var index = 0
        // Bucket lists are short and most observations fall into the first few: a scan beats a binary search.
        while index < bounds.count, value > bounds[index] { index += 1 }
        cells.add(1, at: base + offset + index)
        cells.addDouble(value, at: base + sumCell)
    }

    func add(_ cells: MetricCells, base: Int, to snapshot: inout HistogramSnapshot) {
        for index in snapshot.counts.indices { snapshot.counts[index] &+= cells.integer(at: base + offset + index) }
        snapshot.sum += cells.double(at: base + sumCell)
    }
}

/// A histogram's state at one moment; `counts` are per bucket, the last one is beyond all bounds.
struct HistogramSnapshot: Sendable {
    var bounds: [Double]
    var counts: [UInt64]
    var sum = 0.0

    init(bounds: [Double]) {
        self.bounds = bounds
        counts = Array(repeating: 0, count: bounds.count + 1)
    }

    var total: UInt64 { counts.reduce(0, &+) }
}
