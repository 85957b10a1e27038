import Glibc
import Synchronization

/// A block of cells with what it is for.
struct MetricBlock: Sendable {
    enum Kind: UInt32, Sendable {
        case recorder = 1, gauges, server
        case httpRequests, httpDuration, httpHighResolution, httpSizes
        case acceptedPositions
    }

    let kind: Kind
    let labels: [String]
    let cells: MetricCells
}

/// Where the blocks of one frontend live: private memory, or a file that all frontends of the service can read.
///
/// With a file every update is a store to shared memory, so nothing is lost when the process is killed. Each frontend
/// has a file of its own. One that takes the place of a dead one (same index) goes on with that one's file, so counters
/// never go back.
package final class MetricMemory: Sendable {
    private let file: MetricFile?
    private let allocated = Mutex<[MetricBlock]>([])

    /// Private memory.
    package init() { file = nil }

    /// - Parameters:
    ///   - directory: shared by the frontends of the service.
    ///   - index: of this frontend.
    /// - Returns: nil if no file can be made there.
    package init?(directory: String, index: Int) {
        guard let file = MetricFile(directory: directory, index: index) else { return nil }
        self.file = file
    }

    package var isShared: Bool { file != nil }

    /// The predecessor's block with this name if there is one, else a new one with zeros.
    func block(_ kind: MetricBlock.Kind, labels: [String], count: Int) -> MetricCells {
        allocated.withLock { allocated in
            // A full disk costs the sum over all frontends, not the numbers of this one.
            let cells = file?.claim(kind, labels, count) ?? MetricCells(count: count)
            allocated.append(MetricBlock(kind: kind, labels: labels, cells: cells))
            return cells
        }
    }

    /// What this process writes.
    var ownBlocks: [MetricBlock] { allocated.withLock { $0 } }

    /// What every frontend of the service has written, dead ones included.
    var allBlocks: [MetricBlock] {
        guard let file else { return ownBlocks }
        let rest = allocated.withLock { _ in file.unclaimed() }
        return ownBlocks + rest + file.siblings().flatMap { $0.blocks() }
    }

    /// Of the frontends that are alive.
    var livingBlocks: [MetricBlock] {
        guard let file else { return ownBlocks }
        return ownBlocks + file.siblings().filter(\.isAlive).flatMap { $0.blocks() }
    }

    /// Unix seconds. The counters of a predecessor began when it started.
    func noteStart(_ time: Double) { file?.noteStart(time) }

    /// When the first frontend of the service started; nil without a file.
    var earliestStart: Double? {
        guard let file else { return nil }
        return ([file.startTime] + file.siblings().map(\.startTime)).filter { $0 > 0 }.min()
    }
}

/// The layout of a file: a header of four words (magic, bytes in use, start time, reserved), then records of whole words:
/// size of the record in bytes, kind and label bytes (32 bits each), the labels (each ended by NUL), the cells.
private enum MetricFileLayout {
    static let magic: UInt64 = 0x3130_7363_6972_746d
    static let headerBytes = 32
    static let usedOffset = 8
    static let startOffset = 16
    /// Address space, not memory: 64 engines and 128 threads fit.
    static let capacity = 64 << 20
    static let suffix = ".metrics"

    static func rounded(_ bytes: Int) -> Int { (bytes + 7) & ~7 }
}

/// A file in memory.
private final class MetricMapping: @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let size: Int

    init?(_ descriptor: Int32, size: Int, writable: Bool) {
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        guard let base = mmap(nil, size, protection, MAP_SHARED, descriptor, 0), base != MAP_FAILED else { return nil }
        self.base = base
        self.size = size
    }

    deinit { munmap(base, size) }

    func word(at offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (base + offset).bindMemory(to: Atomic<UInt64>.self, capacity: 1)
    }

    struct Record {
        var kind: MetricBlock.Kind
        var labels: [String]
        var cellsOffset: Int
        var cellCount: Int
    }

    /// - Parameter limit: bytes of the file that exist. Whatever is in it, nothing beyond is touched.
    func records(limit: Int) -> [Record] {
        let layout = MetricFileLayout.self
        guard limit >= layout.headerBytes, word(at: 0).pointee.load(ordering: .relaxed) == layout.magic else {
            return []
        }
        let used = min(Int(clamping: word(at: layout.usedOffset).pointee.load(ordering: .acquiring)), limit)
        var result: [Record] = []
        var offset = layout.headerBytes
        while offset + 16 <= used {
            let size = Int(clamping: word(at: offset).pointee.load(ordering: .relaxed))
            let tag = word(at: offset + 8).pointee.load(ordering: .relaxed)
            let labelBytes = Int(tag & 0xffff_ffff)
            let cells = 16 + layout.rounded(labelBytes)
            guard size >= cells, size % 8 == 0, size <= used - offset else { break }
            if let kind = MetricBlock.Kind(rawValue: UInt32(tag >> 32)) {
                let text = UnsafeRawBufferPointer(start: base + offset + 16, count: labelBytes)
                let labels = text.split(separator: 0, omittingEmptySubsequences: false).dropLast()
                result.append(
                    Record(
                        kind: kind, labels: labels.map { String(decoding: $0, as: UTF8.self) },
                        cellsOffset: offset + cells, cellCount: (size - cells) / 8))
            }
            offset += size
        }
        return result
    }

    func block(_ record: Record) -> MetricBlock {
        MetricBlock(
            kind: record.kind, labels: record.labels,
            cells: MetricCells(mapped: base + record.cellsOffset, count: record.cellCount, owner: self))
    }
}

