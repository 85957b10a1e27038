/// Why messages cannot be turned into a prompt. The message is meant for the client (400) or the operator (start-up).
package struct ChatError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
