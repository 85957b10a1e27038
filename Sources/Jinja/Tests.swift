import JSONBytes

/// The tests of `is`, by their names in templates.
package enum Test: String, Sendable, CaseIterable {
    case odd, even, divisibleby, defined, undefined, none, boolean
    case isFilter = "filter"
    case isTest = "test"
    case isFalse = "false"
    case isTrue = "true"
    case integer, float, lower, upper, string, mapping, number, sequence, iterable, callable, sameas, escaped
    case isIn = "in"
    case equalSymbol = "=="
    case eq, equalto
    case notEqualSymbol = "!="
    case ne
    case greaterSymbol = ">"
    case gt, greaterthan
    case ge
    case greaterOrEqualSymbol = ">="
    case lessSymbol = "<"
    case lt, lessthan
    case lessOrEqualSymbol = "<="
    case le
}

extension Interpreter {
    func apply(
        _ test: Test, to value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Bool {
        func other() throws(TemplateError) -> Value {
            try arguments.bind(test.rawValue, ["other"], required: 1)[0] ?? .none
        }
        switch test {
        case .defined: return !value.isUndefined
        case .undefined: return value.isUndefined
        case .none: return value.isNone
        case .string: return value.text != nil
        case .mapping: if case .dict = value { return true } else { return false }
        case .boolean: if case .bool = value { return true } else { return false }
        case .isTrue: if case .bool(true) = value { return true } else { return false }
        case .isFalse: if case .bool(false) = value { return true } else { return false }
        case .integer:
            switch value {
            case .int, .bigInt: return true
            default: return false
            }
        case .float: return value.isFloat
        case .number: return value.double != nil
        case .sequence:
            switch value {
            case .string, .markup, .list, .tuple, .dict, .range, .undefined: return true
            default: return false
            }
        case .iterable:
            switch value {
            case .none, .bool, .int, .bigInt, .float, .function, .namespace, .cycler: return false
            default: return true
            }
        case .callable:
            switch value {
            case .function, .loop, .undefined: return true
            default: return false
            }
        case .escaped: return value.isMarkup
        case .isFilter: return value.text.flatMap(Filter.init(rawValue:)) != nil
        case .isTest: return value.text.flatMap(Test.init(rawValue:)) != nil
        case .lower: return try isTrueMethod("islower", value)
        case .upper: return try isTrueMethod("isupper", value)
        case .odd, .even:
            return try arithmetic(.modulo, try number(value), .int(2)).equals(.int(test == .odd ? 1 : 0))
        case .divisibleby: return try arithmetic(.modulo, try number(value), try other()).equals(.int(0))
        case .sameas: return value.isIdentical(to: try other())
        case .isIn: return try contains(try other(), value)
        case .equalSymbol, .eq, .equalto: return try compare(.equal, value, try other())
        case .notEqualSymbol, .ne: return try compare(.notEqual, value, try other())
        case .greaterSymbol, .gt, .greaterthan: return try compare(.greater, value, try other())
        case .greaterOrEqualSymbol, .ge: return try compare(.greaterOrEqual, value, try other())
        case .lessSymbol, .lt, .lessthan: return try compare(.less, value, try other())
        case .lessOrEqualSymbol, .le: return try compare(.lessOrEqual, value, try other())
        }
    }

    private func isTrueMethod(_ name: String, _ value: Value) throws(TemplateError) -> Bool {
        try callStringMethod(name, try printed(value), CallArguments()).isTrue
    }

    /// Refuses strings, for which `%` would mean formatting.
    private func number(_ value: Value) throws(TemplateError) -> Value {
        if value.text != nil { throw TemplateError(.runtime, "not all arguments converted during string formatting") }
        return value
    }
}
