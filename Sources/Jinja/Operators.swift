import Glibc
import JSONBytes

// Python's operators. Integers are 64 bits wide; a result beyond them is an error rather than a big integer.
extension Interpreter {
    func arithmetic(
        _ operation: ArithmeticOperator, _ left: Value, _ right: Value
    ) throws(TemplateError) -> Value {
        if case .undefined(let undefined) = left { throw TemplateError(.undefined, undefined.message) }
        if case .modulo = operation, let format = left.text {
            if left.isMarkup { return .markup(try formatPercent(format, right, escapesHTML: true)) }
            return .string(try formatPercent(format, right))
        }
        if case .undefined(let undefined) = right { throw TemplateError(.undefined, undefined.message) }
        switch operation {
        case .add: return try add(left, right)
        case .multiply:
            if let value = try repeated(left, right) { return value }
            if let value = try repeated(right, left) { return value }
        default: break
        }
        if let a = left.integer, let b = right.integer { return try integerArithmetic(operation, a, b) }
        if let a = left.double, let b = right.double {
            if case .bigInt = left, !right.isFloat { throw Self.integerTooLarge }
            if case .bigInt = right, !left.isFloat { throw Self.integerTooLarge }
            return .float(try floatArithmetic(operation, a, b))
        }
        throw unsupportedOperands(operation.rawValue, left, right)
    }

    static var integerTooLarge: TemplateError { TemplateError(.runtime, "integer does not fit into 64 bits") }

    private func unsupportedOperands(_ symbol: String, _ left: Value, _ right: Value) -> TemplateError {
        let symbol = symbol == "**" ? "** or pow()" : symbol
        return TemplateError(
            .runtime, "unsupported operand type(s) for \(symbol): '\(left.typeName)' and '\(right.typeName)'")
    }

    private func add(_ left: Value, _ right: Value) throws(TemplateError) -> Value {
        switch (left, right) {
        case (.string(let a), .string(let b)):
            try charge(bytes: a.utf8.count + b.utf8.count)
            return .string(a + b)
        case (.markup, .string), (.string, .markup), (.markup, .markup):
            let text = try htmlEscaped(left) + htmlEscaped(right)
            try charge(bytes: text.utf8.count)
            return .markup(text)
        case (.list(let a), .list(let b)): return .list(try sequence(a.items + b.items))
        case (.tuple(let a), .tuple(let b)): return .tuple(try sequence(a.items + b.items))
        default: break
        }
        if let a = left.integer, let b = right.integer { return try integerArithmetic(.add, a, b) }
        if left.isFloat || right.isFloat, let a = left.double, let b = right.double { return .float(a + b) }
        if left.text != nil {
            throw TemplateError(.runtime, "can only concatenate str (not \"\(right.typeName)\") to str")
        }
        if case .list = left {
            throw TemplateError(.runtime, "can only concatenate list (not \"\(right.typeName)\") to list")
        }
        if left.double != nil, right.double != nil { throw Self.integerTooLarge }
        throw unsupportedOperands("+", left, right)
    }

    private func repeated(_ value: Value, _ times: Value) throws(TemplateError) -> Value? {
        guard let times = times.integer else { return nil }
        let count = max(0, times)
        switch value {
        case .string(let text), .markup(let text):
            let (bytes, overflow) = text.utf8.count.multipliedReportingOverflow(by: count)
            try charge(bytes: overflow ? .max : bytes)
            return value.isMarkup ? .markup(text.repeated(count)) : .string(text.repeated(count))
        case .list(let sequence), .tuple(let sequence):
            let (total, overflow) = sequence.items.count.multipliedReportingOverflow(by: count)
            try charge(overflow ? .max : total)
            var items: [Value] = []
            items.reserveCapacity(total)
            for _ in 0..<(sequence.items.isEmpty ? 0 : count) { items += sequence.items }
            let result = Value.Sequence(items, depth: sequence.depth)
            if case .list = value { return .list(result) }
            return .tuple(result)
        default: return nil
        }
    }

    private func integerArithmetic(
        _ operation: ArithmeticOperator, _ a: Int, _ b: Int
    ) throws(TemplateError) -> Value {
        let (result, overflow): (Int, Bool)
        switch operation {
        case .add: (result, overflow) = a.addingReportingOverflow(b)
        case .subtract: (result, overflow) = a.subtractingReportingOverflow(b)
        case .multiply: (result, overflow) = a.multipliedReportingOverflow(by: b)
        case .divide:
            guard b != 0 else { throw TemplateError(.runtime, "division by zero") }
            return .float(Double(a) / Double(b))
        case .floorDivide:
            guard b != 0 else { throw TemplateError(.runtime, "integer division or modulo by zero") }
            let (quotient, overflowed) = a.dividedReportingOverflow(by: b)
            guard !overflowed else { throw Self.integerTooLarge }
            return .int(a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient)
        case .modulo:
            guard b != 0 else { throw TemplateError(.runtime, "integer modulo by zero") }
            return .int(Self.modulo(a, b))
        case .power:
            guard b >= 0 else {
                guard a != 0 else { throw TemplateError(.runtime, "0.0 cannot be raised to a negative power") }
                return .float(pow(Double(a), Double(b)))
            }
            return .int(try integerPower(a, b))
        }
        guard !overflow else { throw Self.integerTooLarge }
        return .int(result)
    }

