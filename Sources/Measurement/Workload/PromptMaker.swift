import Tokenization

/// Prompts of a wanted length, from a tokenizer's own words. Depends on the seed alone.
package struct PromptMaker: Sendable {
    let tokenizer: Tokenizer
    /// Without their leading space.
    private let words: [String]
    /// Ids of plain tokens, for prompts of token ids.
    private let plainIDs: [Int32]

    /// - Throws: if there is no tokenizer, or it has next to no plain words.
    package init(folder: String) throws {
        tokenizer = try Tokenizer.load(folder: folder)
        var words: [String] = []
        var ids: [Int32] = []
        for id in 0..<Int32(tokenizer.vocabularySize) where tokenizer.exists(id) && !tokenizer.isSpecial(id) {
            let text = tokenizer.decode([id], skipSpecialTokens: false)
            guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) else { continue }
            ids.append(id)
            let spelling = tokenizer.tokenString(id) ?? ""
            let word = text.drop { $0 == " " }
            if word.utf8.count >= 2, word.utf8.allSatisfy({ ($0 | 0x20) >= 0x61 && ($0 | 0x20) <= 0x7A }),
                spelling.utf8.count > word.utf8.count
            {
                words.append(String(word))
            }
        }
        guard words.count >= 16 else { throw WorkloadError("the tokenizer in \(folder) has next to no words") }
        self.words = words
        plainIDs = ids
    }

    /// Whether there are markers around reasoning, each a token of its own.
    package var knowsReasoning: Bool {
        ["<think>", "</think>"].allSatisfy { tokenizer.id(forToken: $0) != nil }
    }

    package var vocabularySize: Int { tokenizer.vocabularySize }

    package func tokenCount(_ text: String) -> Int { (try? tokenizer.encode(text, addSpecialTokens: false).count) ?? 0 }

    /// A text of about `tokens` tokens, exactly if the tokenizer lets it be.
    package func text(tokens: Int, seed: UInt64) -> String {
        var generator = SeededGenerator(seed: seed)
        var chosen = (0..<max(tokens, 1)).map { _ in words[generator.draw(below: words.count)] }
        for _ in 0..<6 {
            let surplus = tokenCount(chosen.joined(separator: " ")) - tokens
            if surplus == 0 || (surplus > 0 && chosen.count == 1) { break }
            if surplus > 0 {
                chosen.removeLast(min(surplus, chosen.count - 1))
            } else {
                chosen += (0..<(-surplus)).map { _ in words[generator.draw(below: words.count)] }
            }
        }
        return chosen.joined(separator: " ")
    }

    package func ids(tokens: Int, seed: UInt64) -> [Int32] {
        var generator = SeededGenerator(seed: seed)
        return (0..<max(tokens, 1)).map { _ in plainIDs[generator.draw(below: plainIDs.count)] }
    }
}

/// A workload that cannot be made; the message is for the user.
package struct WorkloadError: Error, CustomStringConvertible, Sendable {
    package let description: String
    package init(_ description: String) { self.description = description }
}
