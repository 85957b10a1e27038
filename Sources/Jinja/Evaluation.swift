import JSONBytes

/// Evaluated arguments of a call.
struct CallArguments {
    var positional: [Value] = []
    var keywords: [(name: String, value: Value)] = []
}

extension Interpreter {
    func evaluate(_ expression: Expression, _ scope: Scope) throws(TemplateError) -> Value {
        switch expression {
        case .name(let name): return scope.lookup(name.id) ?? .undefined(.init(name: name.text))
        case .string(let text): return .string(text)
        case .integer(let number): return .int(number)
        case .bool(let flag): return .bool(flag)
        case .none: return .none
        case .float(let number): return .float(number)
        case .bigInteger(let digits): return .bigInt(digits)
        case .capturedBlock: return capturedBlocks.last ?? .string("")
        default:
            try charge(1)
            try enter()
            defer { leave() }
            return try evaluateCompound(expression, scope)
        }
    }

    private func evaluateCompound(_ expression: Expression, _ scope: Scope) throws(TemplateError) -> Value {
        switch expression {
        case .attribute(let base, let name): return try attribute(name, of: try evaluate(base, scope))
        case .item(let base, let key): return try item(try evaluate(key, scope), of: try evaluate(base, scope))
        case .and(let operands): return try firstOperand(operands, scope) { !$0.isTrue }
        case .or(let operands): return try firstOperand(operands, scope) { $0.isTrue }
        case .not(let operand): return .bool(try !evaluate(operand, scope).isTrue)
        case .comparison(let first, let rest): return try evaluateComparison(first, rest, scope)
        case .conditional(let test, let then, let otherwise):
            if try evaluate(test, scope).isTrue { return try evaluate(then, scope) }
            guard let otherwise else {
                return .undefined(
                    .init("the inline if-expression evaluated to false and no else section was defined."))
            }
            return try evaluate(otherwise, scope)
        case .arithmetic(let first, let rest):
            var value = try evaluate(first, scope)
            for (operation, operand) in rest { value = try arithmetic(operation, value, try evaluate(operand, scope)) }
            return value
        case .concatenation(let operands):
            var text = ""
            for operand in operands { text += try printed(try evaluate(operand, scope)) }
            try charge(bytes: text.utf8.count)
            return .string(text)
        case .test(let base, let reference, let arguments):
            guard case .known(let test) = reference else { throw unknown(reference) }
            return .bool(try apply(test, to: try evaluate(base, scope), try evaluate(arguments, scope)))
        case .filter(let base, let reference, let arguments):
            guard case .known(let filter) = reference else { throw unknown(reference) }
            let value = try evaluate(base, scope)
            return try apply(filter, to: value, try evaluate(arguments, scope))
        case .call(let callee, let arguments):
            let function = try evaluate(callee, scope)
            return try call(function, try evaluate(arguments, scope))
        default: return try evaluateLiteral(expression, scope)
        }
    }

    private func evaluateLiteral(_ expression: Expression, _ scope: Scope) throws(TemplateError) -> Value {
        switch expression {
        case .list(let elements): return try list(try evaluate(elements, scope))
        case .tuple(let elements): return try tuple(try evaluate(elements, scope))
        case .dict(let members):
            var builder = DictBuilder()
            for (key, value) in members {
                let key = try evaluate(key, scope)
                try requireHashable(key)
                builder.set(key, try evaluate(value, scope))
            }
            return try dict(builder)
        case .slice(let base, let start, let stop, let step):
            let value = try evaluate(base, scope)
            func bound(_ expression: Expression?) throws(TemplateError) -> Value {
                guard let expression else { return .none }
                return try evaluate(expression, scope)
            }
            return try slice(value, try bound(start), try bound(stop), try bound(step))
        case .negate(let operand): return try negated(try evaluate(operand, scope))
        case .plus(let operand): return try positive(try evaluate(operand, scope))
        default: return try evaluate(expression, scope)
        }
    }

    private func evaluate(_ elements: [Expression], _ scope: Scope) throws(TemplateError) -> [Value] {
        var values: [Value] = []
        values.reserveCapacity(elements.count)
        for element in elements { values.append(try evaluate(element, scope)) }
        return values
    }