/// The file that this process writes. Its lock, held until the process ends, says that the process is alive.
private final class MetricFile: @unchecked Sendable {
    private let directory: String
    private let name: String
    private let descriptor: Int32
    private let mapping: MetricMapping
    /// Bytes that the file really has.
    private var allocatedBytes: Int
    private var inherited: [MetricMapping.Record]

    init?(directory: String, index: Int) {
        let layout = MetricFileLayout.self
        // The predecessor may still be ending, or be of another version: then there is one more file.
        for attempt in 0..<16 {
            let name = "frontend-\(index)" + (attempt == 0 ? "" : "-\(attempt)") + layout.suffix
            let descriptor = open("\(directory)/\(name)", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { return nil }
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0,
                posix_fallocate(descriptor, 0, off_t(layout.headerBytes)) == 0,
                let mapping = MetricMapping(descriptor, size: layout.capacity, writable: true)
            {
                let magic = mapping.word(at: 0).pointee.load(ordering: .relaxed)
                if magic == 0 || magic == layout.magic {
                    self.directory = directory
                    self.name = name
                    self.descriptor = descriptor
                    self.mapping = mapping
                    allocatedBytes = Self.size(of: descriptor)
                    inherited = mapping.records(limit: min(allocatedBytes, layout.capacity))
                    if magic == 0 {
                        mapping.word(at: layout.usedOffset).pointee.store(
                            UInt64(layout.headerBytes), ordering: .relaxed)
                        mapping.word(at: 0).pointee.store(layout.magic, ordering: .releasing)
                    }
                    return
                }
            }
            close(descriptor)
        }
        return nil
    }

    deinit { close(descriptor) }

    fileprivate static func size(of descriptor: Int32) -> Int {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
    }

    var startTime: Double {
        Double(bitPattern: mapping.word(at: MetricFileLayout.startOffset).pointee.load(ordering: .relaxed))
    }

    func noteStart(_ time: Double) {
        guard startTime == 0 else { return }
        mapping.word(at: MetricFileLayout.startOffset).pointee.store(time.bitPattern, ordering: .relaxed)
    }

    /// Records of the predecessor that this process has not gone on with (it had more threads, say).
    func unclaimed() -> [MetricBlock] { inherited.map(mapping.block) }

    func claim(_ kind: MetricBlock.Kind, _ labels: [String], _ count: Int) -> MetricCells? {
        if let index = inherited.firstIndex(where: { $0.kind == kind && $0.labels == labels && $0.cellCount == count })
        {
            return mapping.block(inherited.remove(at: index)).cells
        }
        let layout = MetricFileLayout.self
        let text: [UInt8] = labels.flatMap { $0.utf8 + [0] }
        let cells = 16 + layout.rounded(text.count)
        let size = cells + count * 8
        let used = mapping.word(at: layout.usedOffset)
        let offset = Int(clamping: used.pointee.load(ordering: .relaxed))
        guard reserve(offset + size) else { return nil }
        mapping.word(at: offset).pointee.store(UInt64(size), ordering: .relaxed)
        mapping.word(at: offset + 8).pointee.store(
            UInt64(kind.rawValue) << 32 | UInt64(text.count), ordering: .relaxed)
        (mapping.base + offset + 16).copyMemory(from: text, byteCount: text.count)
        // From here on readers see it.
        used.pointee.store(UInt64(offset + size), ordering: .releasing)
        return MetricCells(mapped: mapping.base + offset + cells, count: count, owner: mapping)
    }

    /// Touching a mapped page that the disk has no room for would kill the process.
    private func reserve(_ bytes: Int) -> Bool {
        guard bytes <= MetricFileLayout.capacity else { return false }
        if bytes <= allocatedBytes { return true }
        let wanted = min(MetricFileLayout.capacity, (bytes + 0xffff) & ~0xffff)
        guard posix_fallocate(descriptor, 0, off_t(wanted)) == 0 else { return false }
        allocatedBytes = wanted
        return true
    }

    func siblings() -> [MetricSibling] {
        var result: [MetricSibling] = []
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        while let entry = readdir(stream) {
            let other = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard other != name, other.hasSuffix(MetricFileLayout.suffix) else { continue }
            if let sibling = MetricSibling(path: "\(directory)/\(other)") { result.append(sibling) }
        }
        return result
    }
}

/// The file of another frontend, for reading.
private final class MetricSibling {
    private let descriptor: Int32
    private let mapping: MetricMapping
    private let size: Int

    init?(path: String) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { return nil }
        size = MetricFile.size(of: descriptor)
        guard size >= MetricFileLayout.headerBytes, size <= MetricFileLayout.capacity,
            let mapping = MetricMapping(descriptor, size: size, writable: false)
        else {
            close(descriptor)
            return nil
        }
        self.mapping = mapping
    }

    deinit { close(descriptor) }

    /// Whether somebody writes it.
    var isAlive: Bool {
        guard flock(descriptor, LOCK_SH | LOCK_NB) == 0 else { return true }
        flock(descriptor, LOCK_UN)
        return false
    }

    var startTime: Double {
        Double(bitPattern: mapping.word(at: MetricFileLayout.startOffset).pointee.load(ordering: .relaxed))
    }

    func blocks() -> [MetricBlock] { mapping.records(limit: size).map(mapping.block) }
}
