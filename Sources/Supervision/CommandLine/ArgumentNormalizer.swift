/// vLLM's ways of writing options, brought to one: `--foo_bar` is `--foo-bar`.
package enum ArgumentNormalizer {
    /// - Parameter arguments: without the program's name. What follows `--` is left alone.
    package static func normalize(_ arguments: [String]) -> [String] {
        var result: [String] = []
        var verbatim = false
        for argument in arguments {
            if argument == "--" { verbatim = true }
            guard !verbatim, argument.hasPrefix("--"), argument.contains("_") else {
                result.append(argument)
                continue
            }
            let name = argument.prefix { $0 != "=" }
            result.append(String(name.map { $0 == "_" ? "-" : $0 }) + argument.dropFirst(name.count))
        }
        return result
    }
}
