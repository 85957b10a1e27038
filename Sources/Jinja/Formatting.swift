import Glibc

/// `"%.<precision>f" % number`, correctly rounded.
func formatFixed(_ number: Double, precision: Int) -> String { cFormat("%.*f", precision, number) }

/// Formats one finite double with C's conversions, which agree with Python's for `e`, `f` and `g`.
private func cFormat(_ format: String, _ precision: Int, _ number: Double) -> String {
    let precision = min(precision, 1100)
    return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 2048) { buffer in
        let length = withVaList([Int32(precision), number]) { vsnprintf(buffer.baseAddress!, 2048, format, $0) }
        return String(decoding: UnsafeRawBufferPointer(buffer)[..<min(Int(length), 2047)], as: UTF8.self)
    }
}

/// A conversion such as `08.3f`, shared by `%` and `str.format`.
private struct FormatSpecification {
    var fill: Unicode.Scalar = " "
    var alignment: Unicode.Scalar?
    var sign: Unicode.Scalar?
    var isAlternate = false
    var width = 0
    var grouping: Unicode.Scalar?
    var precision: Int?
    var type: Unicode.Scalar?
}

extension Interpreter {
    // MARK: "..." % values

    func formatPercent(
        _ format: String, _ values: Value, escapesHTML: Bool = false
    ) throws(TemplateError) -> String {
        let scalars = Array(format.unicodeScalars)
        var result = ""
        var index = 0
        var arguments: [Value] = [values]
        var isMapping = false
        if case .tuple(let sequence) = values { arguments = sequence.items }
        // Python takes everything that can be subscripted, except tuples and strings, for a mapping.
        switch values {
        case .dict, .list, .range, .undefined: isMapping = true
        default: break
        }
        var used = 0
        func next() throws(TemplateError) -> Value {
            guard used < arguments.count else {
                throw TemplateError(.runtime, "not enough arguments for format string")
            }
            used += 1
            return arguments[used - 1]
        }
        while index < scalars.count {
            let scalar = scalars[index]
            index += 1
            guard scalar == "%" else {
                result.unicodeScalars.append(scalar)
                continue
            }
            var specification = FormatSpecification()
            var key: String?
            if index < scalars.count, scalars[index] == "(" {
                guard let close = scalars[index...].firstIndex(of: ")") else {
                    throw TemplateError(.runtime, "incomplete format key")
                }
                key = String(scalars: scalars[(index + 1)..<close])
                index = close + 1
            }
            flags: while index < scalars.count {
                switch scalars[index] {
                case "-": specification.alignment = "<"
                case "0":
                    if specification.alignment == nil {
                        specification.alignment = "="
                        specification.fill = "0"
                    }
                case "+": specification.sign = "+"
                case " ": if specification.sign == nil { specification.sign = " " }
                case "#": specification.isAlternate = true
                default: break flags
                }
                index += 1
            }
            func number() throws(TemplateError) -> Int? {
                if index < scalars.count, scalars[index] == "*" {
                    index += 1
                    return try integer(try next(), default: 0)
                }
                return try Self.digits(scalars, &index)
            }
            if let width = try number() {
                specification.width = width.magnitude > 1 << 30 ? 1 << 30 : abs(width)
                if width < 0 { specification.alignment = "<" }
            }
            if index < scalars.count, scalars[index] == "." {
                index += 1
                specification.precision = max(0, try number() ?? 0)
            }
            while index < scalars.count, ["h", "l", "L"].contains(scalars[index]) { index += 1 }
            guard index < scalars.count else { throw TemplateError(.runtime, "incomplete format") }
            let type = scalars[index]
            index += 1
            if type == "%" {
                result += "%"
                continue
            }
            let value: Value
            if let key {
                guard case .dict(let dict) = values else {
                    throw TemplateError(.runtime, "format requires a mapping")
                }
                guard let found = dict.value(key) else { throw TemplateError(.runtime, pythonRepr(key)) }
                value = found
            } else {
                value = try next()
            }
            let isText = type == "s" || type == "r" || type == "a"
            let escaped: Value =
                escapesHTML && isText ? .markup(try htmlEscaped(type == "s" ? value : .string(try repr(value)))) : value
            result += try percentConversion(escaped, escapesHTML && isText ? "s" : type, specification)
            try charge(bytes: specification.width)
        }
        if used < arguments.count, !isMapping {
            throw TemplateError(.runtime, "not all arguments converted during string formatting")
        }
        try charge(bytes: result.utf8.count)
        return result
    }

    private static func digits(_ scalars: [Unicode.Scalar], _ index: inout Int) throws(TemplateError) -> Int? {
        var value = 0
        let start = index
        while index < scalars.count, scalars[index].isASCIIDigit {
            value = value * 10 + Int(scalars[index].value - 0x30)
            guard value <= 1 << 30 else { throw TemplateError(.runtime, "Too many decimal digits in format string") }
            index += 1
        }
        return index > start ? value : nil
    }

