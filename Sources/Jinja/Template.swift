import JSONBytes

/// What one render may cost. Applies to every template: one that comes with a model folder is as untrusted as any.
package struct RenderLimits: Sendable {
    /// Units of work; about one per expression, list element or 32 bytes of text. Bounds time (the
    /// default to about a second) and memory. A conversation of 1 MB needs some 100 000.
    package var fuel: Int
    package var outputBytes: Int
    /// Nested calls, statements and expressions.
    package var depth: Int

    package init(fuel: Int = 5_000_000, outputBytes: Int = 64 << 20, depth: Int = 400) {
        self.fuel = fuel
        self.outputBytes = outputBytes
        self.depth = depth
    }
}

/// A compiled chat template, with the semantics of the Jinja environment that Hugging Face libraries set up for chat
/// templates: `trim_blocks`, `lstrip_blocks`, loop controls, an immutable sandbox, and the extras `raise_exception`,
/// `strftime_now`, `tojson` without HTML escaping and the `generation` tag.
///
/// Compile once, render from any thread.
package struct Template: Sendable {
    package let body: [Statement]
    private let names: [String]

    package init(_ source: String) throws(TemplateError) {
        var parser = try Parser(source)
        body = try parser.parseTemplate()
        names = parser.names
    }

    /// Renders with the given variables; a later pair of the same name wins.
    /// - Parameter clock: the time that `strftime_now` shows.
    package func render(
        _ variables: [(name: String, value: JSONValue)], limits: RenderLimits = RenderLimits(),
        clock: @escaping @Sendable () -> TemplateTime = TemplateTime.now
    ) throws(TemplateError) -> String {
        let scope = Scope(parent: nil)
        for (id, name) in names.enumerated() {
            if let variable = variables.last(where: { utf8Equal($0.name, name) }) {
                scope.set(id, Value(json: variable.value))
            } else if let global = Global(rawValue: name) {
                scope.set(id, .function(Function(.global(global))))
            }
        }
        // Assignments at the top level go to a scope of their own, so that the variables above stay as given.
        let interpreter = Interpreter(limits: limits, clock: clock, variables: Scope(parent: scope))
        return try interpreter.run(body)
    }
}
