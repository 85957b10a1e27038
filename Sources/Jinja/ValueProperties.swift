import JSONBytes

extension Value {
    static let maximumDepth = 600

    /// Python's name of the type, as error messages show it.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .int, .bigInt: "int"
        case .float: "float"
        case .string: "str"
        case .markup: "Markup"
        case .list: "list"
        case .tuple: "tuple"
        case .dict: "dict"
        case .dictView(let view): "dict_\(view.kind.rawValue)"
        case .range: "range"
        case .iterator: "generator"
        case .function(let function):
            switch function.body {
            case .macro: "Macro"
            case .joiner: "Joiner"
            case .method: "builtin_function_or_method"
            case .global(let global): global.isClass ? "type" : "function"
            }
        case .namespace: "Namespace"
        case .loop: "LoopContext"
        case .cycler: "Cycler"
        }
    }

    /// Levels of immutable objects below and including this one.
    var depth: Int {
        switch self {
        case .list(let sequence), .tuple(let sequence): sequence.depth
        case .dict(let dict): dict.depth
        case .dictView(let view): view.dict.depth + 1
        case .iterator(let iterator): iterator.depth
        case .function(let function): function.depth
        case .cycler(let cycler): cycler.depth
        case .loop(let loop): loop.depth
        default: 0
        }
    }

    /// Elements and pieces of text met when the whole value is walked.
    var weight: Int {
        switch self {
        case .string(let text), .markup(let text): 1 + text.utf8.count >> 5
        case .list(let sequence), .tuple(let sequence): sequence.weight
        case .dict(let dict): dict.weight
        case .dictView(let view): view.dict.weight
        default: 1
        }
    }

    /// `bool(value)`.
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let flag): flag
        case .int(let number): number != 0
        case .bigInt: true
        case .float(let number): number != 0
        case .string(let text), .markup(let text): !text.isEmpty
        case .list(let sequence), .tuple(let sequence): !sequence.items.isEmpty
        case .dict(let dict): dict.count > 0
        case .dictView(let view): view.dict.count > 0
        case .range(let range): range.count > 0
        case .iterator, .function, .namespace, .loop, .cycler: true
        }
    }

    /// The text of a `str`, marked as HTML or not.
    var text: String? {
        switch self {
        case .string(let text), .markup(let text): text
        default: nil
        }
    }

    /// The value as Python's `int` sees it; `bool` is an `int`.
    var integer: Int? {
        switch self {
        case .int(let number): number
        case .bool(let flag): flag ? 1 : 0
        default: nil
        }
    }

    /// A number of any kind as a double.
    var double: Double? {
        switch self {
        case .int(let number): Double(number)
        case .bool(let flag): flag ? 1 : 0
        case .float(let number): number
        case .bigInt(let text): Double(text)
        default: nil
        }
    }

    var isUndefined: Bool { if case .undefined = self { true } else { false } }
    var isNone: Bool { if case .none = self { true } else { false } }

    /// `left == right`. Pay for the lighter one's weight first.
    func equals(_ other: Value) -> Bool {
        switch (self, other) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.string(let left), .string(let right)), (.string(let left), .markup(let right)),
            (.markup(let left), .string(let right)), (.markup(let left), .markup(let right)):
            return utf8Equal(left, right)
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
            return left === right
                || left.items.count == right.items.count && zip(left.items, right.items).allSatisfy { $0.equals($1) }
        case (.dict(let left), .dict(let right)):
            return left === right
                || left.count == right.count
                    && zip(left.keys, left.values).allSatisfy { key, value in
                        right.value(forKey: key).map { $0.equals(value) } ?? false
                    }
        case (.range(let left), .range(let right)):
            return left.count == right.count
                && (left.count == 0 || left.start == right.start && (left.count == 1 || left.step == right.step))
        case (.dictView(let left), .dictView(let right)):
            guard left.kind == right.kind, left.kind != .values else { return left === right }
            return left.dict.count == right.dict.count
                && zip(left.dict.keys, left.dict.values).allSatisfy { key, value in
                    guard let found = right.dict.value(forKey: key) else { return false }
                    return left.kind == .keys || found.equals(value)
                }
        default: return isSameNumber(as: other) ?? isIdentical(to: other)
        }
    }

    /// Equality of two numbers; nil when one of the values is not a number.
    private func isSameNumber(as other: Value) -> Bool? {
        if let left = integer, let right = other.integer { return left == right }
        switch (self, other) {
        case (.float(let left), .float(let right)): return left == right
        case (.float(let left), _): return other.integer.map { Int(exactly: left) == $0 }
        case (_, .float(let right)): return integer.map { Int(exactly: right) == $0 }
        case (.bigInt(let left), .bigInt(let right)): return left == right
        default: return nil
        }
    }

    /// `left is right`, as far as it is defined for values without an identity of their own.
    func isIdentical(to other: Value) -> Bool {
        switch (self, other) {
        case (.none, .none): true
        case (.bool(let left), .bool(let right)): left == right
        case (.int(let left), .int(let right)): left == right
        case (.string(let left), .string(let right)): utf8Equal(left, right)
        case (.undefined(let left), .undefined(let right)): left === right
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)): left === right
        case (.dict(let left), .dict(let right)): left === right
        case (.dictView(let left), .dictView(let right)): left === right
        case (.range(let left), .range(let right)): left === right
        case (.iterator(let left), .iterator(let right)): left === right
        case (.namespace(let left), .namespace(let right)): left === right
        case (.loop(let left), .loop(let right)): left === right
        case (.cycler(let left), .cycler(let right)): left === right
        case (.function(let left), .function(let right)): left.isSame(as: right)
        default: false
        }
    }

    /// Whether the value may be a dict key.
    var isHashable: Bool {
        switch self {
        case .list, .dict, .dictView: false
        case .tuple(let sequence): sequence.items.allSatisfy(\.isHashable)
        default: true
        }
    }
}