    /// `and` and `or` answer with the operand that decided.
    private func firstOperand(
        _ operands: [Expression], _ scope: Scope, where decides: (Value) -> Bool
    ) throws(TemplateError) -> Value {
        for operand in operands.dropLast() {
            let value = try evaluate(operand, scope)
            if decides(value) { return value }
        }
        return try evaluate(operands[operands.count - 1], scope)
    }

    private func evaluateComparison(
        _ first: Expression, _ rest: [(operation: ComparisonOperator, operand: Expression)], _ scope: Scope
    ) throws(TemplateError) -> Value {
        var left = try evaluate(first, scope)
        for (operation, operand) in rest {
            let right = try evaluate(operand, scope)
            guard try compare(operation, left, right) else { return .bool(false) }
            left = right
        }
        return .bool(true)
    }

    private func unknown(_ reference: FilterReference) -> TemplateError {
        if case .unknown(let name) = reference { return TemplateError(.syntax, "No filter named '\(name)'.") }
        return TemplateError(.syntax, "unknown filter")
    }

    private func unknown(_ reference: TestReference) -> TemplateError {
        if case .unknown(let name) = reference { return TemplateError(.syntax, "No test named '\(name)'.") }
        return TemplateError(.syntax, "unknown test")
    }

    // MARK: Calls

    func evaluate(_ arguments: Arguments, _ scope: Scope) throws(TemplateError) -> CallArguments {
        if arguments.isEmpty { return CallArguments() }
        var result = CallArguments()
        result.positional = try evaluate(arguments.positional, scope)
        if let spread = arguments.spread { result.positional += try items(of: try evaluate(spread, scope)) }
        for (name, expression) in arguments.keywords {
            try add((name, try evaluate(expression, scope)), to: &result)
        }
        if let spread = arguments.keywordSpread {
            let value = try evaluate(spread, scope)
            guard case .dict(let dict) = value else {
                throw TemplateError(.runtime, "argument after ** must be a mapping, not \(value.typeName)")
            }
            for (key, value) in zip(dict.keys, dict.values) {
                guard let name = key.text else { throw TemplateError(.runtime, "keywords must be strings") }
                try add((name, value), to: &result)
            }
        }
        return result
    }

    private func add(
        _ keyword: (name: String, value: Value), to arguments: inout CallArguments
    ) throws(TemplateError) {
        guard !arguments.keywords.contains(where: { utf8Equal($0.name, keyword.name) }) else {
            throw TemplateError(.runtime, "got multiple values for keyword argument '\(keyword.name)'")
        }
        try charge(1)
        arguments.keywords.append(keyword)
    }

    func call(_ callee: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        switch callee {
        case .function(let function):
            switch function.body {
            case .macro(let macro): return try call(macro, arguments)
            case .method(let receiver, let name): return try callMethod(name, of: receiver, arguments)
            case .global(let global): return try call(global, arguments)
            case .joiner(let joiner):
                guard joiner.isUsed else {
                    joiner.isUsed = true
                    return .string("")
                }
                return joiner.separator
            }
        case .loop(let loop):
            let bound = try arguments.bind("loop", ["iterable"], required: 1)
            return try recurse(loop, bound[0] ?? .none)
        case .undefined(let undefined): throw TemplateError(.undefined, undefined.message)
        default: throw TemplateError(.runtime, "'\(callee.typeName)' object is not callable")
        }
    }
}

extension CallArguments {
    /// Assigns arguments to parameters as Python does.
    /// - Returns: one entry per parameter, nil where nothing was given.
    func bind(
        _ function: String, _ parameters: [String], required: Int = 0
    ) throws(TemplateError) -> [Value?] {
        guard positional.count <= parameters.count else {
            throw TemplateError(
                .runtime,
                "\(function)() takes at most \(parameters.count) argument(s) (\(positional.count) given)")
        }
        var bound: [Value?] = positional
        bound += [Value?](repeating: nil, count: parameters.count - positional.count)
        for (name, value) in keywords {
            guard let index = parameters.firstIndex(of: name) else {
                throw TemplateError(.runtime, "\(function)() got an unexpected keyword argument '\(name)'")
            }
            guard bound[index] == nil else {
                throw TemplateError(.runtime, "\(function)() got multiple values for argument '\(name)'")
            }
            bound[index] = value
        }
        for index in 0..<required where bound[index] == nil {
            throw TemplateError(.runtime, "\(function)() missing required argument '\(parameters[index])'")
        }
        return bound
    }

    func requireNone(_ function: String) throws(TemplateError) { _ = try bind(function, []) }
}
