/// Stop strings, prepared for matching (Knuth, Morris and Pratt); shared by all sequences of a request.
package struct StopStrings: Sendable {
    /// One string with, for each length of a matched beginning, the length to fall back to.
    fileprivate struct Pattern: Sendable {
        let text: String
        let bytes: [UInt8]
        let fallback: [Int32]

        init(_ text: String) {
            self.text = text
            bytes = Array(text.utf8)
            var fallback = [Int32](repeating: 0, count: bytes.count + 1)
            var length = 0
            for index in 1..<max(1, bytes.count) {
                while length > 0, bytes[index] != bytes[length] { length = Int(fallback[length]) }
                if bytes[index] == bytes[length] { length += 1 }
                fallback[index + 1] = Int32(truncatingIfNeeded: length)
            }
            self.fallback = fallback
        }
    }

    fileprivate let patterns: [Pattern]

    /// - Parameter strings: in the order of the request; the first wins when two end at the same place. Empty strings,
    ///   which requests must not contain, never match.
    package init(_ strings: [String]) {
        patterns = strings.filter { !$0.isEmpty }.map { Pattern($0) }
    }

    package static let none = StopStrings([])

    package var isEmpty: Bool { patterns.isEmpty }
}

/// Looks for stop strings in text that arrives in pieces.
struct StopStringMatcher: Sendable {
    private let strings: StopStrings
    /// Per string, how much of its beginning the text ends with.
    private var matched: [Int]

    init(_ strings: StopStrings) {
        self.strings = strings
        matched = [Int](repeating: 0, count: strings.patterns.count)
    }

    struct Match {
        let text: String
        let length: Int
        /// Bytes of the piece up to the end of the match.
        let end: Int
    }

    /// Reads `piece` up to the first place where a stop string ends.
    /// - Parameter ignoring: passes over matches, for the tokens before `min_tokens`.
    mutating func scan(_ piece: [UInt8], ignoring: Bool) -> Match? {
        for index in piece.indices {
            let byte = piece[index]
            var found: Int?
            for number in matched.indices {
                var length = matched[number]
                let pattern = strings.patterns[number]
                while length > 0, pattern.bytes[length] != byte { length = Int(pattern.fallback[length]) }
                if pattern.bytes[length] == byte { length += 1 }
                if length == pattern.bytes.count {
                    if found == nil { found = number }
                    length = Int(pattern.fallback[length])
                }
                matched[number] = length
            }
            if let found, !ignoring {
                let pattern = strings.patterns[found]
                return Match(text: pattern.text, length: pattern.bytes.count, end: index + 1)
            }
        }
        return nil
    }

    /// Bytes at the end of the text that may be the beginning of a stop string.
    var heldBack: Int { matched.max() ?? 0 }
}