    /// `a % b`, which has the sign of `b`.
    static func modulo(_ a: Int, _ b: Int) -> Int {
        let remainder = a.remainderReportingOverflow(dividingBy: b).partialValue
        return remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder
    }

    private func integerPower(_ base: Int, _ exponent: Int) throws(TemplateError) -> Int {
        var result = 1
        var factor = base
        var rest = exponent
        while rest > 0 {
            if rest & 1 == 1 {
                let (product, overflow) = result.multipliedReportingOverflow(by: factor)
                guard !overflow else { throw Self.integerTooLarge }
                result = product
            }
            rest >>= 1
            if rest > 0 {
                let (square, overflow) = factor.multipliedReportingOverflow(by: factor)
                guard !overflow else { throw Self.integerTooLarge }
                factor = square
            }
        }
        return result
    }

    private func floatArithmetic(
        _ operation: ArithmeticOperator, _ a: Double, _ b: Double
    ) throws(TemplateError) -> Double {
        switch operation {
        case .add: return a + b
        case .subtract: return a - b
        case .multiply: return a * b
        case .divide:
            guard b != 0 else { throw TemplateError(.runtime, "float division by zero") }
            return a / b
        case .floorDivide:
            guard b != 0 else { throw TemplateError(.runtime, "float floor division by zero") }
            return ((a - (try floatArithmetic(.modulo, a, b))) / b).rounded()
        case .modulo:
            guard b != 0 else { throw TemplateError(.runtime, "float modulo") }
            let remainder = fmod(a, b)
            if remainder == 0 { return Double(signOf: b, magnitudeOf: 0) }
            return (remainder < 0) != (b < 0) ? remainder + b : remainder
        case .power:
            if a == 0, b < 0 { throw TemplateError(.runtime, "0.0 cannot be raised to a negative power") }
            if a < 0, b != b.rounded(), b.isFinite {
                throw TemplateError(.unsupported, "complex numbers are not supported")
            }
            let result = pow(a, b)
            if result.isInfinite, a.isFinite, b.isFinite { throw TemplateError(.runtime, "Result too large") }
            return result
        }
    }

    func negated(_ value: Value) throws(TemplateError) -> Value {
        switch value {
        case .undefined(let undefined): throw TemplateError(.undefined, undefined.message)
        case .float(let number): return .float(-number)
        case .bigInt(let text): return .bigInt(text.hasBytePrefix("-") ? String(text.dropFirst()) : "-" + text)
        default:
            guard let number = value.integer else {
                throw TemplateError(.runtime, "bad operand type for unary -: '\(value.typeName)'")
            }
            guard number != .min else { throw Self.integerTooLarge }
            return .int(-number)
        }
    }

    func positive(_ value: Value) throws(TemplateError) -> Value {
        if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
        if let number = value.integer { return .int(number) }
        guard value.double != nil else {
            throw TemplateError(.runtime, "bad operand type for unary +: '\(value.typeName)'")
        }
        return value
    }

    // MARK: Comparison

    func compare(
        _ operation: ComparisonOperator, _ left: Value, _ right: Value
    ) throws(TemplateError) -> Bool {
        switch operation {
        case .equal: return try equal(left, right)
        case .notEqual: return try !equal(left, right)
        case .isIn: return try contains(right, left)
        case .isNotIn: return try !contains(right, left)
        case .less: return try ordered(left, right, "<")
        case .greaterOrEqual: return try ordered(left, right, ">=")
        case .greater: return try ordered(left, right, ">")
        case .lessOrEqual: return try ordered(left, right, "<=")
        }
    }

    /// -1, 0 or 1; nil when either is NaN.
    private func order(_ left: Value, _ right: Value, _ symbol: String) throws(TemplateError) -> Int? {
        if let a = left.integer, let b = right.integer { return a < b ? -1 : a == b ? 0 : 1 }
        if let a = left.text, let b = right.text {
            // UTF-8 bytes sort like code points.
            if utf8Equal(a, b) { return 0 }
            return a.utf8.lexicographicallyPrecedes(b.utf8) ? -1 : 1
        }
        if let a = left.double, let b = right.double { return a < b ? -1 : a == b ? 0 : a > b ? 1 : nil }
        switch (left, right) {
        case (.undefined(let undefined), _), (_, .undefined(let undefined)):
            throw TemplateError(.undefined, undefined.message)
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            try charge(min(a.items.count, b.items.count))
            for (x, y) in zip(a.items, b.items) where try !equal(x, y) { return try order(x, y, symbol) }
            return a.items.count < b.items.count ? -1 : a.items.count == b.items.count ? 0 : 1
        default:
            throw TemplateError(
                .runtime,
                "'\(symbol)' not supported between instances of '\(left.typeName)' and '\(right.typeName)'")
        }
    }

