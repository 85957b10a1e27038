// Expressions, lowest precedence first. Chains of one precedence level become one flat node, so that long chains do not
// make the tree deep.
extension Parser {
    private mutating func countOperation() throws(TemplateError) {
        operationsInTag += 1
        guard operationsInTag <= Self.maximumOperationsInTag else {
            throw TemplateError(
                .tooDeep, "more than \(Self.maximumOperationsInTag) operations in one tag", line: current.line)
        }
    }

    mutating func parseExpression(withConditional: Bool = true) throws(TemplateError) -> Expression {
        try nest { parser throws(TemplateError) in
            withConditional ? try parser.parseConditional() : try parser.parseOr()
        }
    }

    /// One expression, or several separated by commas, which make a tuple without parentheses.
    mutating func parseTuple(
        withConditional: Bool = true, endWord: String? = nil, inParentheses: Bool = false
    ) throws(TemplateError) -> Expression {
        var elements: [Expression] = []
        var isTuple = false
        while true {
            if !elements.isEmpty { try expect(symbol: ",") }
            if isTupleEnd(endWord) { break }
            elements.append(try parseExpression(withConditional: withConditional))
            guard isSymbol(",") else { break }
            isTuple = true
        }
        if isTuple { return .tuple(elements) }
        if let only = elements.first { return only }
        guard inParentheses else { throw fail("Expected an expression, got \(describe(current))") }
        return .tuple([])
    }

    private func isTupleEnd(_ endWord: String?) -> Bool {
        switch current.kind {
        case .variableEnd, .blockEnd: true
        case .symbol: current.text == ")"
        case .name: endWord != nil && current.text == endWord
        default: false
        }
    }

    // MARK: Assignment targets

    mutating func parseTarget(
        endWord: String? = nil, allowsNamespace: Bool = false
    ) throws(TemplateError) -> AssignmentTarget {
        var targets: [AssignmentTarget] = []
        var isTuple = false
        while true {
            if !targets.isEmpty { try expect(symbol: ",") }
            if isTupleEnd(endWord) { break }
            targets.append(try parseSimpleTarget(allowsNamespace: allowsNamespace))
            guard isSymbol(",") else { break }
            isTuple = true
        }
        if isTuple { return .tuple(targets) }
        guard let only = targets.first else { throw fail("Expected an expression, got \(describe(current))") }
        return only
    }

    private mutating func parseSimpleTarget(allowsNamespace: Bool) throws(TemplateError) -> AssignmentTarget {
        if skip(symbol: "(") {
            let inner = try nest { parser throws(TemplateError) in
                try parser.parseTarget(allowsNamespace: allowsNamespace)
            }
            try expect(symbol: ")")
            return inner
        }
        guard current.kind == .name else { throw fail("can't assign to \(describe(current))") }
        let text = try expectName()
        if ["true", "false", "none", "True", "False", "None"].contains(text) { throw fail("can't assign to 'const'") }
        if allowsNamespace, skip(symbol: ".") { return .namespaceAttribute(readName(text), try expectName()) }
        return .name(name(text))
    }

    // MARK: Operators

    private mutating func parseConditional() throws(TemplateError) -> Expression {
        let unknownBefore = unknownNames.count
        var value = try parseOr()
        while skip(word: "if") {
            try countOperation()
            // What came before the `if` is conditional, too.
            unknownNames.removeSubrange(unknownBefore...)
            let saved = isConditional
            isConditional = true
            defer { isConditional = saved }
            let test = try parseOr()
            var otherwise: Expression?
            if skip(word: "else") {
                otherwise = try nest { parser throws(TemplateError) in try parser.parseConditional() }
            }
            value = .conditional(test: test, then: value, otherwise: otherwise)
        }
        return value
    }

    private mutating func parseOr() throws(TemplateError) -> Expression {
        var operands = [try parseAnd()]
        while skip(word: "or") { operands.append(try parseAnd()) }
        return operands.count == 1 ? operands[0] : .or(operands)
    }

