import Synchronization

/// A block of 64-bit cells with **one writing thread** and any number of readers.
///
/// A cell is only ever loaded and stored (relaxed), never read-modify-written, so an update costs as much as a plain
/// memory write. The page adds the cells of all blocks up.
final class MetricCells: @unchecked Sendable {
    private let cells: UnsafeMutablePointer<Atomic<UInt64>>
    let count: Int

    init(count: Int) {
        self.count = count
        cells = .allocate(capacity: count)
        for index in 0..<count { (cells + index).initialize(to: Atomic(0)) }
    }

    deinit {
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

    func integer(at index: Int) -> UInt64 { (cells + index).pointee.load(ordering: .relaxed) }
    func double(at index: Int) -> Double { Double(bitPattern: integer(at: index)) }
}

/// Where a histogram lives in a block: one cell per bucket (not cumulative), one for +Inf, one for the sum.
struct HistogramSlot: Sendable {
    let bounds: [Double]
    let offset: Int

    var cellCount: Int { bounds.count + 2 }
    var sumCell: Int { offset + bounds.count + 1 }

    @inline(__always)
    func observe(_ value: Double, in cells: MetricCells, base: Int) {
        var index = 0
        // Bucket lists are short and most observations fall into the first few: a scan beats a binary search.
        while index < bounds.count, value > bounds[index] { index += 1 }
        cells.add(1, at: base + offset + index)
        cells.addDouble(value, at: base + sumCell)
    }
}
