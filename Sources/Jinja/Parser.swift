/// Turns tokens into a syntax tree. This file holds the statements; `ParserExpressions.swift` the expressions.
struct Parser {
    let tokens: [Token]
    var position = 0
    private(set) var names: [String] = []
    private var nameIDs: [String: Int] = [:]
    /// Open nested constructs, bounded so that untrusted templates cannot exhaust the stack.
    var nesting = 0
    /// Operators in the current tag, which bound the depth of its syntax tree.
    var operationsInTag = 0
    /// Inside an `if`, where Jinja reports unknown filters and tests only when they are reached.
    var isConditional = false
    /// Unknown filters and tests outside of any `if`.
    var unknownNames: [TemplateError] = []
    /// Names read in the bodies being parsed, one set per open macro.
    private var macroReads: [Set<String>] = []
    private var loopDepth = 0

    static let maximumNesting = 100
    static let maximumOperationsInTag = 2000

    init(_ source: String) throws(TemplateError) {
        tokens = try Lexer.tokenize(source)
    }

    mutating func parseTemplate() throws(TemplateError) -> [Statement] {
        let body = try parseBody(until: [])
        if let unknown = unknownNames.first { throw unknown }
        return body.statements
    }

    // MARK: Tokens and names

    var current: Token { tokens[position] }
    var next: Token { tokens[min(position + 1, tokens.count - 1)] }

    mutating func advance() { if position < tokens.count - 1 { position += 1 } }

    func fail(_ message: String, line: Int? = nil) -> TemplateError {
        TemplateError(.syntax, message, line: line ?? current.line)
    }

    func isSymbol(_ text: String) -> Bool { current.kind == .symbol && current.text == text }
    func isWord(_ text: String) -> Bool { current.kind == .name && current.text == text }

    mutating func skip(symbol: String) -> Bool {
        guard isSymbol(symbol) else { return false }
        advance()
        return true
    }

    mutating func skip(word: String) -> Bool {
        guard isWord(word) else { return false }
        advance()
        return true
    }

    mutating func expect(symbol: String) throws(TemplateError) {
        guard skip(symbol: symbol) else { throw fail("expected token '\(symbol)', got \(describe(current))") }
    }

    mutating func expectName() throws(TemplateError) -> String {
        guard current.kind == .name else { throw fail("expected token 'name', got \(describe(current))") }
        let text = current.text
        advance()
        return text
    }

    mutating func expect(_ kind: Token.Kind) throws(TemplateError) {
        guard current.kind == kind else {
            throw fail("expected \(describe(Token(kind: kind, text: "", line: 0))), got \(describe(current))")
        }
        advance()
    }

    func describe(_ token: Token) -> String {
        switch token.kind {
        case .name, .symbol, .integer, .float: "'\(token.text)'"
        case .string: "string"
        case .data: "template data"
        case .blockBegin: "begin of statement block"
        case .blockEnd: "end of statement block"
        case .variableBegin: "begin of print statement"
        case .variableEnd: "end of print statement"
        case .end: "end of template"
        }
    }

    mutating func name(_ text: String) -> Name {
        if let id = nameIDs[text] { return Name(id: id, text: text) }
        let id = names.count
        names.append(text)
        nameIDs[text] = id
        return Name(id: id, text: text)
    }

    mutating func readName(_ text: String) -> Name {
        for index in macroReads.indices { macroReads[index].insert(text) }
        return name(text)
    }

    mutating func nest<Result>(
        _ body: (inout Parser) throws(TemplateError) -> Result
    ) throws(TemplateError) -> Result {
        nesting += 1
        defer { nesting -= 1 }
        guard nesting <= Self.maximumNesting else {
            throw TemplateError(
                .tooDeep, "template nests more than \(Self.maximumNesting) levels deep", line: current.line)
        }
        return try body(&self)
    }

    // MARK: Bodies

    /// Statements up to a tag whose first word is in `ends`; that word is consumed, the rest of its tag is not.
    private mutating func parseBody(
        until ends: [String]
    ) throws(TemplateError) -> (statements: [Statement], end: String) {
        var statements: [Statement] = []
        while true {
            let token = current
            switch token.kind {
            case .data:
                statements.append(.text(token.text))
                advance()
            case .variableBegin:
                advance()
                operationsInTag = 0
                let value = try parseTuple()
                guard current.kind == .variableEnd else {
                    throw fail("expected token 'end of print statement', got \(describe(current))")
                }
                advance()
                statements.append(.output(value, line: token.line))
            case .blockBegin:
                advance()
                operationsInTag = 0
                guard current.kind == .name else { throw fail("tag name expected") }
                if ends.contains(current.text) {
                    let end = current.text
                    advance()
                    return (statements, end)
                }
                if let statement = try nest({ parser throws(TemplateError) in
                    try parser.parseStatement(expecting: ends)
                }) {
                    statements.append(statement)
                }
                try expect(.blockEnd)
            case .end:
                if ends.isEmpty { return (statements, "") }
                let missing = ends.map { "'\($0)'" }.joined(separator: " or ")
                throw fail("Unexpected end of template. Jinja was looking for the following tags: \(missing).")
            default: throw fail("unexpected \(describe(token))")
            }
        }
    }