    private mutating func parseAnd() throws(TemplateError) -> Expression {
        var operands = [try parseNot()]
        while skip(word: "and") { operands.append(try parseNot()) }
        return operands.count == 1 ? operands[0] : .and(operands)
    }

    private mutating func parseNot() throws(TemplateError) -> Expression {
        guard skip(word: "not") else { return try parseComparison() }
        try countOperation()
        return .not(try nest { parser throws(TemplateError) in try parser.parseNot() })
    }

    private mutating func parseComparison() throws(TemplateError) -> Expression {
        let first = try parseSum()
        var rest: [(operation: ComparisonOperator, operand: Expression)] = []
        while true {
            if current.kind == .symbol, let operation = ComparisonOperator(rawValue: current.text) {
                advance()
                rest.append((operation, try parseSum()))
            } else if skip(word: "in") {
                rest.append((.isIn, try parseSum()))
            } else if isWord("not"), next.kind == .name, next.text == "in" {
                advance()
                advance()
                rest.append((.isNotIn, try parseSum()))
            } else {
                return rest.isEmpty ? first : .comparison(first, rest)
            }
        }
    }

    private mutating func parseChain(
        of operators: [ArithmeticOperator], _ operand: (inout Parser) throws(TemplateError) -> Expression
    ) throws(TemplateError) -> Expression {
        let first = try operand(&self)
        var rest: [(operation: ArithmeticOperator, operand: Expression)] = []
        while current.kind == .symbol, let operation = ArithmeticOperator(rawValue: current.text),
            operators.contains(operation)
        {
            advance()
            rest.append((operation, try operand(&self)))
        }
        return rest.isEmpty ? first : .arithmetic(first, rest)
    }

    private mutating func parseSum() throws(TemplateError) -> Expression {
        try parseChain(of: [.add, .subtract]) { parser throws(TemplateError) in try parser.parseConcatenation() }
    }

    private mutating func parseConcatenation() throws(TemplateError) -> Expression {
        var operands = [try parseProduct()]
        while skip(symbol: "~") { operands.append(try parseProduct()) }
        return operands.count == 1 ? operands[0] : .concatenation(operands)
    }

    private mutating func parseProduct() throws(TemplateError) -> Expression {
        try parseChain(of: [.multiply, .divide, .floorDivide, .modulo]) { parser throws(TemplateError) in
            try parser.parsePower()
        }
    }

    private mutating func parsePower() throws(TemplateError) -> Expression {
        try parseChain(of: [.power]) { parser throws(TemplateError) in try parser.parseUnary() }
    }

    private mutating func parseUnary(withFilters: Bool = true) throws(TemplateError) -> Expression {
        var value: Expression
        if isSymbol("-") || isSymbol("+") {
            let isNegation = isSymbol("-")
            advance()
            try countOperation()
            let operand = try nest { parser throws(TemplateError) in try parser.parseUnary(withFilters: false) }
            value = isNegation ? .negate(operand) : .plus(operand)
        } else {
            value = try parsePrimary()
        }
        value = try parsePostfix(value)
        return withFilters ? try parseFiltersAndTests(value) : value
    }

    // MARK: Primaries

    private mutating func parsePrimary() throws(TemplateError) -> Expression {
        let token = current
        switch token.kind {
        case .name:
            advance()
            switch token.text {
            case "true", "True": return .bool(true)
            case "false", "False": return .bool(false)
            case "none", "None": return .none
            default: return .name(readName(token.text))
            }
        case .string:
            var text = ""
            while current.kind == .string {
                text += current.text
                advance()
            }
            return .string(text)
        case .integer:
            advance()
            return try integer(token)
        case .float:
            advance()
            return .float(Double(token.text) ?? .infinity)
        case .symbol where token.text == "(":
            advance()
            let value = try parseTuple(inParentheses: true)
            try expect(symbol: ")")
            return value
        case .symbol where token.text == "[":
            advance()
            let elements = try parseElements(until: "]") { parser throws(TemplateError) in try parser.parseExpression()
            }
            return .list(elements)
        case .symbol where token.text == "{":
            advance()
            return .dict(
                try parseElements(until: "}") { parser throws(TemplateError) in
                    let key = try parser.parseExpression()
                    try parser.expect(symbol: ":")
                    return (key, try parser.parseExpression())
                })
        default: throw fail("unexpected \(describe(token))")
        }
    }

