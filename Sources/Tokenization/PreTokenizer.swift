/// One step that cuts a text into pieces (the `pre_tokenizer` of `tokenizer.json`, flattened).
enum PreTokenizerStage: Sendable {
    /// Puts a space in front of each piece that does not start with one (`ByteLevel` with `add_prefix_space`).
    case prefixSpace
    case split(SplitMatcher, SplitBehavior)
    /// Spaces become `replacement`, which is also put in front by `prepend`; `split` cuts before each replacement.
    case metaspace(replacement: [UInt8], prepend: PrependScheme, split: Bool)
    /// Cuts where a run of `marker` begins. Not part of any file: a vocabulary without a token across such a place merges
    /// the parts as it would merge the whole, but short pieces are much faster.
    case wordStarts(marker: [UInt8])
}

enum PrependScheme: String, Sendable {
    case always
    /// Only at the very start of the text.
    case first
    case never
}

/// What becomes of the matches of a split pattern.
enum SplitBehavior: String, Sendable {
    case removed = "Removed"
    case isolated = "Isolated"
    case mergedWithPrevious = "MergedWithPrevious"
    case mergedWithNext = "MergedWithNext"
    case contiguous = "Contiguous"
}

package enum SplitMatcher: Sendable {
    case known(KnownSplitPattern)
    /// Not empty.
    case literal([UInt8])
    case regularExpression(RegularExpression)
    /// Each character of category N.
    case digit
    /// The gaps of another matcher instead of its matches.
    indirect case inverted(SplitMatcher)

    /// Calls `body` with every stretch of `text`, match or not, left to right; nothing is empty.
    package func forEachStretch(
        of text: UnsafeBufferPointer<UInt8>, _ body: (Range<Int>, _ isMatch: Bool) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        guard let base = text.baseAddress, text.count > 0 else { return }
        var done = 0
        switch self {
        case .known(let pattern):
            let scanner = SplitScanner(text)
            var position = 0
            while position < text.count {
                let end = scanner.matchEnd(pattern, at: position)
                if end == position {
                    position &+= sequenceLength(base[position])
                    continue
                }
                if done < position { try body(done..<position, false) }
                try body(position..<end, true)
                position = end
                done = end
            }
        case .literal(let literal):
            var position = 0
            while text.count - position >= literal.count {
                guard base[position] == literal[0], text[position..<position + literal.count].elementsEqual(literal)
                else {
                    position += 1
                    continue
                }
                if done < position { try body(done..<position, false) }
                position += literal.count
                try body(position - literal.count..<position, true)
                done = position
            }
        case .digit:
            let classes = CharacterClasses.shared
            var position = 0
            while position < text.count {
                let (scalar, length) = decodeScalar(base, at: position)
                if classes[scalar].meets(.number) {
                    if done < position { try body(done..<position, false) }
                    try body(position..<position + length, true)
                    done = position + length
                }
                position += length
            }
        case .regularExpression(let expression):
            try expression.forEachMatch(in: text) { start, end throws(TokenizerError) in
                if done < start { try body(done..<start, false) }
                try body(start..<end, true)
                done = end
            }
        case .inverted(let matcher):
            return try matcher.forEachStretch(of: text) { range, isMatch throws(TokenizerError) in
                try body(range, !isMatch)
            }
        }
        if done < text.count { try body(done..<text.count, false) }
    }
}

/// Runs the stages one inside the other; the last one hands its pieces on.
struct PreTokenizer: Sendable {
    var stages: [PreTokenizerStage]

    typealias Piece = UnsafeBufferPointer<UInt8>

    /// - Parameter isStart: whether `text` is the beginning of the whole input.
    @inline(__always)
    func forEachPiece(
        of text: Piece, isStart: Bool, _ body: (Piece) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        if stages.count == 1, case .split(.known(let pattern), .isolated) = stages[0], let base = text.baseAddress {
            // The usual case, without the detour over stretches.
            let scanner = SplitScanner(text)
            var position = 0
            var done = 0
            while position < text.count {
                let end = scanner.matchEnd(pattern, at: position)
                if end == position {
                    position &+= sequenceLength(base[position])
                    continue
                }
                if done < position { try body(Piece(start: base + done, count: position &- done)) }
                try body(Piece(start: base + position, count: end &- position))
                position = end
                done = end
            }
            if done < text.count { try body(Piece(start: base + done, count: text.count &- done)) }
            return
        }
        try run(0, text, isStart, body)
    }

