/// Runs one template once. Not shared, not reused.
final class Interpreter {
    let limits: RenderLimits
    let clock: @Sendable () -> TemplateTime
    private(set) var output: [UInt8] = []
    private var fuel: Int
    private var depth = 0
    /// The line of the statement being run, for error messages.
    private(set) var line = 0
    /// Top-level variables, which named blocks see.
    private var topLevel: Scope

    /// Mutable objects that values may reach, emptied at the end so that no cycle and no deep chain is left behind.
    private var namespaces: [Namespace] = []
    private var capturedScopes: [Scope] = []
    private var loops: [LoopContext] = []

    init(limits: RenderLimits, clock: @escaping @Sendable () -> TemplateTime, variables: Scope) {
        self.limits = limits
        self.clock = clock
        fuel = limits.fuel
        topLevel = variables
    }

    func run(_ body: [Statement]) throws(TemplateError) -> String {
        defer {
            for namespace in namespaces { namespace.clear() }
            for scope in capturedScopes { scope.clear() }
            for loop in loops { loop.clear() }
            topLevel.clear()
        }
        do {
            _ = try execute(body, topLevel)
        } catch {
            var located = error
            if located.line == 0 { located.line = line }
            throw located
        }
        return String(decoding: output, as: UTF8.self)
    }

    // MARK: Limits

    /// Pays for work, and with it for the memory the work leaves behind.
    func charge(_ amount: Int) throws(TemplateError) {
        guard amount <= fuel else {
            fuel = 0
            throw TemplateError(.tooMuchWork, "template needs more than \(limits.fuel) units of work")
        }
        fuel -= amount
    }

    /// Pays for making or searching that many bytes.
    func charge(bytes: Int) throws(TemplateError) { try charge(bytes >> 5) }

    func enter() throws(TemplateError) {
        depth += 1
        guard depth <= limits.depth else {
            throw TemplateError(.tooDeep, "template calls or expressions nest more than \(limits.depth) levels deep")
        }
    }

    func leave() { depth -= 1 }

    /// Makes the elements of a list or tuple.
    func sequence(_ items: [Value], isGroup: Bool = false) throws(TemplateError) -> Value.Sequence {
        try charge(items.count + 1)
        return Value.Sequence(items, depth: try depth(above: items), isGroup: isGroup)
    }

    func list(_ items: [Value]) throws(TemplateError) -> Value { .list(try sequence(items)) }
    func tuple(_ items: [Value]) throws(TemplateError) -> Value { .tuple(try sequence(items)) }

    func dict(_ builder: DictBuilder) throws(TemplateError) -> Value {
        try charge(2 * builder.count + 1)
        let depth = max(try depth(above: builder.values), try depth(above: builder.keys))
        return .dict(builder.build(depth: depth))
    }

    func depth(above items: [Value]) throws(TemplateError) -> Int {
        var deepest = 0
        for item in items { deepest = max(deepest, item.depth) }
        guard deepest < Value.maximumDepth else { throw TemplateError(.tooDeep, "values nest too deeply") }
        return deepest + 1
    }

    /// A lazy iterator over another one.
    func lazyIterator(
        over source: ValueIterator, _ producer: @escaping () throws(TemplateError) -> Value?
    ) throws(TemplateError) -> Value {
        guard source.depth < 100 else { throw TemplateError(.tooDeep, "filters nest too deeply") }
        return .iterator(ValueIterator(depth: source.depth + 1, producer))
    }

    func register(_ namespace: Namespace) { namespaces.append(namespace) }
    func register(_ loop: LoopContext) { loops.append(loop) }

    /// A scope that a macro keeps, which therefore outlives its block.
    private func capture(_ scope: Scope) {
        var current: Scope? = scope
        while let scope = current, !scope.isCaptured {
            scope.isCaptured = true
            capturedScopes.append(scope)
            current = scope.parent
        }
    }

    // MARK: Output

    func write(_ text: String) throws(TemplateError) {
        guard output.count + text.utf8.count <= limits.outputBytes else {
            throw TemplateError(.outputTooLarge, "template output is longer than \(limits.outputBytes) bytes")
        }
        output.append(contentsOf: text.utf8)
    }

    /// Runs `body` and takes what it wrote.
    private func captureOutput(
        _ body: () throws(TemplateError) -> Void
    ) throws(TemplateError) -> String {
        let start = output.count
        try body()
        let text = String(decoding: output[start...], as: UTF8.self)
        output.removeSubrange(start...)
        try charge(bytes: text.utf8.count)
        return text
    }

    // MARK: Statements

    enum Flow { case normal, breakLoop, continueLoop }