    private func integer(_ token: Token) throws(TemplateError) -> Expression {
        let text = token.text.pythonLowercased
        for (prefix, radix) in [("0b", 2), ("0o", 8), ("0x", 16)] where text.hasBytePrefix(prefix) {
            guard let value = Int(text.dropFirst(2), radix: radix) else {
                throw fail("integer literal '\(token.text)' does not fit into 64 bits", line: token.line)
            }
            return .integer(value)
        }
        return Int(text).map { .integer($0) } ?? .bigInteger(text)
    }

    private mutating func parseElements<Element>(
        until end: String, _ element: (inout Parser) throws(TemplateError) -> Element
    ) throws(TemplateError) -> [Element] {
        var elements: [Element] = []
        while !isSymbol(end) {
            if !elements.isEmpty { try expect(symbol: ",") }
            if isSymbol(end) { break }
            elements.append(try element(&self))
        }
        try expect(symbol: end)
        return elements
    }

    // MARK: Postfix operators, filters and tests

    private mutating func parsePostfix(_ base: Expression) throws(TemplateError) -> Expression {
        var value = base
        while current.kind == .symbol {
            switch current.text {
            case ".":
                advance()
                let token = current
                advance()
                switch token.kind {
                case .name: value = .attribute(value, token.text)
                case .integer: value = .item(value, try integer(token))
                default: throw fail("expected name or number", line: token.line)
                }
            case "[": value = try parseSubscript(value)
            case "(": value = .call(value, try parseArguments())
            default: return value
            }
            try countOperation()
        }
        return value
    }

    private mutating func parseSubscript(_ base: Expression) throws(TemplateError) -> Expression {
        let line = current.line
        try expect(symbol: "[")
        var subscripts: [Subscript] = []
        while !isSymbol("]") {
            if !subscripts.isEmpty { try expect(symbol: ",") }
            subscripts.append(try parseSubscriptItem())
        }
        try expect(symbol: "]")
        if subscripts.count == 1 {
            switch subscripts[0] {
            case .item(let index): return .item(base, index)
            case .slice(let start, let stop, let step): return .slice(base, start: start, stop: stop, step: step)
            }
        }
        // `a[1, 2]` and `a[]` look up a tuple, as in Python.
        var elements: [Expression] = []
        for subscript_ in subscripts {
            guard case .item(let index) = subscript_ else {
                throw TemplateError(.unsupported, "slices in several dimensions are not supported", line: line)
            }
            elements.append(index)
        }
        return .item(base, .tuple(elements))
    }

    private enum Subscript {
        case item(Expression)
        case slice(Expression?, Expression?, Expression?)
    }

    private mutating func parseSubscriptItem() throws(TemplateError) -> Subscript {
        var parts: [Expression?] = []
        if skip(symbol: ":") {
            parts.append(nil)
        } else {
            let value = try parseExpression()
            guard skip(symbol: ":") else { return .item(value) }
            parts.append(value)
        }
        if isSymbol(":") || isSymbol("]") || isSymbol(",") {
            parts.append(nil)
        } else {
            parts.append(try parseExpression())
        }
        if skip(symbol: ":"), !isSymbol("]"), !isSymbol(",") {
            parts.append(try parseExpression())
        } else {
            parts.append(nil)
        }
        return .slice(parts[0], parts[1], parts[2])
    }