    private func run(
        _ index: Int, _ text: Piece, _ isStart: Bool, _ body: (Piece) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        if text.isEmpty { return }
        guard index < stages.count else { return try body(text) }
        let next = index + 1
        switch stages[index] {
        case .prefixSpace:
            if text[0] == 0x20 { return try run(next, text, isStart, body) }
            let prefixed = [0x20] + Array(text)
            try prefixed.withUnsafeBufferPointer { piece throws(TokenizerError) in
                try run(next, piece, isStart, body)
            }
        case .split(let matcher, .isolated):
            try matcher.forEachStretch(of: text) { range, _ throws(TokenizerError) in
                try run(next, Piece(rebasing: text[range]), isStart && range.lowerBound == 0, body)
            }
        case .split(let matcher, .removed):
            try matcher.forEachStretch(of: text) { range, isMatch throws(TokenizerError) in
                if isMatch { return }
                try run(next, Piece(rebasing: text[range]), isStart && range.lowerBound == 0, body)
            }
        case .split(let matcher, let behavior):
            var stretches: [(range: Range<Int>, isMatch: Bool)] = []
            try matcher.forEachStretch(of: text) { range, isMatch throws(TokenizerError) in
                stretches.append((range, isMatch))
            }
            for range in Self.merged(stretches, behavior) {
                try run(next, Piece(rebasing: text[range]), isStart && range.lowerBound == 0, body)
            }
        case .wordStarts(let marker):
            var start = 0
            var index = 0
            var isInRun = true
            while index < text.count {
                let isMarker =
                    text[index] == marker[0] && text.count - index >= marker.count
                    && text[index..<index + marker.count].elementsEqual(marker)
                if isMarker, !isInRun {
                    try run(next, slice(text, start..<index), isStart && start == 0, body)
                    start = index
                }
                isInRun = isMarker
                index += isMarker ? marker.count : sequenceLength(text[index])
            }
            try run(next, slice(text, start..<text.count), isStart && start == 0, body)
        case .metaspace(let replacement, let prepend, let split):
            var replaced: [UInt8] = []
            replaced.reserveCapacity(text.count + text.count / 2)
            let wantsPrefix = prepend == .always || (prepend == .first && isStart)
            if wantsPrefix, text[0] != 0x20, !text.starts(with: replacement) { replaced += replacement }
            for byte in text { if byte == 0x20 { replaced += replacement } else { replaced.append(byte) } }
            let matcher = SplitMatcher.literal(replacement)
            try replaced.withUnsafeBufferPointer { piece throws(TokenizerError) in
                guard split else { return try run(next, piece, isStart, body) }
                var pending: Int?
                try matcher.forEachStretch(of: piece) { range, isMatch throws(TokenizerError) in
                    if isMatch {
                        if let start = pending {
                            try run(next, slice(piece, start..<range.lowerBound), false, body)
                        }
                        pending = range.lowerBound
                    } else {
                        try run(next, slice(piece, (pending ?? range.lowerBound)..<range.upperBound), false, body)
                        pending = nil
                    }
                }
                if let start = pending { try run(next, slice(piece, start..<piece.count), false, body) }
            }
        }
    }

    private func slice(_ piece: Piece, _ range: Range<Int>) -> Piece { Piece(rebasing: piece[range]) }

    private static func merged(
        _ stretches: [(range: Range<Int>, isMatch: Bool)], _ behavior: SplitBehavior
    ) -> [Range<Int>] {
        var pieces: [Range<Int>] = []
        var previousIsMatch = false
        switch behavior {
        case .mergedWithPrevious:
            for (range, isMatch) in stretches {
                if isMatch, !previousIsMatch, let last = pieces.popLast() {
                    pieces.append(last.lowerBound..<range.upperBound)
                } else {
                    pieces.append(range)
                }
                previousIsMatch = isMatch
            }
        case .mergedWithNext:
            for (range, isMatch) in stretches.reversed() {
                if isMatch, !previousIsMatch, let last = pieces.popLast() {
                    pieces.append(range.lowerBound..<last.upperBound)
                } else {
                    pieces.append(range)
                }
                previousIsMatch = isMatch
            }
            pieces.reverse()
        case .contiguous:
            for (range, isMatch) in stretches {
                if isMatch == previousIsMatch, let last = pieces.popLast() {
                    pieces.append(last.lowerBound..<range.upperBound)
                } else {
                    pieces.append(range)
                }
                previousIsMatch = isMatch
            }
        case .isolated, .removed: pieces = stretches.map(\.range)
        }
        return pieces
    }
}
