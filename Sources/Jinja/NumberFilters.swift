import Glibc

extension Interpreter {
    func applyNumberFilter(
        _ filter: Filter, _ value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        switch filter {
        case .int:
            let bound = try arguments.bind("int", ["default", "base"])
            let base = try integer(bound[1], default: 10)
            return try toInteger(value, base: base) ?? bound[0] ?? .int(0)
        case .float:
            let bound = try arguments.bind("float", ["default"])
            return try toFloat(value).map { .float($0) } ?? bound[0] ?? .float(0)
        case .abs:
            try arguments.requireNone("abs")
            switch value {
            case .float(let number): return .float(number.magnitude)
            case .bigInt(let digits): return .bigInt(digits.hasBytePrefix("-") ? String(digits.dropFirst()) : digits)
            default:
                guard let number = value.integer else { throw badOperand("abs", value) }
                return number < 0 ? try negated(value) : .int(number)
            }
        case .round: return try round(value, arguments)
        case .sum:
            let bound = try arguments.bind("sum", ["attribute", "start"])
            let hasPath = bound[0].map { !$0.isNone } ?? false
            let path = try path(bound[0])
            var total = bound[1] ?? .int(0)
            if total.text != nil {
                throw TemplateError(.runtime, "sum() can't sum strings [use ''.join(seq) instead]")
            }
            for item in try items(of: value) {
                total = try arithmetic(.add, total, hasPath ? try follow(path, from: item) : item)
            }
            return total
        default:
            let bound = try arguments.bind(filter.rawValue, ["case_sensitive", "attribute"])
            let path = try path(bound[1])
            let isCaseSensitive = bound[0]?.isTrue ?? false
            var best: (key: Value, value: Value)?
            for item in try items(of: value) {
                let raw = try follow(path, from: item)
                let key = isCaseSensitive ? raw : ignoringCase(raw)
                guard let current = best else {
                    best = (key, item)
                    continue
                }
                if try ordered(key, current.key, filter == .min ? "<" : ">") { best = (key, item) }
            }
            return best?.value ?? .undefined(.init("No aggregated item, sequence was empty."))
        }
    }

    private func badOperand(_ function: String, _ value: Value) -> TemplateError {
        if case .undefined(let undefined) = value { return TemplateError(.undefined, undefined.message) }
        return TemplateError(.runtime, "bad operand type for \(function)(): '\(value.typeName)'")
    }

    // MARK: Conversion

    /// What the `int` filter makes of a value; nil stands for its default.
    private func toInteger(_ value: Value, base: Int) throws(TemplateError) -> Value? {
        switch value {
        case .undefined(let undefined): throw TemplateError(.undefined, undefined.message)
        case .int, .bigInt: return value
        case .bool(let flag): return .int(flag ? 1 : 0)
        case .float(let number): return try truncated(number)
        case .string(let text), .markup(let text):
            if let number = try Self.parseInteger(text, base: base) { return number }
            return try toFloat(value).flatMap { number throws(TemplateError) in try truncated(number) }
        default: return nil
        }
    }

    private func truncated(_ number: Double) throws(TemplateError) -> Value? {
        guard number.isFinite else { return nil }
        guard let whole = Int(exactly: number.rounded(.towardZero)) else { throw Self.integerTooLarge }
        return .int(whole)
    }

    /// `int(text, base)`; nil for ValueError.
    private static func parseInteger(_ text: String, base: Int) throws(TemplateError) -> Value? {
        guard base == 0 || (2...36).contains(base) else {
            throw TemplateError(.runtime, "int() base must be >= 2 and <= 36, or 0")
        }
        var digits = text.stripped().pythonLowercased
        var sign = ""
        if digits.hasBytePrefix("-") || digits.hasBytePrefix("+") {
            if digits.hasBytePrefix("-") { sign = "-" }
            digits = String(digits.unicodeScalars.dropFirst())
        }
        var radix = base == 0 ? 10 : base
        for (prefix, prefixRadix) in [("0x", 16), ("0o", 8), ("0b", 2)]
        where digits.hasBytePrefix(prefix) && (base == 0 || base == prefixRadix) {
            radix = prefixRadix
            digits = String(digits.unicodeScalars.dropFirst(2))
            if digits.hasBytePrefix("_") { digits = String(digits.unicodeScalars.dropFirst()) }
            break
        }
        // Underscores may only stand between digits.
        guard !digits.isEmpty, !digits.hasBytePrefix("_"), !digits.hasByteSuffix("_"), !digits.containsBytes(of: "__")
        else { return nil }
        digits = digits.replacing("_", with: "")
        let isValid = digits.utf8.allSatisfy { byte in
            let digit =
                byte >= 0x30 && byte <= 0x39 ? Int(byte) - 0x30 : byte >= 0x61 && byte <= 0x7A ? Int(byte) - 0x57 : 99
            return digit < radix
        }
        guard isValid else { return nil }
        if let number = Int(sign + digits, radix: radix) { return .int(number) }
        guard radix == 10 else { throw integerTooLarge }
        let significant = digits.stripped(of: "0", right: false)
        return .bigInt(sign + significant)
    }

