import Synchronization

/// A BPE model: turns one piece of text into token ids.
///
/// In a byte-level model the symbols are bytes; otherwise they are characters, with byte tokens (`<0xE2>`) or the
/// unknown token for characters outside the vocabulary.
final class BytePairModel: @unchecked Sendable {
    struct Options {
        var isByteLevel = false
        /// A piece that is in the vocabulary is taken as it is.
        var ignoreMerges = false
        var fuseUnknown = false
        var unknownID: Int32?
        /// Ids of `<0x00>` … `<0xFF>`, nil entries where the vocabulary lacks them; nil without byte fallback.
        var byteFallback: [Int32?]?
    }

    /// What the model matches: raw bytes in byte-level models, else UTF-8.
    let pieces: ByteStringTable
    private let merges: MergeTable
    private let options: Options
    /// Initial symbol of each byte (byte-level) or of each scalar below 0x10000; -1 where there is none.
    private let symbols: UnsafeMutablePointer<Int32>
    private static let directScalars = 0x10000
    /// Per token: what merging its own text gives. Learnt on first use; writers agree, so relaxed order suffices.
    private let outcomes: UnsafeMutablePointer<Atomic<UInt8>>

    private enum Outcome {
        static let unknown: UInt8 = 0
        static let itself: UInt8 = 1
        static let other: UInt8 = 2
    }

    init(pieces: ByteStringTable, merges: MergeTable, options: Options) {
        self.pieces = pieces
        self.merges = merges
        self.options = options
        let count = options.isByteLevel ? 256 : Self.directScalars
        symbols = .allocate(capacity: count)
        symbols.initialize(repeating: -1, count: count)
        for id in 0..<pieces.count {
            let piece = pieces[id]
            guard let base = piece.baseAddress, !piece.isEmpty else { continue }
            guard piece.count == (options.isByteLevel ? 1 : sequenceLength(base[0])), piece.count < 4,
                pieces.id(of: piece) == Int32(id)
            else { continue }
            symbols[options.isByteLevel ? Int(base[0]) : Int(decodeScalar(base, at: 0).scalar)] = Int32(id)
        }
        outcomes = .allocate(capacity: max(1, pieces.count))
        for id in 0..<max(1, pieces.count) { (outcomes + id).initialize(to: Atomic(Outcome.unknown)) }
    }

    deinit {
        symbols.deallocate()
        outcomes.deinitialize(count: max(1, pieces.count))
        outcomes.deallocate()
    }

    /// Appends the tokens of one piece (valid UTF-8, except that byte-level pieces may be any bytes).
    @inline(__always)
    func encode(_ piece: UnsafeBufferPointer<UInt8>, scratch: MergeScratch, into ids: inout [Int32]) {
        guard let base = piece.baseAddress, piece.count > 0 else { return }
        guard let whole = pieces.id(of: base, count: piece.count) else {
            return merge(piece, scratch: scratch, into: &ids)
        }
        if options.ignoreMerges { return ids.append(whole) }
        switch outcomes[Int(whole)].load(ordering: .relaxed) {
        case Outcome.itself: ids.append(whole)
        case Outcome.other: merge(piece, scratch: scratch, into: &ids)
        default:
            let before = ids.count
            merge(piece, scratch: scratch, into: &ids)
            let isItself = ids.count == before + 1 && ids[before] == whole
            outcomes[Int(whole)].store(isItself ? Outcome.itself : Outcome.other, ordering: .relaxed)
        }
    }

    private func merge(_ piece: UnsafeBufferPointer<UInt8>, scratch: MergeScratch, into ids: inout [Int32]) {
        scratch.reserve(piece.count)
        let count = options.isByteLevel ? byteSymbols(piece, scratch) : characterSymbols(piece, scratch)
        let merged = scratch.merge(count: count, with: merges)
        ids.append(contentsOf: UnsafeBufferPointer(start: scratch.symbols, count: merged))
    }

    private func byteSymbols(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: MergeScratch) -> Int {
        var symbols = SymbolWriter(scratch: scratch, options: options)
        for byte in piece { symbols.add(self.symbols[Int(byte)]) }
        return symbols.finish()
    }

    private func characterSymbols(_ piece: UnsafeBufferPointer<UInt8>, _ scratch: MergeScratch) -> Int {
        guard let base = piece.baseAddress else { return 0 }
        var symbols = SymbolWriter(scratch: scratch, options: options)
        var index = 0
        while index < piece.count {
            let (scalar, length) = decodeScalar(base, at: index)
            let id =
                scalar < Self.directScalars
                ? self.symbols[Int(scalar)] : pieces.id(of: base + index, count: length) ?? -1
            if id >= 0 || !symbols.addBytes(base + index, length) { symbols.add(id) }
            index += length
        }
        return symbols.finish()
    }

    /// Collects initial symbols; unknown characters wait until a known one decides how many unknown tokens there are.
    private struct SymbolWriter {
        let scratch: MergeScratch
        let options: Options
        var count = 0
        var hasPendingUnknown = false

        @inline(__always)
        mutating func add(_ id: Int32) {
            if id >= 0 {
                if hasPendingUnknown { flush() }
                scratch.symbols[count] = id
                count &+= 1
            } else if options.unknownID != nil {
                if hasPendingUnknown, !options.fuseUnknown { flush() }
                hasPendingUnknown = true
            }
        }

        /// Byte tokens do not flush a waiting unknown token: it then comes behind them, as in `tokenizers`.
        mutating func addBytes(_ bytes: UnsafePointer<UInt8>, _ length: Int) -> Bool {
            guard let fallback = options.byteFallback else { return false }
            for index in 0..<length where fallback[Int(bytes[index])] == nil { return false }
            for index in 0..<length {
                scratch.symbols[count] = fallback[Int(bytes[index])]!
                count += 1
            }
            return true
        }

        mutating func flush() {
            scratch.symbols[count] = options.unknownID ?? 0
            count += 1
            hasPendingUnknown = false
        }

        mutating func finish() -> Int {
            if hasPendingUnknown { flush() }
            return count
        }
    }
}
