/// Split patterns of common models, recognised by their exact text and matched by hand-written scanners that return
/// the same pieces as the regular expression, several times faster.
package enum KnownSplitPattern: Sendable, Equatable {
    case gpt2
    /// cl100k, Llama 3 (3 digits), Qwen 2, 2.5 and 3 (1 digit)
    case cl100k(maximumDigits: Int)
    /// GPT-4o and its open descendants; Mistral's Tekken has no contractions and single digits.
    case o200k(contractions: Bool, maximumDigits: Int)
    /// The three patterns that DeepSeek V2/V3 tokenizers apply one after the other.
    case deepSeekDigits, deepSeekCJK, deepSeekWords

    /// The regular expressions as they are spelled in `tokenizer.json` files.
    package static let texts: [(pattern: KnownSplitPattern, text: String)] = [
        (.gpt2, #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#),
        (
            .cl100k(maximumDigits: 3),
            contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"# + whiteSpaceTail
        ),
        (
            .cl100k(maximumDigits: 1),
            contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"# + whiteSpaceTail
        ),
        (
            .o200k(contractions: true, maximumDigits: 3),
            titleWord + contractions + "?|" + capitalWord + contractions
                + #"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"# + whiteSpaceTail
        ),
        (
            .o200k(contractions: false, maximumDigits: 1),
            titleWord + "|" + capitalWord + #"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"# + whiteSpaceTail
        ),
        (.deepSeekDigits, #"\p{N}{1,3}"#),
        (.deepSeekCJK, "[一-龥぀-ゟ゠-ヿ]+"),
        (
            .deepSeekWords,
            ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"##
                + whiteSpaceTail
        ),
    ]

    private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    private static let whiteSpaceTail = #"|\s*[\r\n]+|\s+(?!\S)|\s+"#
    private static let titleWord =
        #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"#
    private static let capitalWord =
        #"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"#

    package init?(text: String) {
        guard let known = Self.texts.first(where: { $0.text.utf8.elementsEqual(text.utf8) }) else { return nil }
        self = known.pattern
    }
}

/// Finds the pattern's match that starts exactly at a position of a valid UTF-8 text.
struct SplitScanner {
    private let bytes: UnsafePointer<UInt8>
    private let count: Int
    private let classes: CharacterClasses

    init(_ text: UnsafeBufferPointer<UInt8>) {
        // A scanner is never asked about an empty text, but its base address may then be nil.
        bytes = text.baseAddress ?? UnsafePointer(bitPattern: 1)!
        count = text.count
        classes = .shared
    }

    /// - Returns: the end of the match, or `start` when the pattern does not match there.
    @inline(__always)
    func matchEnd(_ pattern: KnownSplitPattern, at start: Int) -> Int {
        switch pattern {
        case .gpt2: gpt2(start)
        case .cl100k(let digits): cl100k(start, maximumDigits: digits)
        case .o200k(let contractions, let digits): o200k(start, contractions: contractions, maximumDigits: digits)
        case .deepSeekDigits: run(start, of: .number, atMost: 3)
        case .deepSeekCJK: deepSeekCJK(start)
        case .deepSeekWords: deepSeekWords(start)
        }
    }

    // MARK: Patterns

    @inline(__always)
    private func gpt2(_ start: Int) -> Int {
        if let end = contraction(start, ignoringCase: false) { return end }
        var (first, next) = class_(start)
        let word = next
        if bytes[start] == 0x20, next < count { (first, next) = class_(word) }
        if first.meets(.letter) { return run(next, of: .letter) }
        if first.meets(.number) { return run(next, of: .number) }
        if !first.meets(.space) { return run(next, outside: [.space, .letter, .number]) }
        return whiteSpace(start)
    }

    @inline(__always)
    private func cl100k(_ start: Int, maximumDigits: Int) -> Int {
        if let end = contraction(start, ignoringCase: true) { return end }
        let (first, second) = class_(start)
        if first.meets(.letter) { return run(second, of: .letter) }
        if first.meets(.number) { return run(start, of: .number, atMost: maximumDigits) }
        if second < count, !isNewline(start) {
            let (following, third) = class_(second)
            if following.meets(.letter) { return run(third, of: .letter) }
        }
        if let end = symbols(start, trailing: .newlines) { return end }
        return newlinesOrWhiteSpace(start)
    }

    @inline(__always)
    private func o200k(_ start: Int, contractions: Bool, maximumDigits: Int) -> Int {
        let (first, second) = class_(start)
        if first.meets(.number) { return run(start, of: .number, atMost: maximumDigits) }
        if let end = casedWord(start, first: first, second: second) {
            return contractions ? contraction(end, ignoringCase: true) ?? end : end
        }
        if let end = symbols(start, trailing: .newlinesAndSlashes) { return end }
        return newlinesOrWhiteSpace(start)
    }

    private func deepSeekCJK(_ start: Int) -> Int {
        var position = start
        while position < count {
            let (scalar, length) = decodeScalar(bytes, at: position)
            guard (0x4E00...0x9FA5).contains(scalar) || (0x3040...0x30FF).contains(scalar) else { break }
            position += length
        }
        return position
    }

    private func deepSeekWords(_ start: Int) -> Int {
        let (first, second) = class_(start)
        if bytes[start] < 0x80, first.meets(.punctuation) {
            var end = second
            while end < count, (bytes[end] | 0x20) &- 0x61 < 26 { end += 1 }
            if end > second { return end }
        }
        let word: CharacterClass = [.letter, .mark]
        if first.meets(word) { return run(second, of: word) }
        if !first.meets(.punctuation), !isNewline(start), second < count {
            let (following, third) = class_(second)
            if following.meets(word) { return run(third, of: word) }
        }
        if first.meets(.punctuation) { return skipNewlines(run(second, of: .punctuation)) }
        if bytes[start] == 0x20, second < count {
            let (following, third) = class_(second)
            if following.meets(.punctuation) { return skipNewlines(run(third, of: .punctuation)) }
        }
        return first.meets(.space) ? newlinesOrWhiteSpace(start) : start
    }

    // MARK: Parts

    /// `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll`, `'d`; without regard to case also `'ſ` (U+017F).
    @inline(__always)
    private func contraction(_ start: Int, ignoringCase: Bool) -> Int? {
        guard start &+ 1 < count, bytes[start] == 0x27 else { return nil }
        let fold: UInt8 = ignoringCase ? 0x20 : 0
        let first = bytes[start &+ 1]
        switch first | fold {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return start &+ 2
        default: break
        }
        guard start &+ 2 < count else { return nil }
        let second = bytes[start &+ 2]
        switch (first | fold, second | fold) {
        case (UInt8(ascii: "r"), UInt8(ascii: "e")), (UInt8(ascii: "v"), UInt8(ascii: "e")),
            (UInt8(ascii: "l"), UInt8(ascii: "l")):
            return start &+ 3
        default: return ignoringCase && first == 0xC5 && second == 0xBF ? start &+ 3 : nil
        }
    }

    /// The first two alternatives of o200k: an optional other character, then capitals followed by small letters;
    /// titleless letters and marks count as both.
    private func casedWord(_ start: Int, first: CharacterClass, second: Int) -> Int? {
        let canPrefix = !first.meets([.letter, .number]) && !isNewline(start)
        if canPrefix, second < count, let end = titleCase(second) { return end }
        if let end = titleCase(start) { return end }
        if canPrefix, second < count, let end = capitals(second) { return end }
        return capitals(start)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` with the regex's backtracking.
    private func titleCase(_ start: Int) -> Int? {
        var position = start
        // End of the last character that can also stand for a small letter.
        var lastSmall: Int?
        while position < count {
            let (value, next) = class_(position)
            if value.meets(.lower) { return run(next, of: [.lower, .otherLetter, .mark]) }
            if value.meets([.otherLetter, .mark]) {
                lastSmall = next
            } else if !value.meets(.upper) {
                break
            }
            position = next
        }
        return lastSmall
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
    private func capitals(_ start: Int) -> Int? {
        let end = run(start, of: [.upper, .otherLetter, .mark])
        return end > start ? run(end, of: [.lower, .otherLetter, .mark]) : nil
    }

    private enum Trailing { case newlines, newlinesAndSlashes }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    @inline(__always)
    private func symbols(_ start: Int, trailing: Trailing) -> Int? {
        var position = start
        if bytes[start] == 0x20 { position &+= 1 }
        guard position < count else { return nil }
        let (first, next) = class_(position)
        guard !first.meets([.space, .letter, .number]) else { return nil }
        var end = run(next, outside: [.space, .letter, .number])
        while end < count, isNewline(end) || (trailing == .newlinesAndSlashes && bytes[end] == 0x2F) { end &+= 1 }
        return end
    }

    private func skipNewlines(_ start: Int) -> Int {
        var end = start
        while end < count, isNewline(end) { end &+= 1 }
        return end
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`
    @inline(__always)
    private func newlinesOrWhiteSpace(_ start: Int) -> Int {
        var end = start
        var afterNewline = start
        var lastCharacter = start
        while end < count {
            let (value, next) = class_(end)
            guard value.meets(.space) else { break }
            if isNewline(end) { afterNewline = next }
            lastCharacter = end
            end = next
        }
        if afterNewline > start { return afterNewline }
        return end == count || lastCharacter == start ? end : lastCharacter
    }

    /// `\s+(?!\S)|\s+`: a word keeps the last space before it.
    @inline(__always)
    private func whiteSpace(_ start: Int) -> Int {
        var end = start
        var lastCharacter = start
        while end < count {
            let (value, next) = class_(end)
            guard value.meets(.space) else { break }
            lastCharacter = end
            end = next
        }
        return end == count || lastCharacter == start ? end : lastCharacter
    }

    // MARK: Characters

    @inline(__always)
    private func isNewline(_ index: Int) -> Bool { bytes[index] == 0x0A || bytes[index] == 0x0D }

    /// The class of the character at `index` and where the next one starts.
    @inline(__always)
    private func class_(_ index: Int) -> (CharacterClass, Int) {
        let (scalar, length) = decodeScalar(bytes, at: index)
        return (classes[scalar], index &+ length)
    }

    @inline(__always)
    private func run(_ start: Int, of wanted: CharacterClass, atMost limit: Int = .max) -> Int {
        var position = start
        var remaining = limit
        while position < count, remaining > 0 {
            let (value, next) = class_(position)
            guard value.meets(wanted) else { break }
            position = next
            remaining &-= 1
        }
        return position
    }

    @inline(__always)
    private func run(_ start: Int, outside unwanted: CharacterClass) -> Int {
        var position = start
        while position < count {
            let (value, next) = class_(position)
            guard !value.meets(unwanted) else { break }
            position = next
        }
        return position
    }
}
