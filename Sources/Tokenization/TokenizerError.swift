/// Why a tokenizer cannot be loaded or a text cannot be tokenized. `description` is meant for people.
package struct TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Code: Sendable, Equatable {
        /// A file is missing or cannot be read.
        case unreadable
        /// A file is not what it should be: broken JSON, wrong types, ids out of range.
        case malformed
        /// A valid description of something this module does not implement, for example a Unigram model.
        case unsupported
        /// A text needs more matching steps than the limit (only possible with unusual split patterns).
        case tooComplex
    }

    package let code: Code
    package let description: String

    package init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
