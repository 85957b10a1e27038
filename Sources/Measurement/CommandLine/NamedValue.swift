import ArgumentParser

/// `NAME=VALUE`, as several options take it.
struct NamedValue {
    let name: String
    /// Everything after the first `=`; may be empty.
    let value: String

    /// - Parameters:
    ///   - option: the option's name, for the message.
    ///   - example: what would have been right.
    init(_ option: String, _ text: String, example: String) throws {
        guard let equals = text.firstIndex(of: "="), equals > text.startIndex else {
            throw ValidationError("\(option) \(text): write NAME=VALUE, such as \(example)")
        }
        name = String(text[..<equals])
        value = String(text[text.index(after: equals)...])
    }
}
