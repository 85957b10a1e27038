/// Brings a command line to the one form that the parser knows.
package enum ArgumentNormalizer {
    /// vLLM also writes `--foo_bar` for `--foo-bar`. The options of the mock engine (`--mock-*`, each with a value) need
    /// no `--` in front of them: they are moved behind it.
    ///
    /// - Parameter arguments: without the program's name. What follows `--` is left alone.
    package static func normalize(_ arguments: [String]) -> [String] {
        var own: [String] = []
        var engine: [String] = []
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--" { break }
            let option = argument.hasPrefix("--") ? dashed(argument) : argument
            if option.hasPrefix("--mock-") {
                engine.append(option)
                if !option.contains("="), let value = rest.popFirst() { engine.append(value) }
            } else {
                own.append(option)
            }
        }
        engine += rest
        return engine.isEmpty ? own : own + ["--"] + engine
    }

    private static func dashed(_ option: String) -> String {
        let name = option.prefix { $0 != "=" }
        return String(name.map { $0 == "_" ? "-" : $0 }) + option.dropFirst(name.count)
    }
}
