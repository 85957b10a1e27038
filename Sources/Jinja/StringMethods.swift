import JSONBytes

extension Interpreter {
    func callStringMethod(
        _ name: String, _ text: String, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        try charge(bytes: text.utf8.count * 2)
        switch name {
        case "strip", "lstrip", "rstrip":
            let characters = try optionalText(arguments, name, "chars")
            return .string(text.stripped(of: characters, left: name != "rstrip", right: name != "lstrip"))
        case "split", "rsplit": return try split(name, text, arguments)
        case "startswith", "endswith": return try hasAffix(name, text, arguments)
        case "replace":
            let bound = try arguments.bind(name, ["old", "new", "count"], required: 2)
            let (old, new) = (try string(bound[0], name), try string(bound[1], name))
            return .string(try replace(text, old, new, count: bound[2]))
        case "join":
            let bound = try arguments.bind(name, ["iterable"], required: 1)
            var parts: [String] = []
            for (index, item) in try items(of: bound[0] ?? .none).enumerated() {
                guard let part = item.text else {
                    throw TemplateError(
                        .runtime, "sequence item \(index): expected str instance, \(item.typeName) found")
                }
                parts.append(part)
            }
            return .string(try joined(parts, separator: text))
        case "find", "rfind", "index", "rindex", "count": return try search(name, text, arguments)
        case "format": return .string(try formatBraces(text, arguments))
        case "format_map":
            let bound = try arguments.bind(name, ["mapping"], required: 1)
            guard case .dict(let dict)? = bound[0] else {
                throw TemplateError(.runtime, "format_map() needs a mapping")
            }
            var spread = CallArguments()
            for (key, value) in zip(dict.keys, dict.values) {
                if let name = key.text { spread.keywords.append((name, value)) }
            }
            return .string(try formatBraces(text, spread))
        case "removeprefix", "removesuffix":
            let affix = try string(try arguments.bind(name, ["affix"], required: 1)[0], name)
            if name == "removeprefix" {
                return .string(text.hasBytePrefix(affix) ? String(text.utf8.dropFirst(affix.utf8.count)) ?? text : text)
            }
            return .string(text.hasByteSuffix(affix) ? String(text.utf8.dropLast(affix.utf8.count)) ?? text : text)
        case "partition", "rpartition": return try partition(name, text, arguments)
        case "splitlines":
            let keep = try arguments.bind(name, ["keepends"])[0]?.isTrue ?? false
            return try list(text.lines(keepingEnds: keep).map { .string($0) })
        case "center", "ljust", "rjust":
            let bound = try arguments.bind(name, ["width", "fillchar"], required: 1)
            return .string(try justify(text, bound[0], bound[1], name))
        case "zfill":
            guard let width = try arguments.bind(name, ["width"], required: 1)[0]?.integer else {
                throw TemplateError(.runtime, "zfill() needs an integer")
            }
            let missing = width - min(width, text.pythonLength)
            try charge(bytes: missing)
            let hasSign = text.hasBytePrefix("+") || text.hasBytePrefix("-")
            let zeros = "0".repeated(missing)
            return .string(hasSign ? String(text.unicodeScalars.prefix(1)) + zeros + text.dropFirst() : zeros + text)
        case "expandtabs":
            let size = try arguments.bind(name, ["tabsize"])[0]?.integer ?? 8
            return .string(try expandTabs(text, size))
        default:
            try arguments.requireNone(name)
            return simpleStringMethod(name, text)
        }
    }

    private func simpleStringMethod(_ name: String, _ text: String) -> Value {
        let scalars = text.unicodeScalars
        func all(_ predicate: (Unicode.Scalar) -> Bool) -> Value {
            .bool(!scalars.isEmpty && scalars.allSatisfy(predicate))
        }
        switch name {
        case "upper": return .string(text.pythonUppercased)
        case "lower": return .string(text.pythonLowercased)
        case "casefold": return .string(text.pythonLowercased.replacing("ß", with: "ss").replacing("ς", with: "σ"))
        case "capitalize": return .string(text.pythonCapitalized)
        case "title": return .string(Self.titled(text))
        case "swapcase":
            var result = ""
            for scalar in scalars {
                let properties = scalar.properties
                result += properties.isUppercase ? properties.lowercaseMapping : properties.uppercaseMapping
            }
            return .string(result)
        case "isdigit":
            return all { $0.properties.numericType == .digit || $0.properties.numericType == .decimal }
        case "isdecimal": return all { $0.properties.numericType == .decimal }
        case "isnumeric": return all { $0.properties.numericType != nil }
        case "isalpha": return all(Self.isLetter)
        case "isalnum": return all { Self.isLetter($0) || $0.properties.numericType != nil }
        case "isspace": return all { $0.isPythonSpace }
        case "isascii": return .bool(text.utf8.allSatisfy { $0 < 0x80 })
        case "isprintable": return .bool(scalars.allSatisfy { $0.isPythonPrintable })
        case "isidentifier":
            guard let first = scalars.first else { return .bool(false) }
            return .bool(
                (first.properties.isXIDStart || first == "_")
                    && scalars.dropFirst().allSatisfy { $0.properties.isXIDContinue })
        case "islower":
            return .bool(
                scalars.contains { $0.properties.isLowercase }
                    && !scalars.contains {
                        $0.properties.isUppercase || $0.properties.generalCategory == .titlecaseLetter
                    })
        case "isupper":
            return .bool(
                scalars.contains { $0.properties.isUppercase }
                    && !scalars.contains {
                        $0.properties.isLowercase || $0.properties.generalCategory == .titlecaseLetter
                    })
        default:
            // istitle
            return .bool(scalars.contains { $0.properties.isCased } && utf8Equal(text, Self.titled(text)))
        }
    }

