import Tokenization

extension TextModel {
    /// vLLM's default for `VLLM_MAX_NUM_BAD_WORDS`, counted after tokenizing.
    package static let maximumBadWords = 128

    /// The token sequences that ban `words`: each word as it stands at the beginning of a text and, where that starts
    /// with another token but has the same length, as it stands behind a space.
    package func badWordsTokenIDs(_ words: [String]) throws(TextError) -> [[Int32]] {
        var sequences: [[Int32]] = []
        var seen: Set<[UInt8]> = []
        for word in words where seen.insert(Array(word.utf8)).inserted {
            let scalars = word.unicodeScalars.drop { $0.properties.isWhitespace }
            let bare = String(String.UnicodeScalarView(scalars))
            let first = try encode(bare)
            guard !first.isEmpty else { throw TextError("bad_words entries must tokenize to at least one token.") }
            sequences.append(first)
            let spaced = try encode(" " + bare)
            if spaced.count == first.count, spaced[0] != first[0] { sequences.append(spaced) }
            guard sequences.count <= Self.maximumBadWords else {
                throw TextError(
                    "Too many bad words after tokenization. The max number is \(Self.maximumBadWords).")
            }
        }
        return sequences
    }

    private func encode(_ text: String) throws(TextError) -> [Int32] {
        do {
            return try tokenizer.encode(text, addSpecialTokens: false)
        } catch {
            throw TextError(error)
        }
    }
}