    private func percentConversion(
        _ value: Value, _ type: Unicode.Scalar, _ specification: FormatSpecification
    ) throws(TemplateError) -> String {
        var specification = specification
        switch type {
        case "s", "r", "a":
            if specification.alignment == "=" { specification.fill = " " }
            specification.alignment = specification.alignment == "<" ? "<" : ">"
            return try pad(
                precisionCut(type == "s" ? try printed(value) : try repr(value), specification), specification)
        case "c":
            specification.alignment = specification.alignment == "<" ? "<" : ">"
            if let text = value.text, text.pythonLength == 1 { return try pad(text, specification) }
            guard let code = value.integer, let scalar = UInt32(exactly: code).flatMap(Unicode.Scalar.init) else {
                throw TemplateError(.runtime, "%c requires int or char")
            }
            return try pad(String(scalar), specification)
        case "d", "i", "u", "x", "X", "o":
            guard value.double != nil else {
                if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
                throw TemplateError(
                    .runtime, "%\(type) format: a real number is required, not \(value.typeName)")
            }
            var whole = value
            if case .float(let number) = value {
                guard let integer = Int(exactly: number.rounded(.towardZero)), ["d", "i", "u"].contains(type) else {
                    throw TemplateError(.runtime, "%\(type) format: an integer is required, not float")
                }
                whole = .int(integer)
            }
            specification.type = ["d", "i", "u"].contains(type) ? "d" : type
            let minimum = specification.precision
            specification.precision = nil
            return try formatInteger(whole, specification, minimumDigits: minimum)
        case "e", "E", "f", "F", "g", "G":
            guard let number = try toFloat(value), value.text == nil else {
                throw TemplateError(.runtime, "must be real number, not \(value.typeName)")
            }
            specification.type = type
            return try formatFloat(number, specification)
        default:
            throw TemplateError(.runtime, "unsupported format character '\(type)'")
        }
    }

    // MARK: str.format

    func formatBraces(_ format: String, _ arguments: CallArguments) throws(TemplateError) -> String {
        var automatic = 0
        let result = try formatBraces(Array(format.unicodeScalars), arguments, &automatic, depth: 2)
        try charge(bytes: result.utf8.count)
        return result
    }

