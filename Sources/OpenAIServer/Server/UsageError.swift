/// The command line, `--args-json` or the environment cannot be used: exit code 2.
package struct UsageError: Error, Equatable, CustomStringConvertible, Sendable {
    package let description: String
    package init(_ description: String) { self.description = description }
}