extension Function {
    func isSame(as other: Function) -> Bool {
        switch (body, other.body) {
        case (.global(let left), .global(let right)): left == right
        case (.macro(let left), .macro(let right)): left === right
        case (.joiner(let left), .joiner(let right)): left === right
        case (.method(let left, let leftName), .method(let right, let rightName)):
            leftName == rightName && left.isIdentical(to: right)
        default: false
        }
    }
}

// MARK: Printing

extension Value {
    /// `str(value)`. Pay for its weight first.
    var description: String {
        switch self {
        case .string(let text), .markup(let text): return text
        case .undefined: return ""
        default:
            var out = ""
            appendRepr(to: &out)
            return out
        }
    }

    /// `repr(value)`. Pay for its weight first.
    var repr: String {
        var out = ""
        appendRepr(to: &out)
        return out
    }

    private func appendRepr(to out: inout String) {
        switch self {
        case .undefined: out += "Undefined"
        case .none: out += "None"
        case .bool(let flag): out += flag ? "True" : "False"
        case .int(let number): out += String(number)
        case .bigInt(let text): out += text
        case .float(let number): out += pythonRepr(number)
        case .string(let text): out += pythonRepr(text)
        case .markup(let text): out += "Markup(\(pythonRepr(text)))"
        case .list(let sequence): Self.appendRepr(sequence.items, "[", "]", to: &out)
        case .tuple(let sequence):
            Self.appendRepr(sequence.items, "(", sequence.items.count == 1 ? ",)" : ")", to: &out)
        case .dict(let dict): Self.appendRepr(keys: dict.keys, values: dict.values, to: &out)
        case .dictView(let view):
            out += "dict_\(view.kind.rawValue)("
            switch view.kind {
            case .keys: Self.appendRepr(view.dict.keys, "[", "]", to: &out)
            case .values: Self.appendRepr(view.dict.values, "[", "]", to: &out)
            case .items:
                out += "["
                for (index, key) in view.dict.keys.enumerated() {
                    if index > 0 { out += ", " }
                    Self.appendRepr([key, view.dict.values[index]], "(", ")", to: &out)
                }
                out += "]"
            }
            out += ")"
        case .range(let range):
            out += "range(\(range.start), \(range.stop)" + (range.step == 1 ? ")" : ", \(range.step))")
        case .namespace: out += "<Namespace>"
        case .function(let function):
            if case .macro(let macro) = function.body {
                out += "<Macro \(macro.definition.name.map { pythonRepr($0.text) } ?? "anonymous")>"
            } else {
                out += "<\(typeName) object>"
            }
        case .loop(let loop): out += "<LoopContext \(loop.index)/\((try? loop.length()) ?? 0)>"
        case .iterator, .cycler: out += "<\(typeName) object>"
        }
    }

    private static func appendRepr(_ items: [Value], _ open: String, _ close: String, to out: inout String) {
        out += open
        for (index, item) in items.enumerated() {
            if index > 0 { out += ", " }
            item.appendRepr(to: &out)
        }
        out += close
    }

    private static func appendRepr(keys: [Value], values: [Value], to out: inout String) {
        out += "{"
        for (index, key) in keys.enumerated() {
            if index > 0 { out += ", " }
            key.appendRepr(to: &out)
            out += ": "
            values[index].appendRepr(to: &out)
        }
        out += "}"
    }
}

/// `repr(float)`.
func pythonRepr(_ number: Double) -> String {
    if number.isNaN { return "nan" }
    if number.isInfinite { return number < 0 ? "-inf" : "inf" }
    return JSONNumber(number).text
}

/// `repr(str)`: single quotes unless only they occur inside.
func pythonRepr(_ text: String) -> String {
    let quote: Unicode.Scalar = text.utf8.contains(0x27) && !text.utf8.contains(0x22) ? "\"" : "'"
    var out = String(quote)
    for scalar in text.unicodeScalars {
        switch scalar {
        case quote, "\\":
            out += "\\"
            out.unicodeScalars.append(scalar)
        case "\n": out += "\\n"
        case "\r": out += "\\r"
        case "\t": out += "\\t"
        default:
            if scalar.isPythonPrintable {
                out.unicodeScalars.append(scalar)
            } else {
                let digits = String(scalar.value, radix: 16)
                let (letter, width) = scalar.value < 0x100 ? ("x", 2) : scalar.value < 0x10000 ? ("u", 4) : ("U", 8)
                out += "\\" + letter + String(repeating: "0", count: width - digits.count) + digits
            }
        }
    }
    out.unicodeScalars.append(quote)
    return out
}

// MARK: From and to JSON

extension Value {
    /// The value Python's `json.loads` would make.
    init(json: JSONValue) {
        switch json {
        case .null: self = .none
        case .bool(let flag): self = .bool(flag)
        case .string(let text): self = .string(text)
        case .number(let number):
            if !number.isInteger {
                self = .float(number.doubleValue)
            } else if let value = number.intValue {
                self = .int(value)
            } else {
                self = .bigInt(number.text)
            }
        case .array(let elements):
            let items = elements.map { Value(json: $0) }
            self = .list(Sequence(items, depth: 1 + (items.lazy.map(\.depth).max() ?? 0)))
        case .object(let object):
            var builder = DictBuilder()
            for (key, value) in object.pairs { builder.set(.string(key), Value(json: value)) }
            self = .dict(builder.build(depth: 1 + (builder.values.lazy.map(\.depth).max() ?? 0)))
        }
    }
}