    private func formatBraces(
        _ scalars: [Unicode.Scalar], _ arguments: CallArguments, _ automatic: inout Int, depth: Int
    ) throws(TemplateError) -> String {
        guard depth > 0 else { throw TemplateError(.runtime, "Max string recursion exceeded") }
        var result = ""
        var index = 0
        while index < scalars.count {
            let scalar = scalars[index]
            index += 1
            if scalar == "{" || scalar == "}" {
                if index < scalars.count, scalars[index] == scalar {
                    index += 1
                    result.unicodeScalars.append(scalar)
                    continue
                }
                guard scalar == "{" else {
                    throw TemplateError(.runtime, "Single '}' encountered in format string")
                }
                var level = 1
                let start = index
                while index < scalars.count, level > 0 {
                    if scalars[index] == "{" { level += 1 }
                    if scalars[index] == "}" { level -= 1 }
                    index += 1
                }
                guard level == 0 else { throw TemplateError(.runtime, "expected '}' before end of string") }
                result += try replacementField(scalars[start..<(index - 1)], arguments, &automatic, depth: depth)
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private func replacementField(
        _ field: ArraySlice<Unicode.Scalar>, _ arguments: CallArguments, _ automatic: inout Int, depth: Int
    ) throws(TemplateError) -> String {
        var nameEnd = field.startIndex
        var isInBrackets = false
        while nameEnd < field.endIndex {
            let scalar = field[nameEnd]
            if scalar == "[" { isInBrackets = true }
            if scalar == "]" { isInBrackets = false }
            if !isInBrackets, scalar == "!" || scalar == ":" { break }
            nameEnd += 1
        }
        var conversion: Unicode.Scalar?
        var rest = field[nameEnd...]
        if rest.first == "!" {
            rest = rest.dropFirst()
            guard let letter = rest.popFirst(), rest.isEmpty || rest.first == ":" else {
                throw TemplateError(.runtime, "expected ':' after conversion specifier")
            }
            conversion = letter
        }
        // The value takes its automatic number before the fields nested in its specification do.
        var value = try lookUp(field[..<nameEnd], arguments, &automatic)
        var specification = ""
        if rest.first == ":" {
            specification = try formatBraces(Array(rest.dropFirst()), arguments, &automatic, depth: depth - 1)
        }
        switch conversion {
        case nil: break
        case "s": value = .string(try printed(value))
        case "r", "a": value = .string(try repr(value))
        default: throw TemplateError(.runtime, "Unknown conversion specifier")
        }
        return try formatted(value, specification)
    }

    private func lookUp(
        _ path: ArraySlice<Unicode.Scalar>, _ arguments: CallArguments, _ automatic: inout Int
    ) throws(TemplateError) -> Value {
        var end = path.startIndex
        while end < path.endIndex, path[end] != ".", path[end] != "[" { end += 1 }
        let first = String(scalars: path[..<end])
        var value: Value
        if let position = first.isEmpty ? automatic : Int(first) {
            if first.isEmpty { automatic += 1 }
            guard arguments.positional.indices.contains(position) else {
                throw TemplateError(
                    .runtime, "Replacement index \(position) out of range for positional args tuple")
            }
            value = arguments.positional[position]
        } else {
            guard let found = arguments.keywords.first(where: { $0.name == first }) else {
                throw TemplateError(.runtime, pythonRepr(first))
            }
            value = found.value
        }
        while end < path.endIndex {
            let start = end + 1
            if path[end] == "." {
                end = start
                while end < path.endIndex, path[end] != ".", path[end] != "[" { end += 1 }
                value = try attribute(String(scalars: path[start..<end]), of: value)
            } else {
                guard let close = path[start...].firstIndex(of: "]") else {
                    throw TemplateError(.runtime, "Missing ']' in format string")
                }
                let key = String(scalars: path[start..<close])
                value = try item(Int(key).map { .int($0) } ?? .string(key), of: value)
                end = close + 1
                guard end == path.endIndex || path[end] == "." || path[end] == "[" else {
                    throw TemplateError(.runtime, "Only '.' or '[' may follow ']' in format field specifier")
                }
            }
        }
        return value
    }

    /// `format(value, specification)`.
    private func formatted(_ value: Value, _ text: String) throws(TemplateError) -> String {
        if text.isEmpty { return try printed(value) }
        var specification = try parseSpecification(Array(text.unicodeScalars))
        try charge(bytes: specification.width)
        switch value {
        case .string(let text), .markup(let text):
            guard specification.type == nil || specification.type == "s" else {
                throw TemplateError(
                    .runtime, "Unknown format code '\(specification.type ?? "s")' for object of type 'str'")
            }
            if specification.alignment == "=" {
                throw TemplateError(.runtime, "'=' alignment not allowed in string format specifier")
            }
            specification.alignment = specification.alignment ?? "<"
            return try pad(precisionCut(text, specification), specification)
        case .float(let number):
            return try formatFloat(number, specification)
        case .int, .bool, .bigInt:
            if let type = specification.type, ["e", "E", "f", "F", "g", "G", "%"].contains(type) {
                return try formatFloat(value.double ?? 0, specification)
            }
            guard specification.precision == nil else {
                throw TemplateError(.runtime, "Precision not allowed in integer format specifier")
            }
            return try formatInteger(value, specification)
        default:
            throw TemplateError(
                .runtime, "unsupported format string passed to \(value.typeName).__format__")
        }
    }

    private func parseSpecification(
        _ scalars: [Unicode.Scalar]
    ) throws(TemplateError) -> FormatSpecification {
        let alignments: Set<Unicode.Scalar> = ["<", ">", "=", "^"]
        var result = FormatSpecification()
        var index = 0
        if scalars.count > 1, alignments.contains(scalars[1]) {
            result.fill = scalars[0]
            result.alignment = scalars[1]
            index = 2
        } else if let first = scalars.first, alignments.contains(first) {
            result.alignment = first
            index = 1
        }
        func take(_ options: Set<Unicode.Scalar>) -> Unicode.Scalar? {
            guard index < scalars.count, options.contains(scalars[index]) else { return nil }
            index += 1
            return scalars[index - 1]
        }
        result.sign = take(["+", "-", " "])
        if take(["#"]) != nil { result.isAlternate = true }
        if take(["0"]) != nil, result.alignment == nil {
            result.fill = "0"
            result.alignment = "="
        }
        result.width = try Self.digits(scalars, &index) ?? 0
        result.grouping = take([",", "_"])
        if take(["."]) != nil {
            guard let precision = try Self.digits(scalars, &index) else {
                throw TemplateError(.runtime, "Format specifier missing precision")
            }
            result.precision = precision
        }
        if index < scalars.count {
            result.type = scalars[index]
            index += 1
        }
        guard index == scalars.count else { throw TemplateError(.runtime, "Invalid format specifier") }
        return result
    }

    // MARK: Conversions

    private func precisionCut(_ text: String, _ specification: FormatSpecification) -> String {
        guard let precision = specification.precision, precision < text.pythonLength else { return text }
        return String(scalars: text.unicodeScalars.prefix(precision))
    }

    private func pad(_ text: String, _ specification: FormatSpecification) throws(TemplateError) -> String {
        let missing = specification.width - text.pythonLength
        guard missing > 0 else { return text }
        try charge(bytes: missing)
        let fill = String(specification.fill)
        switch specification.alignment {
        case "<": return text + fill.repeated(missing)
        case "^": return fill.repeated(missing / 2) + text + fill.repeated(missing - missing / 2)
        default: return fill.repeated(missing) + text
        }
    }

    /// Puts sign, prefix and digits together, with padding between them when the alignment is `=`.
    private func assemble(
        isNegative: Bool, prefix: String, digits: String, _ specification: FormatSpecification
    ) throws(TemplateError) -> String {
        let plus = specification.sign.map { $0 == "-" ? "" : String($0) } ?? ""
        let sign = (isNegative ? "-" : plus) + prefix
        guard specification.alignment == "=" else { return try pad(sign + digits, specification) }
        let missing = max(0, specification.width - sign.pythonLength - digits.pythonLength)
        try charge(bytes: missing)
        return sign + String(specification.fill).repeated(missing) + digits
    }

    private func formatInteger(
        _ value: Value, _ specification: FormatSpecification, minimumDigits: Int? = nil
    ) throws(TemplateError) -> String {
        var digits: String
        var prefix = ""
        var isNegative = false
        if case .bigInt(let text) = value, specification.type == nil || specification.type == "d" {
            isNegative = text.hasBytePrefix("-")
            digits = isNegative ? String(text.dropFirst()) : text
        } else {
            guard let number = value.integer else { throw Self.integerTooLarge }
            isNegative = number < 0
            let radix: Int
            switch specification.type {
            case nil, "d", "n": radix = 10
            case "x", "X": (radix, prefix) = (16, "0x")
            case "o": (radix, prefix) = (8, "0o")
            case "b": (radix, prefix) = (2, "0b")
            case "c":
                guard let scalar = UInt32(exactly: number).flatMap(Unicode.Scalar.init) else {
                    throw TemplateError(.runtime, "%c arg not in range(0x110000)")
                }
                return try pad(String(scalar), specification)
            default:
                throw TemplateError(
                    .runtime, "Unknown format code '\(specification.type ?? "d")' for object of type 'int'")
            }
            digits = String(number.magnitude, radix: radix, uppercase: specification.type == "X")
            if specification.type == "X" { prefix = "0X" }
        }
        if let minimumDigits, digits.utf8.count < minimumDigits {
            try charge(bytes: minimumDigits)
            digits = "0".repeated(minimumDigits - digits.utf8.count) + digits
        }
        if let grouping = specification.grouping { digits = Self.grouped(digits, grouping) }
        return try assemble(
            isNegative: isNegative, prefix: specification.isAlternate ? prefix : "", digits: digits, specification)
    }

    private func formatFloat(
        _ number: Double, _ specification: FormatSpecification
    ) throws(TemplateError) -> String {
        let magnitude = number.magnitude
        let isNegative = number.sign == .minus && !number.isNaN
        let isUpper = specification.type.map { ["E", "F", "G"].contains($0) } ?? false
        var digits: String
        if !number.isFinite {
            digits = number.isNaN ? "nan" : "inf"
        } else {
            try charge(bytes: 1024)
            let precision = specification.precision
            switch specification.type {
            case "f", "F": digits = formatFixed(magnitude, precision: precision ?? 6)
            case "e", "E": digits = cFormat("%.*e", precision ?? 6, magnitude)
            case "g", "G": digits = cFormat(specification.isAlternate ? "%#.*g" : "%.*g", precision ?? 6, magnitude)
            case "%": digits = formatFixed(magnitude * 100, precision: precision ?? 6) + "%"
            case nil:
                if let precision {
                    digits = cFormat("%.*g", precision, magnitude)
                    if digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) { digits += ".0" }
                } else {
                    digits = pythonRepr(magnitude)
                }
            default:
                throw TemplateError(
                    .runtime, "Unknown format code '\(specification.type ?? "f")' for object of type 'float'")
            }
        }
        if isUpper { digits = digits.pythonUppercased }
        if let grouping = specification.grouping {
            let whole = digits.utf8.prefix { $0 >= 0x30 && $0 <= 0x39 }
            digits =
                Self.grouped(String(Substring(whole)), grouping) + String(Substring(digits.utf8.dropFirst(whole.count)))
        }
        return try assemble(isNegative: isNegative, prefix: "", digits: digits, specification)
    }

    private static func grouped(_ digits: String, _ separator: Unicode.Scalar) -> String {
        var result: [UInt8] = []
        let bytes = Array(digits.utf8)
        for (index, byte) in bytes.enumerated() {
            if index > 0, (bytes.count - index) % 3 == 0 { result.append(UInt8(truncatingIfNeeded: separator.value)) }
            result.append(byte)
        }
        return String(decoding: result, as: UTF8.self)
    }
}
