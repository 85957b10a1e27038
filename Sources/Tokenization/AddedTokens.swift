/// A token that is found in the text before the model sees it (`added_tokens` of `tokenizer.json`).
struct AddedToken: Sendable {
    var id: Int32
    var content: [UInt8]
    /// Only where no word character touches it.
    var isSingleWord = false
    /// Swallows white space before it.
    var stripsLeft = false
    /// Swallows white space behind it.
    var stripsRight = false
    /// Searched in the normalised text instead of the raw one.
    var isNormalized = false
    /// Left out by `skipSpecialTokens`.
    var isSpecial = false
}

/// Finds added tokens in a text: leftmost first, then the longest.
final class AddedTokenMatcher: Sendable {
    private struct Node {
        /// Sorted by byte.
        var children: [(byte: UInt8, node: Int32)] = []
        /// Index into `tokens`, -1 for none.
        var token: Int32 = -1
    }

    private let nodes: [Node]
    private let tokens: [AddedToken]
    /// Whether a token starts with a byte.
    private let starts: [Bool]

    var isEmpty: Bool { tokens.isEmpty }

    /// - Parameter tokens: with the content that is to be found; of equal contents the last wins.
    init(_ tokens: [AddedToken]) {
        var nodes = [Node()]
        var starts = [Bool](repeating: false, count: 256)
        for (index, token) in tokens.enumerated() {
            guard let first = token.content.first else { continue }
            starts[Int(first)] = true
            var node = 0
            for byte in token.content {
                if let child = nodes[node].children.first(where: { $0.byte == byte }) {
                    node = Int(child.node)
                } else {
                    nodes.append(Node())
                    nodes[node].children.append((byte, Int32(nodes.count - 1)))
                    node = nodes.count - 1
                }
            }
            nodes[node].token = Int32(index)
        }
        self.nodes = nodes
        self.tokens = tokens
        self.starts = starts
    }

    enum Section {
        case text(Range<Int>)
        case token(Int32)
    }

    /// Cuts `text` (valid UTF-8) into added tokens and the stretches between them, in order, nothing empty.
    func forEachSection(
        of text: UnsafeBufferPointer<UInt8>, _ body: (Section) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        guard let base = text.baseAddress, text.count > 0 else { return }
        var done = 0
        var position = 0
        while position < text.count {
            guard starts[Int(base[position])], let (index, end) = match(text, at: position) else {
                position &+= 1
                continue
            }
            let token = tokens[index]
            var range = position..<end
            position = end
            if token.isSingleWord, touchesWord(text, range) { continue }
            if token.stripsLeft { range = max(done, startOfSpace(text, before: range.lowerBound))..<range.upperBound }
            if token.stripsRight { range = range.lowerBound..<endOfSpace(text, from: range.upperBound) }
            if done < range.lowerBound { try body(.text(done..<range.lowerBound)) }
            try body(.token(token.id))
            done = range.upperBound
        }
        if done < text.count { try body(.text(done..<text.count)) }
    }

    private func match(_ text: UnsafeBufferPointer<UInt8>, at start: Int) -> (token: Int, end: Int)? {
        var node = 0
        var position = start
        var best: (token: Int, end: Int)?
        while position < text.count {
            let byte = text[position]
            guard let child = nodes[node].children.first(where: { $0.byte == byte }) else { break }
            node = Int(child.node)
            position += 1
            if nodes[node].token >= 0 { best = (Int(nodes[node].token), position) }
        }
        return best
    }

    private func touchesWord(_ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> Bool {
        if range.lowerBound > 0,
            Self.isWord(decodeScalar(text.baseAddress!, at: previous(text, range.lowerBound)).scalar)
        {
            return true
        }
        return range.upperBound < text.count
            && Self.isWord(decodeScalar(text.baseAddress!, at: range.upperBound).scalar)
    }

    /// `\w` of Unicode regular expressions.
    private static func isWord(_ scalar: UInt32) -> Bool {
        guard let value = Unicode.Scalar(scalar) else { return false }
        if value.properties.isAlphabetic || scalar == 0x200C || scalar == 0x200D { return true }
        return switch value.properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark, .decimalNumber, .connectorPunctuation: true
        default: false
        }
    }

    private func previous(_ text: UnsafeBufferPointer<UInt8>, _ index: Int) -> Int {
        var index = index - 1
        while index > 0, text[index] & 0xC0 == 0x80 { index -= 1 }
        return index
    }

    private func startOfSpace(_ text: UnsafeBufferPointer<UInt8>, before end: Int) -> Int {
        let classes = CharacterClasses.shared
        var start = end
        while start > 0 {
            let character = previous(text, start)
            guard classes[decodeScalar(text.baseAddress!, at: character).scalar].meets(.space) else { break }
            start = character
        }
        return start
    }

    private func endOfSpace(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        let classes = CharacterClasses.shared
        var end = start
        while end < text.count {
            let (scalar, length) = decodeScalar(text.baseAddress!, at: end)
            guard classes[scalar].meets(.space) else { break }
            end += length
        }
        return end
    }
}
