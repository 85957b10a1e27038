import Tokenization

/// Texts of single tokens, for log-probabilities.
extension TextModel {
    /// The text of one token as vLLM shows it: special tokens included, leading spaces kept, "" for an incomplete
    /// character and for ids outside the vocabulary.
    package func tokenText(_ id: Int32) -> String {
        let text = decodedToken(id)
        return Self.endsIncomplete(text) ? "" : text
    }

    /// The text of one token that was sampled after `context`: a token that completes a character shows the whole of
    /// it, the tokens before it showed "".
    package func tokenText(_ id: Int32, after context: some BidirectionalCollection<Int32>) -> String {
        let text = decodedToken(id)
        guard Self.endsIncomplete(text) else { return text }
        // A character has at most four bytes, so that four tokens of context are enough.
        let recent = Array(context.suffix(4))
        for count in stride(from: 1, through: recent.count, by: 1) {
            let tail = recent.suffix(count)
            let whole = tokenizer.decode(tail + [id], skipSpecialTokens: false)
            if Self.endsIncomplete(whole) { continue }
            // Tokens whose own text was empty belong to this one.
            let clean = tail.prefix(
                upTo: tail.lastIndex { !Self.endsIncomplete(tokenizer.decode([$0], skipSpecialTokens: false)) }
                    .map { $0 + 1 } ?? tail.startIndex)
            let known = clean.isEmpty ? "" : tokenizer.decode(clean, skipSpecialTokens: false)
            let common = zip(known.unicodeScalars, whole.unicodeScalars).prefix { $0 == $1 }.count
            return String(String.UnicodeScalarView(whole.unicodeScalars.dropFirst(common)))
        }
        return ""
    }

    private func decodedToken(_ id: Int32) -> String {
        if tokenizer.spaceMarker == nil, let text = tokenizer.standaloneText(id) { return text }
        let text = tokenizer.decode(CollectionOfOne(id), skipSpecialTokens: false)
        // Decoding a first token drops its leading spaces; the vocabulary still has them.
        guard let marker = tokenizer.spaceMarker?.unicodeScalars.first,
            let name = tokenizer.tokenString(id), name.unicodeScalars.first == marker
        else { return text }
        let marked = name.unicodeScalars.prefix { $0 == marker }.count
        let present = text.utf8.prefix { $0 == 0x20 }.count
        return String(repeating: " ", count: max(0, marked - present)) + text
    }

    private static func endsIncomplete(_ text: String) -> Bool { text.unicodeScalars.last == "\u{FFFD}" }
}