    /// The rest of an opening tag, and the statements up to one of `ends`.
    private mutating func parseBlock(
        until ends: [String]
    ) throws(TemplateError) -> (statements: [Statement], end: String) {
        _ = skip(symbol: ":")
        try expect(.blockEnd)
        return try parseBody(until: ends)
    }

    private mutating func parseBlock(until end: String) throws(TemplateError) -> [Statement] {
        try parseBlock(until: [end]).statements
    }

    // MARK: Statements

    private mutating func parseStatement(expecting ends: [String]) throws(TemplateError) -> Statement? {
        let line = current.line
        let tag = current.text
        advance()
        switch tag {
        case "if": return try parseIf(line: line)
        case "for": return try parseFor(line: line)
        case "set": return try parseSet(line: line)
        case "macro": return try parseMacro(line: line)
        case "call": return try parseCall(line: line)
        case "filter":
            let filter = try parseFilterChain(.capturedBlock, startsInline: true)
            return .filter(filter, body: try parseUnconditional(until: "endfilter"), line: line)
        case "with": return try parseWith(line: line)
        case "block": return try parseNamedBlock()
        case "generation":
            // Marks the assistant's text for training; for rendering it is only a scope.
            let body = try parseUnconditional(until: "endgeneration")
            return .with(bindings: [], body: body, line: line)
        case "print":
            var values: [Expression] = []
            while current.kind != .blockEnd {
                if !values.isEmpty { try expect(symbol: ",") }
                values.append(try parseExpression())
            }
            return .group(values.map { .output($0, line: line) })
        case "break", "continue":
            guard loopDepth > 0 else { throw fail("'\(tag)' outside of a loop", line: line) }
            return tag == "break" ? .breakLoop : .continueLoop
        case "autoescape":
            guard case .bool(false) = try parseExpression() else {
                throw TemplateError(.unsupported, "HTML escaping is not supported in chat templates", line: line)
            }
            return .with(bindings: [], body: try parseUnconditional(until: "endautoescape"), line: line)
        case "include", "import", "from", "extends":
            throw TemplateError(.unsupported, "the '\(tag)' tag is not supported in chat templates", line: line)
        default:
            var message = "Encountered unknown tag '\(tag)'."
            if !ends.isEmpty {
                let wanted = ends.map { "'\($0)'" }.joined(separator: " or ")
                message += " Jinja was looking for the following tags: \(wanted)."
            }
            throw fail(message, line: line)
        }
    }

    /// Parses something in which unknown filters are errors at once, even when an `if` surrounds it.
    private mutating func unconditional<Result>(
        _ body: (inout Parser) throws(TemplateError) -> Result
    ) throws(TemplateError) -> Result {
        let saved = isConditional
        isConditional = false
        defer { isConditional = saved }
        return try body(&self)
    }

    private mutating func parseUnconditional(until end: String) throws(TemplateError) -> [Statement] {
        try unconditional { parser throws(TemplateError) in try parser.parseBlock(until: end) }
    }

    private mutating func parseIf(line: Int) throws(TemplateError) -> Statement {
        let saved = isConditional
        isConditional = true
        defer { isConditional = saved }
        var branches: [(test: Expression, body: [Statement])] = []
        while true {
            let test = try parseTuple(withConditional: false)
            let (body, end) = try parseBlock(until: ["elif", "else", "endif"])
            branches.append((test, body))
            switch end {
            case "elif": continue
            case "else":
                let otherwise = try parseBlock(until: "endif")
                return .condition(branches: branches, otherwise: otherwise, line: line)
            default: return .condition(branches: branches, otherwise: [], line: line)
            }
        }
    }