    /// `float(value)`; nil for TypeError and ValueError.
    func toFloat(_ value: Value) throws(TemplateError) -> Double? {
        if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
        if let number = value.double { return number }
        guard var text = value.text?.stripped().pythonLowercased else { return nil }
        if text.containsBytes(of: "_") {
            // Underscores may only stand between digits.
            let bytes = Array(text.utf8)
            for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "_") {
                let isDigit: (Int) -> Bool = { bytes.indices.contains($0) && bytes[$0] >= 0x30 && bytes[$0] <= 0x39 }
                guard isDigit(index - 1), isDigit(index + 1) else { return nil }
            }
            text = text.replacing("_", with: "")
        }
        let unsigned = text.hasBytePrefix("-") || text.hasBytePrefix("+") ? String(text.dropFirst()) : text
        switch unsigned {
        case "inf", "infinity", "nan":
            return unsigned == "nan" ? .nan : text.hasBytePrefix("-") ? -.infinity : .infinity
        default: break
        }
        // Swift also reads hexadecimal floats, Python does not.
        guard
            unsigned.utf8.allSatisfy({
                $0 >= 0x30 && $0 <= 0x39 || $0 == 0x2E || $0 == 0x65 || $0 == 0x2B || $0 == 0x2D
            })
        else { return nil }
        return Double(text)
    }

    // MARK: Rounding

    private func round(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let bound = try arguments.bind("round", ["precision", "method"])
        let precision = try integer(bound[0], default: 0)
        let method = bound[1]?.text ?? "common"
        guard ["common", "ceil", "floor"].contains(method) else {
            throw TemplateError(.runtime, "method must be common, ceil or floor")
        }
        guard let number = value.double else {
            if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
            throw TemplateError(.runtime, "type \(value.typeName) doesn't define __round__ method")
        }
        if method == "common" {
            if !value.isFloat { return try roundedInteger(value, precision) }
            return .float(roundedHalfEven(number, precision))
        }
        guard (-300...300).contains(precision) else { throw TemplateError(.runtime, "precision is out of range") }
        let factor = pow(10, Double(precision))
        let scaled = number * factor
        guard scaled.isFinite else { throw TemplateError(.runtime, "cannot convert float to integer") }
        return .float((method == "ceil" ? scaled.rounded(.up) : scaled.rounded(.down)) / factor)
    }

    private func roundedInteger(_ value: Value, _ precision: Int) throws(TemplateError) -> Value {
        guard precision < 0, let number = value.integer else { return value.integer.map { .int($0) } ?? value }
        guard precision > -19 else { return .int(0) }
        var unit = 1
        for _ in 0..<(-precision) { unit *= 10 }
        let floor = number - Self.modulo(number, unit)
        let rest = number - floor
        let roundsUp = rest > unit - rest || rest == unit - rest && (floor / unit) % 2 != 0
        let (result, overflow) = roundsUp ? floor.addingReportingOverflow(unit) : (floor, false)
        guard !overflow else { throw Self.integerTooLarge }
        return .int(result)
    }

    /// `round(float, precision)`: correctly rounded in decimal, ties to even.
    private func roundedHalfEven(_ number: Double, _ precision: Int) -> Double {
        guard number.isFinite, precision < 324 else { return number }
        if precision == 0 { return number.rounded(.toNearestOrEven) }
        if precision > 0 { return Double(formatFixed(number, precision: precision)) ?? number }
        guard precision > -309 else { return Double(signOf: number, magnitudeOf: 0) }
        let unit = pow(10, Double(-precision))
        return (number / unit).rounded(.toNearestOrEven) * unit
    }
}
