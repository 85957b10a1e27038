/// Finds markers such as `</think>` in text that arrives in pieces.
///
/// Every marker begins with `<` and contains no other `<`, so at most one of them can be open at a time and what has to
/// be held back is shorter than the longest marker.
struct MarkerScanner {
    enum Piece {
        /// Text without markers; only valid during the call.
        case text(UnsafeBufferPointer<UInt8>)
        /// Index into the scanner's markers.
        case marker(Int)
    }

    let markers: [[UInt8]]
    private var held: [UInt8] = []

    init(_ markers: [String]) {
        self.markers = markers.map { Array($0.utf8) }
        for marker in self.markers {
            precondition(marker.first == UInt8(ascii: "<") && !marker.dropFirst().contains(UInt8(ascii: "<")))
        }
        held.reserveCapacity(32)
    }

    mutating func scan(_ text: UnsafeBufferPointer<UInt8>, _ handle: (Piece) -> Void) {
        var start = 0
        var index = 0
        while index < text.count {
            if held.isEmpty {
                guard let open = text[index...].firstIndex(of: UInt8(ascii: "<")) else { break }
                if open > start { handle(.text(UnsafeBufferPointer(rebasing: text[start..<open]))) }
                held.append(UInt8(ascii: "<"))
                index = open + 1
                start = index
                continue
            }
            held.append(text[index])
            if let marker = markers.firstIndex(of: held) {
                held.removeAll(keepingCapacity: true)
                index += 1
                start = index
                handle(.marker(marker))
            } else if markers.contains(where: { $0.starts(with: held) }) {
                index += 1
                start = index
            } else {
                // Not a marker after all. The byte that decided it may begin one itself, so it is looked at again.
                held.removeLast()
                release(handle)
                start = index
            }
        }
        if start < text.count { handle(.text(UnsafeBufferPointer(rebasing: text[start...]))) }
    }

    /// Gives out what is held back: no more text will come.
    mutating func finish(_ handle: (Piece) -> Void) { if !held.isEmpty { release(handle) } }

    private mutating func release(_ handle: (Piece) -> Void) {
        held.withUnsafeBufferPointer { handle(.text($0)) }
        held.removeAll(keepingCapacity: true)
    }
}