    func execute(_ body: [Statement], _ scope: Scope) throws(TemplateError) -> Flow {
        for statement in body {
            let flow = try execute(statement, scope)
            if flow != .normal { return flow }
        }
        return .normal
    }

    private func execute(_ statement: Statement, _ scope: Scope) throws(TemplateError) -> Flow {
        try charge(1)
        switch statement {
        case .text(let text): try write(text)
        case .output(let expression, let line):
            self.line = line
            let value = try evaluate(expression, scope)
            if case .string(let text) = value { try write(text) } else { try write(printed(value)) }
        case .assign(let target, let expression, let line):
            self.line = line
            try assign(try evaluate(expression, scope), to: target, scope)
        case .condition(let branches, let otherwise, let line):
            self.line = line
            for branch in branches where try evaluate(branch.test, scope).isTrue {
                return try nested { () throws(TemplateError) in try execute(branch.body, scope) }
            }
            return try nested { () throws(TemplateError) in try execute(otherwise, scope) }
        case .loop(let loop): return try nested { () throws(TemplateError) in try execute(loop, scope) }
        case .breakLoop: return .breakLoop
        case .continueLoop: return .continueLoop
        default: return try nested { () throws(TemplateError) in try executeRare(statement, scope) }
        }
        return .normal
    }

    private func nested(_ body: () throws(TemplateError) -> Flow) throws(TemplateError) -> Flow {
        try enter()
        defer { leave() }
        return try body()
    }

    private func executeRare(_ statement: Statement, _ scope: Scope) throws(TemplateError) -> Flow {
        switch statement {
        case .assignBlock(let target, let filter, let body, let line):
            self.line = line
            let text = try captureOutput { () throws(TemplateError) in
                _ = try execute(body, Scope(parent: scope))
            }
            try assign(try applyFilter(filter, to: text, scope), to: target, scope)
        case .filter(let filter, let body, let line):
            self.line = line
            let text = try captureOutput { () throws(TemplateError) in
                _ = try execute(body, Scope(parent: scope))
            }
            try write(printed(try applyFilter(filter, to: text, scope)))
        case .macro(let definition):
            guard let name = definition.name else { break }
            scope.set(name.id, makeMacro(definition, scope))
        case .call(let block):
            line = block.line
            let callee = try evaluate(block.callee, scope)
            var arguments = try evaluate(block.arguments, scope)
            arguments.keywords.append(("caller", makeMacro(block.macro, scope)))
            try write(printed(try call(callee, arguments)))
        case .with(let bindings, let body, let line):
            self.line = line
            let inner = Scope(parent: scope)
            for binding in bindings { try assign(try evaluate(binding.value, scope), to: binding.target, inner) }
            return try execute(body, inner)
        case .block(_, let isScoped, let body):
            return try execute(body, Scope(parent: isScoped ? scope : topLevel))
        case .group(let body): return try execute(body, scope)
        default: return try execute(statement, scope)
        }
        return .normal
    }

    private func applyFilter(
        _ filter: Expression?, to text: String, _ scope: Scope
    ) throws(TemplateError) -> Value {
        guard let filter else { return .string(text) }
        capturedBlocks.append(.string(text))
        defer { capturedBlocks.removeLast() }
        return try evaluate(filter, scope)
    }

    /// Texts that filter chains of `set` and `filter` blocks start from, innermost last.
    var capturedBlocks: [Value] = []

    /// `str(value)`.
    func printed(_ value: Value) throws(TemplateError) -> String {
        try charge(value.weight)
        return value.description
    }

    /// `repr(value)`.
    func repr(_ value: Value) throws(TemplateError) -> String {
        try charge(value.weight)
        return value.repr
    }

    /// `left == right`.
    func equal(_ left: Value, _ right: Value) throws(TemplateError) -> Bool {
        try charge(min(left.weight, right.weight))
        return left.equals(right)
    }

    func assign(_ value: Value, to target: AssignmentTarget, _ scope: Scope) throws(TemplateError) {
        switch target {
        case .name(let name): scope.set(name.id, value)
        case .tuple(let targets):
            let items = try items(of: value, limit: targets.count + 1)
            guard items.count == targets.count else {
                throw TemplateError(
                    .runtime,
                    items.count > targets.count
                        ? "too many values to unpack (expected \(targets.count))"
                        : "not enough values to unpack (expected \(targets.count), got \(items.count))")
            }
            for (target, item) in zip(targets, items) { try assign(item, to: target, scope) }
        case .namespaceAttribute(let name, let attribute):
            guard case .namespace(let namespace)? = scope.lookup(name.id) else {
                throw TemplateError(.runtime, "cannot assign attribute on non-namespace object")
            }
            namespace.set(attribute, value)
        }
    }