    func ordered(_ left: Value, _ right: Value, _ symbol: String) throws(TemplateError) -> Bool {
        guard let order = try order(left, right, symbol) else { return false }
        return switch symbol {
        case "<": order < 0
        case "<=": order <= 0
        case ">": order > 0
        default: order >= 0
        }
    }

    /// `element in container`.
    func contains(_ container: Value, _ element: Value) throws(TemplateError) -> Bool {
        switch container {
        case .string(let text), .markup(let text):
            guard let part = element.text else {
                if case .undefined(let undefined) = element { throw TemplateError(.undefined, undefined.message) }
                throw TemplateError(
                    .runtime, "'in <string>' requires string as left operand, not \(element.typeName)")
            }
            try charge(bytes: text.utf8.count)
            return text.containsBytes(of: part)
        case .list(let sequence), .tuple(let sequence):
            for item in sequence.items where try equal(item, element) { return true }
            return false
        case .dict(let dict):
            try requireHashable(element)
            return dict.value(forKey: element) != nil
        case .dictView(let view):
            switch view.kind {
            case .keys:
                try requireHashable(element)
                return view.dict.value(forKey: element) != nil
            case .values:
                for item in view.dict.values where try equal(item, element) { return true }
                return false
            case .items:
                guard case .tuple(let pair) = element, pair.items.count == 2 else { return false }
                try requireHashable(pair.items[0])
                guard let found = view.dict.value(forKey: pair.items[0]) else { return false }
                return try equal(found, pair.items[1])
            }
        case .range(let range):
            guard range.count > 0 else { return false }
            var wanted = element.integer
            if case .float(let number) = element { wanted = Int(exactly: number) }
            guard let wanted else { return false }
            let (low, high) =
                range.step > 0 ? (range.start, range[range.count - 1]) : (range[range.count - 1], range.start)
            return wanted >= low && wanted <= high && (wanted - range.start) % range.step == 0
        case .undefined: return false
        case .iterator(let iterator):
            while let item = try iterator.next() {
                try charge(1)
                if try equal(item, element) { return true }
            }
            return false
        default:
            throw TemplateError(.runtime, "argument of type '\(container.typeName)' is not iterable")
        }
    }

    func requireHashable(_ value: Value) throws(TemplateError) {
        try charge(value.weight)
        guard value.isHashable else { throw TemplateError(.runtime, "unhashable type: '\(value.typeName)'") }
    }

    /// Sorts stably by keys; equal keys keep their order, also when descending.
    func sorted(
        _ items: [(key: Value, value: Value)], descending: Bool = false
    ) throws(TemplateError) -> [Value] {
        guard items.count > 1 else { return items.map(\.value) }
        var source = items
        var target = items
        var width = 1
        while width < source.count {
            try charge(source.count)
            var start = 0
            while start < source.count {
                let middle = min(start + width, source.count)
                let end = min(start + 2 * width, source.count)
                var (left, right, out) = (start, middle, start)
                while out < end {
                    let takesRight: Bool
                    if left == middle {
                        takesRight = true
                    } else if right == end {
                        takesRight = false
                    } else if descending {
                        takesRight = try ordered(source[left].key, source[right].key, "<")
                    } else {
                        takesRight = try ordered(source[right].key, source[left].key, "<")
                    }
                    target[out] = takesRight ? source[right] : source[left]
                    if takesRight { right += 1 } else { left += 1 }
                    out += 1
                }
                start = end
            }
            swap(&source, &target)
            width *= 2
        }
        return source.map(\.value)
    }
}

extension Value {
    var isFloat: Bool { if case .float = self { true } else { false } }
    var isMarkup: Bool { if case .markup = self { true } else { false } }
}

extension Interpreter {
    /// `markupsafe.escape`: text that is already marked stays as it is.
    func htmlEscaped(_ value: Value) throws(TemplateError) -> String {
        if case .markup(let text) = value { return text }
        return Jinja.htmlEscaped(try printed(value))
    }
}

func htmlEscaped(_ text: String) -> String {
    var out: [UInt8] = []
    out.reserveCapacity(text.utf8.count)
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "&"): out.append(contentsOf: "&amp;".utf8)
        case UInt8(ascii: "<"): out.append(contentsOf: "&lt;".utf8)
        case UInt8(ascii: ">"): out.append(contentsOf: "&gt;".utf8)
        case UInt8(ascii: "\""): out.append(contentsOf: "&#34;".utf8)
        case UInt8(ascii: "'"): out.append(contentsOf: "&#39;".utf8)
        default: out.append(byte)
        }
    }
    return String(decoding: out, as: UTF8.self)
}