    private static func isLetter(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
        default: false
        }
    }

    /// `str.title()`: every letter after something that is not a letter becomes a capital.
    private static func titled(_ text: String) -> String {
        var result = ""
        var isInsideWord = false
        for scalar in text.unicodeScalars {
            result += isInsideWord ? scalar.properties.lowercaseMapping : scalar.properties.titlecaseMapping
            isInsideWord = scalar.properties.isCased
        }
        return result
    }

    // MARK: Arguments

    func string(_ value: Value?, _ function: String) throws(TemplateError) -> String {
        guard let text = value?.text else {
            if case .undefined(let undefined)? = value { throw TemplateError(.undefined, undefined.message) }
            throw TemplateError(.runtime, "\(function)() argument must be str, not \((value ?? .none).typeName)")
        }
        return text
    }

    private func optionalText(
        _ arguments: CallArguments, _ function: String, _ parameter: String
    ) throws(TemplateError) -> String? {
        guard let value = try arguments.bind(function, [parameter])[0], !value.isNone else { return nil }
        return try string(value, function)
    }

    func joined(_ parts: [String], separator: String) throws(TemplateError) -> String {
        var total = separator.utf8.count * max(0, parts.count - 1)
        for part in parts { total += part.utf8.count }
        try charge(bytes: total)
        try charge(parts.count)
        return parts.joined(separator: separator)
    }

    func replace(
        _ text: String, _ old: String, _ new: String, count: Value?
    ) throws(TemplateError) -> String {
        var limit = Int.max
        if let count, !count.isNone {
            guard let number = count.integer else {
                throw TemplateError(.runtime, "'\(count.typeName)' object cannot be interpreted as an integer")
            }
            if number >= 0 { limit = number }
        }
        // Every byte may be replaced; a shrinking or equal replacement needs no extra budget.
        if new.utf8.count > old.utf8.count {
            let places = min(limit, text.utf8.count / max(1, old.utf8.count) + 1)
            let (growth, overflow) = places.multipliedReportingOverflow(by: new.utf8.count)
            // An upper bound would refuse honest templates, so count the real places when the bound is large.
            if overflow || growth > 1 << 20 {
                let search = ByteSearch(old)
                let found =
                    old.isEmpty ? text.pythonLength + 1 : text.withBytes { search.all(in: $0, limit: limit).count }
                let (bytes, overflow) = min(limit, found).multipliedReportingOverflow(by: new.utf8.count)
                try charge(bytes: overflow ? .max : bytes)
            }
        }
        return text.replacing(old, with: new, limit: limit)
    }

    private func split(
        _ name: String, _ text: String, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        let bound = try arguments.bind(name, ["sep", "maxsplit"])
        let maximum = try integer(bound[1], default: -1)
        let limit = maximum < 0 ? Int.max : maximum
        let parts: [String]
        if let separator = bound[0], !separator.isNone {
            let separator = try string(separator, name)
            guard !separator.isEmpty else { throw TemplateError(.runtime, "empty separator") }
            parts = name == "split" ? text.split(by: separator, limit: limit) : text.splitFromRight(separator, limit)
        } else {
            parts = text.splitAtSpace(limit: limit, fromRight: name == "rsplit")
        }
        return try list(parts.map { .string($0) })
    }

    func integer(_ value: Value?, default fallback: Int) throws(TemplateError) -> Int {
        guard let value else { return fallback }
        guard let number = value.integer else {
            if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
            throw TemplateError(.runtime, "'\(value.typeName)' object cannot be interpreted as an integer")
        }
        return number
    }

    private func hasAffix(
        _ name: String, _ text: String, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        let bound = try arguments.bind(name, [name == "startswith" ? "prefix" : "suffix", "start", "end"], required: 1)
        var candidates: [Value] = [bound[0] ?? .none]
        if case .tuple(let sequence)? = bound[0] { candidates = sequence.items }
        var part = text
        if bound[1] != nil || bound[2] != nil {
            let scalars = Array(text.unicodeScalars)
            part = String(scalars: scalars[try Self.searchRange(bound[1], bound[2], count: scalars.count)])
        }
        for candidate in candidates {
            guard let affix = candidate.text else {
                if case .undefined(let undefined) = candidate { throw TemplateError(.undefined, undefined.message) }
                throw TemplateError(
                    .runtime, "\(name) first arg must be str or a tuple of str, not \(candidate.typeName)")
            }
            if name == "startswith" ? part.hasBytePrefix(affix) : part.hasByteSuffix(affix) { return .bool(true) }
        }
        return .bool(false)
    }

    private func search(
        _ name: String, _ text: String, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        let bound = try arguments.bind(name, ["sub", "start", "end"], required: 1)
        let needle = try string(bound[0], name)
        let scalars = Array(text.unicodeScalars)
        let range = try Self.searchRange(bound[1], bound[2], count: scalars.count)
        let part = range.count == scalars.count ? text : String(scalars: scalars[range])
        let search = ByteSearch(needle)
        if name == "count" {
            if needle.isEmpty { return .int(range.count + 1) }
            return .int(part.withBytes { search.all(in: $0).count })
        }
        let isFromRight = name.hasBytePrefix("r")
        let offset: Int? = part.withBytes { bytes in
            guard isFromRight else { return search.first(in: bytes) }
            let reversed = ByteSearch(Array(needle.utf8.reversed()))
            return Array(bytes.reversed()).withUnsafeBufferPointer { reversed.first(in: $0) }
                .map { bytes.count - $0 - needle.utf8.count }
        }
        guard let offset else {
            if name == "find" || name == "rfind" { return .int(-1) }
            throw TemplateError(.runtime, "substring not found")
        }
        let index = String(decoding: part.utf8.prefix(offset), as: UTF8.self).pythonLength
        return .int(range.lowerBound + index)
    }

    private func partition(
        _ name: String, _ text: String, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        let separator = try string(try arguments.bind(name, ["sep"], required: 1)[0], name)
        guard !separator.isEmpty else { throw TemplateError(.runtime, "empty separator") }
        let isFromRight = name == "rpartition"
        let parts = isFromRight ? text.splitFromRight(separator, 1) : text.split(by: separator, limit: 1)
        let result =
            parts.count == 2 ? [parts[0], separator, parts[1]] : isFromRight ? ["", "", text] : [text, "", ""]
        return try tuple(result.map { .string($0) })
    }

    func justify(
        _ text: String, _ width: Value?, _ fill: Value?, _ name: String
    ) throws(TemplateError) -> String {
        let width = try integer(width, default: 0)
        let filler = try fill.map { value throws(TemplateError) in try string(value, name) } ?? " "
        guard filler.pythonLength == 1 else {
            throw TemplateError(.runtime, "The fill character must be exactly one character long")
        }
        let length = text.pythonLength
        guard width > length else { return text }
        let missing = width - length
        try charge(bytes: missing)
        switch name {
        case "ljust": return text + filler.repeated(missing)
        case "rjust": return filler.repeated(missing) + text
        default:
            // CPython puts the odd character on the left when the width is odd.
            let left = missing / 2 + (missing & width & 1)
            return filler.repeated(left) + text + filler.repeated(missing - left)
        }
    }

    private func expandTabs(_ text: String, _ size: Int) throws(TemplateError) -> String {
        var result = ""
        var column = 0
        for scalar in text.unicodeScalars {
            if scalar == "\t" {
                guard size > 0 else { continue }
                let spaces = size - column % size
                try charge(bytes: spaces)
                result += " ".repeated(spaces)
                column += spaces
            } else {
                result.unicodeScalars.append(scalar)
                column = scalar == "\n" || scalar == "\r" ? 0 : column + 1
            }
        }
        return result
    }
}