    // MARK: Loops

    private func execute(_ loop: ForLoop, _ scope: Scope) throws(TemplateError) -> Flow {
        line = loop.line
        let iterable = try evaluate(loop.iterable, scope)
        try run(loop, over: iterable, scope, recursionDepth: 0)
        return .normal
    }

    /// One pass over `iterable`; recursive loops come back here through `loop(...)`.
    func run(
        _ loop: ForLoop, over iterable: Value, _ scope: Scope, recursionDepth: Int
    ) throws(TemplateError) {
        var iterator = try iterator(over: iterable)
        var length = loop.test == nil ? count(of: iterable) : nil
        if let test = loop.test {
            let source = iterator
            iterator = ValueIterator(depth: source.depth + 1) { [self] () throws(TemplateError) in
                while let item = try source.next() {
                    try charge(1)
                    let inner = Scope(parent: scope)
                    try assign(item, to: loop.target, inner)
                    if try evaluate(test, inner).isTrue { return item }
                }
                return nil
            }
        }
        if case .iterator = iterable { length = nil }
        let context = LoopContext(
            iterator, length: length, depth: iterable.depth + 1, recursionDepth: recursionDepth,
            recursion: loop.isRecursive ? (loop, scope) : nil)
        if loop.isRecursive { capture(scope) }
        var inner = Scope(parent: scope)
        while let item = try context.advance() {
            try charge(1)
            if inner.isCaptured { inner = Scope(parent: scope) } else { inner.clear() }
            inner.set(loop.loopName.id, .loop(context))
            try assign(item, to: loop.target, inner)
            if try execute(loop.body, inner) == .breakLoop { break }
        }
        if !context.hasStarted { _ = try execute(loop.otherwise, Scope(parent: scope)) }
    }

    /// `loop(children)` inside a recursive loop: the text of the loop run over `children`.
    func recurse(_ context: LoopContext, _ iterable: Value) throws(TemplateError) -> Value {
        guard let (loop, scope) = context.recursion else {
            throw TemplateError(
                .runtime, "The loop must have the 'recursive' marker to be called recursively.")
        }
        try enter()
        defer { leave() }
        return .string(
            try captureOutput { () throws(TemplateError) in
                try run(loop, over: iterable, scope, recursionDepth: context.recursionDepth + 1)
            })
    }

    // MARK: Macros

    private func makeMacro(_ definition: MacroDefinition, _ scope: Scope) -> Value {
        capture(scope)
        return .function(Function(.macro(Macro(definition, scope: scope))))
    }

    func call(_ macro: Macro, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let definition = macro.definition
        let label = definition.name.map { pythonRepr($0.text) } ?? "None"
        var keywords = arguments.keywords
        func take(_ name: String) -> Value? {
            keywords.firstIndex { $0.name == name }.map { keywords.remove(at: $0).value }
        }
        let scope = Scope(parent: macro.scope)
        var missing: [(Name, Expression?)] = []
        for (index, parameter) in definition.parameters.enumerated() {
            if index < arguments.positional.count {
                scope.set(parameter.name.id, arguments.positional[index])
            } else if let value = take(parameter.name.text) {
                scope.set(parameter.name.id, value)
            } else {
                missing.append((parameter.name, parameter.defaultValue))
            }
        }
        if let caller = definition.caller {
            let given = take("caller")
            scope.set(caller.id, given.flatMap { $0.isNone ? nil : $0 } ?? .undefined(.init("No caller defined")))
        }
        if let rest = definition.keywords {
            var builder = DictBuilder()
            for (name, value) in keywords { builder.set(.string(name), value) }
            scope.set(rest.id, try dict(builder))
        } else if let extra = keywords.first {
            throw TemplateError(.runtime, "macro \(label) takes no keyword argument '\(extra.name)'")
        }
        let surplus = arguments.positional.dropFirst(definition.parameters.count)
        if let rest = definition.positional {
            scope.set(rest.id, try tuple(Array(surplus)))
        } else if !surplus.isEmpty {
            throw TemplateError(
                .runtime, "macro \(label) takes not more than \(definition.parameters.count) argument(s)")
        }
        for (name, defaultValue) in missing {
            let value =
                try defaultValue.map { expression throws(TemplateError) in try evaluate(expression, scope) }
                ?? .undefined(.init("parameter '\(name.text)' was not provided"))
            scope.set(name.id, value)
        }
        try enter()
        defer { leave() }
        return .string(
            try captureOutput { () throws(TemplateError) in _ = try execute(definition.body, scope) })
    }
}