    mutating func parseArguments() throws(TemplateError) -> Arguments {
        let line = current.line
        try expect(symbol: "(")
        var arguments = Arguments()
        func ensure(_ condition: Bool) throws(TemplateError) {
            guard condition else { throw fail("invalid syntax for function call expression", line: line) }
        }
        var isFirst = true
        while !isSymbol(")") {
            if !isFirst {
                try expect(symbol: ",")
                if isSymbol(")") { break }
            }
            isFirst = false
            if skip(symbol: "*") {
                try ensure(arguments.spread == nil && arguments.keywordSpread == nil)
                arguments.spread = try parseExpression()
            } else if skip(symbol: "**") {
                try ensure(arguments.keywordSpread == nil)
                arguments.keywordSpread = try parseExpression()
            } else if current.kind == .name, next.kind == .symbol, next.text == "=" {
                try ensure(arguments.keywordSpread == nil)
                let key = try expectName()
                advance()
                arguments.keywords.append((key, try parseExpression()))
            } else {
                try ensure(
                    arguments.spread == nil && arguments.keywordSpread == nil && arguments.keywords.isEmpty)
                arguments.positional.append(try parseExpression())
            }
        }
        try expect(symbol: ")")
        return arguments
    }

    private mutating func parseFiltersAndTests(_ base: Expression) throws(TemplateError) -> Expression {
        var value = base
        while true {
            if isSymbol("|") {
                value = try parseFilterChain(value)
            } else if isWord("is") {
                try countOperation()
                value = try parseTest(value)
            } else if isSymbol("(") {
                try countOperation()
                value = .call(value, try parseArguments())
            } else {
                return value
            }
        }
    }

    private mutating func parseDottedName() throws(TemplateError) -> String {
        var text = try expectName()
        while skip(symbol: ".") { text += "." + (try expectName()) }
        return text
    }

    /// One or more filters; with `startsInline` the first comes without its bar, as in `{% filter upper %}`.
    mutating func parseFilterChain(
        _ base: Expression, startsInline: Bool = false
    ) throws(TemplateError) -> Expression {
        var value = base
        var isInline = startsInline
        while isInline || skip(symbol: "|") {
            isInline = false
            try countOperation()
            let line = current.line
            let name = try parseDottedName()
            let arguments = isSymbol("(") ? try parseArguments() : Arguments()
            if let filter = Filter(rawValue: name) {
                value = .filter(value, .known(filter), arguments)
            } else if Filter.leftOut.contains(name) {
                throw TemplateError(
                    .unsupported, "the '\(name)' filter is not supported in chat templates", line: line)
            } else {
                if !isConditional { unknownNames.append(fail("No filter named '\(name)'.", line: line)) }
                value = .filter(value, .unknown(name), arguments)
            }
        }
        return value
    }

    private mutating func parseTest(_ base: Expression) throws(TemplateError) -> Expression {
        advance()
        let isNegated = skip(word: "not")
        let line = current.line
        let name = try parseDottedName()
        var arguments = Arguments()
        if isSymbol("(") {
            arguments = try parseArguments()
        } else if startsTestArgument {
            if isWord("is") { throw fail("You cannot chain multiple tests with is") }
            arguments.positional = [try parsePostfix(try parsePrimary())]
        }
        let test: Expression
        if let known = Test(rawValue: name) {
            test = .test(base, .known(known), arguments)
        } else {
            if !isConditional { unknownNames.append(fail("No test named '\(name)'.", line: line)) }
            test = .test(base, .unknown(name), arguments)
        }
        return isNegated ? .not(test) : test
    }

    private var startsTestArgument: Bool {
        switch current.kind {
        case .name: !["else", "or", "and"].contains(current.text)
        case .string, .integer, .float: true
        case .symbol: current.text == "[" || current.text == "{"
        default: false
        }
    }
}