extension String {
    func splitFromRight(_ separator: String, _ limit: Int) -> [String] {
        let bytes = Array(utf8)
        // Searching the reversed text finds the rightmost occurrences first, also where they overlap.
        let search = ByteSearch(Array(separator.utf8.reversed()))
        let offsets = Array(bytes.reversed()).withUnsafeBufferPointer { search.all(in: $0, limit: limit) }
        var parts: [String] = []
        var end = bytes.count
        for offset in offsets {
            let start = bytes.count - offset
            parts.append(String(decoding: bytes[start..<end], as: UTF8.self))
            end = start - search.count
        }
        parts.append(String(decoding: bytes[..<end], as: UTF8.self))
        return parts.reversed()
    }

    /// `text.split()`: runs of white space separate, and none is left at the ends.
    func splitAtSpace(limit: Int, fromRight: Bool) -> [String] {
        let scalars = Array(unicodeScalars)
        var parts: [String] = []
        if fromRight {
            var end = scalars.count
            while true {
                while end > 0, scalars[end - 1].isPythonSpace { end -= 1 }
                guard end > 0 else { break }
                if parts.count == limit {
                    parts.append(String(scalars: scalars[..<end]))
                    break
                }
                var start = end
                while start > 0, !scalars[start - 1].isPythonSpace { start -= 1 }
                parts.append(String(scalars: scalars[start..<end]))
                end = start
            }
            return parts.reversed()
        }
        var start = 0
        while true {
            while start < scalars.count, scalars[start].isPythonSpace { start += 1 }
            guard start < scalars.count else { break }
            if parts.count == limit {
                parts.append(String(scalars: scalars[start...]))
                break
            }
            var end = start
            while end < scalars.count, !scalars[end].isPythonSpace { end += 1 }
            parts.append(String(scalars: scalars[start..<end]))
            start = end
        }
        return parts
    }
}
