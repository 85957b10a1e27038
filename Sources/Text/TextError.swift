import Tokenization

/// Why a model folder cannot be used, or bad words cannot be enforced. `description` is meant for people.
package struct TextError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
    init(_ error: TokenizerError) { description = error.description }
}