    private mutating func parseFor(line: Int) throws(TemplateError) -> Statement {
        let target = try parseTarget(endWord: "in")
        if Self.binds(target, "loop") {
            throw fail("Can't assign to special loop variable in for-loop target", line: line)
        }
        guard skip(word: "in") else { throw fail("expected token 'in', got \(describe(current))") }
        let iterable = try parseTuple(withConditional: false, endWord: "recursive")
        var test: Expression?
        if skip(word: "if") { test = try parseExpression() }
        let isRecursive = skip(word: "recursive")
        loopDepth += 1
        defer { loopDepth -= 1 }
        return try unconditional { parser throws(TemplateError) in
            let (body, end) = try parser.parseBlock(until: ["endfor", "else"])
            let otherwise = end == "else" ? try parser.parseBlock(until: "endfor") : []
            return .loop(
                ForLoop(
                    target: target, iterable: iterable, test: test, isRecursive: isRecursive, body: body,
                    otherwise: otherwise, loopName: parser.name("loop"), line: line))
        }
    }

    private static func binds(_ target: AssignmentTarget, _ name: String) -> Bool {
        switch target {
        case .name(let bound): bound.text == name
        case .tuple(let targets): targets.contains { binds($0, name) }
        case .namespaceAttribute: false
        }
    }

    private mutating func parseSet(line: Int) throws(TemplateError) -> Statement {
        let target = try parseTarget(allowsNamespace: true)
        if skip(symbol: "=") { return .assign(target, try parseTuple(), line: line) }
        let filter = isSymbol("|") ? try parseFilterChain(.capturedBlock) : nil
        let body = try parseUnconditional(until: "endset")
        return .assignBlock(target, filter: filter, body: body, line: line)
    }

    private mutating func parseWith(line: Int) throws(TemplateError) -> Statement {
        var bindings: [(target: AssignmentTarget, value: Expression)] = []
        while current.kind != .blockEnd {
            if !bindings.isEmpty { try expect(symbol: ",") }
            let target = try parseTarget()
            try expect(symbol: "=")
            bindings.append((target, try parseExpression()))
        }
        return .with(bindings: bindings, body: try parseUnconditional(until: "endwith"), line: line)
    }

    private mutating func parseNamedBlock() throws(TemplateError) -> Statement {
        let blockName = try expectName()
        let isScoped = skip(word: "scoped")
        _ = skip(word: "required")
        let body = try parseUnconditional(until: "endblock")
        _ = skip(word: blockName)
        return .block(name: blockName, scoped: isScoped, body: body)
    }

    // MARK: Macros

    private mutating func parseMacro(line: Int) throws(TemplateError) -> Statement {
        let macroName = name(try expectName())
        return .macro(try parseMacroRest(name: macroName, end: "endmacro", line: line))
    }

    private mutating func parseCall(line: Int) throws(TemplateError) -> Statement {
        // The parameters of the body come before the call itself.
        let parameters = isSymbol("(") ? try parseParameters() : []
        let expression = try parseExpression()
        guard case .call(let callee, let arguments) = expression else { throw fail("expected call", line: line) }
        let macro = try parseMacroBody(name: nil, parameters: parameters, end: "endcall", line: line)
        return .call(CallBlock(callee: callee, arguments: arguments, macro: macro, line: line))
    }

    private mutating func parseMacroRest(
        name: Name, end: String, line: Int
    ) throws(TemplateError) -> MacroDefinition {
        guard isSymbol("(") else { throw fail("expected token '(', got \(describe(current))") }
        return try parseMacroBody(name: name, parameters: try parseParameters(), end: end, line: line)
    }

    private mutating func parseParameters() throws(TemplateError) -> [(name: Name, defaultValue: Expression?)] {
        try expect(symbol: "(")
        var parameters: [(name: Name, defaultValue: Expression?)] = []
        while !isSymbol(")") {
            if !parameters.isEmpty { try expect(symbol: ",") }
            let parameter = name(try expectName())
            if skip(symbol: "=") {
                parameters.append((parameter, try parseExpression()))
            } else if parameters.last?.defaultValue != nil {
                throw fail("non-default argument follows default argument")
            } else {
                parameters.append((parameter, nil))
            }
        }
        try expect(symbol: ")")
        return parameters
    }

    private mutating func parseMacroBody(
        name macroName: Name?, parameters: [(name: Name, defaultValue: Expression?)], end: String, line: Int
    ) throws(TemplateError) -> MacroDefinition {
        macroReads.append([])
        let outerLoopDepth = loopDepth
        loopDepth = 0
        defer { loopDepth = outerLoopDepth }
        let body = try parseUnconditional(until: end)
        let reads = macroReads.removeLast()
        let declared = Set(parameters.map(\.name.text))
        func implicit(_ text: String) -> Name? {
            reads.contains(text) && !declared.contains(text) ? name(text) : nil
        }
        return MacroDefinition(
            name: macroName, parameters: parameters, body: body, caller: implicit("caller"),
            keywords: implicit("kwargs"), positional: implicit("varargs"), line: line)
    }
}
