extension Interpreter {
    func applyTextFilter(
        _ filter: Filter, _ value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        switch filter {
        case .trim:
            let bound = try arguments.bind("trim", ["chars"])
            let characters = try bound[0].flatMap { $0.isNone ? nil : $0 }
                .map { value throws(TemplateError) in try string(value, "trim") }
            return try text(value) { $0.stripped(of: characters) }
        case .upper: return try plain(filter, value, arguments) { $0.pythonUppercased }
        case .lower: return try plain(filter, value, arguments) { $0.pythonLowercased }
        case .capitalize: return try plain(filter, value, arguments) { $0.pythonCapitalized }
        case .title: return try plain(filter, value, arguments, Self.jinjaTitled)
        case .string:
            try arguments.requireNone("string")
            return value.isMarkup ? value : .string(try printed(value))
        case .safe:
            try arguments.requireNone("safe")
            return .markup(try printed(value))
        case .escape, .e:
            try arguments.requireNone("escape")
            return .markup(try htmlEscaped(value))
        case .forceescape:
            try arguments.requireNone("forceescape")
            return .markup(Jinja.htmlEscaped(try printed(value)))
        case .replace:
            let bound = try arguments.bind("replace", ["old", "new", "count"], required: 2)
            let (old, new) = (try printed(bound[0] ?? .none), try printed(bound[1] ?? .none))
            return .string(try replace(try printed(value), old, new, count: bound[2]))
        case .indent: return try indent(value, arguments)
        case .center:
            let width = try arguments.bind("center", ["width"])[0] ?? .int(80)
            return .string(try justify(try printed(value), width, nil, "center"))
        case .truncate: return try truncate(value, arguments)
        case .wordcount:
            try arguments.requireNone("wordcount")
            var words = 0
            var isInsideWord = false
            for scalar in try printed(value).unicodeScalars {
                let isWord = scalar.isPythonWordCharacter
                if isWord, !isInsideWord { words += 1 }
                isInsideWord = isWord
            }
            return .int(words)
        case .format:
            guard arguments.positional.isEmpty || arguments.keywords.isEmpty else {
                throw TemplateError(
                    .runtime, "can't handle positional and keyword arguments at the same time")
            }
            if arguments.keywords.isEmpty {
                return .string(try formatPercent(try printed(value), try tuple(arguments.positional)))
            }
            var builder = DictBuilder()
            for (name, value) in arguments.keywords { builder.set(.string(name), value) }
            return .string(try formatPercent(try printed(value), try dict(builder)))
        case .urlencode: return .string(try urlEncode(value, arguments))
        case .striptags:
            try arguments.requireNone("striptags")
            return .string(Self.withoutTags(try printed(value)))
        case .filesizeformat:
            let isBinary = try arguments.bind("filesizeformat", ["binary"])[0]?.isTrue ?? false
            return .string(try fileSize(value, isBinary: isBinary))
        default: return .string(try xmlAttributes(value, arguments))
        }
    }

    /// Applies a change to the text of a value, which stays marked as HTML when it was.
    private func text(
        _ value: Value, _ transform: (String) -> String
    ) throws(TemplateError) -> Value {
        let changed = transform(try printed(value))
        try charge(bytes: changed.utf8.count)
        return value.isMarkup ? .markup(changed) : .string(changed)
    }

    private func plain(
        _ filter: Filter, _ value: Value, _ arguments: CallArguments, _ transform: (String) -> String
    ) throws(TemplateError) -> Value {
        try arguments.requireNone(filter.rawValue)
        return try text(value, transform)
    }

    /// Jinja's own `title`: words begin after white space and `-({[<`, not after apostrophes.
    private static func jinjaTitled(_ text: String) -> String {
        var result = ""
        var startsWord = true
        for scalar in text.unicodeScalars {
            if scalar.isPythonSpace || "-({[<".unicodeScalars.contains(scalar) {
                startsWord = true
                result.unicodeScalars.append(scalar)
            } else {
                result += startsWord ? scalar.properties.uppercaseMapping : scalar.properties.lowercaseMapping
                startsWord = false
            }
        }
        return result
    }

    private func indent(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let bound = try arguments.bind("indent", ["width", "first", "blank"])
        guard let text = value.text else {
            if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
            throw TemplateError(
                .runtime, "unsupported operand type(s) for +=: '\(value.typeName)' and 'str'")
        }
        let indentation: String
        if let width = bound[0]?.text {
            indentation = width
        } else {
            let width = try integer(bound[0], default: 4)
            try charge(bytes: max(0, width))
            indentation = " ".repeated(width)
        }
        let lines = (text + "\n").lines()
        let (total, overflow) = indentation.utf8.count.multipliedReportingOverflow(by: lines.count)
        try charge(bytes: overflow ? .max : text.utf8.count + total)
        let indentsBlank = bound[2]?.isTrue ?? false
        var result = bound[1]?.isTrue ?? false ? indentation : ""
        for (index, line) in lines.enumerated() {
            if index > 0 {
                result += "\n"
                if indentsBlank || !line.isEmpty { result += indentation }
            }
            result += line
        }
        return value.isMarkup ? .markup(result) : .string(result)
    }

    private func truncate(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> Value {
        let bound = try arguments.bind("truncate", ["length", "killwords", "end", "leeway"])
        let length = try integer(bound[0], default: 255)
        let end = try bound[2].map { value throws(TemplateError) in try string(value, "truncate") } ?? "..."
        let leeway =
            try bound[3].flatMap { $0.isNone ? nil : $0 }
            .map { value throws(TemplateError) in try integer(value, default: 5) } ?? 5
        let kept = length.subtractingReportingOverflow(end.pythonLength)
        guard !kept.overflow, kept.partialValue >= 0 else {
            throw TemplateError(.runtime, "expected length >= \(end.pythonLength), got \(length)")
        }
        guard leeway >= 0 else { throw TemplateError(.runtime, "expected leeway >= 0, got \(leeway)") }
        let (limit, overflow) = length.addingReportingOverflow(leeway)
        if let count = count(of: value), overflow || count <= limit { return value }
        let scalars = Array(try string(value, "truncate").unicodeScalars)
        let cut = scalars[..<kept.partialValue]
        if bound[1]?.isTrue ?? false { return .string(String(scalars: cut) + end) }
        let words = cut.lastIndex(of: " ").map { cut[..<$0] } ?? cut
        return .string(String(scalars: words) + end)
    }

    // MARK: HTML and URLs

    private func urlEncode(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> String {
        try arguments.requireNone("urlencode")
        switch value {
        case .string(let text), .markup(let text): return Self.urlQuoted(text, isQuery: false)
        case .dict, .list, .tuple, .dictView, .iterator:
            var pairs: [Value] = []
            if case .dict(let dict) = value {
                pairs = try items(of: .dictView(.init(dict, .items)))
            } else {
                pairs = try items(of: value)
            }
            var parts: [String] = []
            for pair in pairs {
                let members = try items(of: pair, limit: 3)
                guard members.count == 2 else { throw TemplateError(.runtime, "urlencode needs pairs") }
                let key = Self.urlQuoted(try printed(members[0]), isQuery: true)
                parts.append(key + "=" + Self.urlQuoted(try printed(members[1]), isQuery: true))
            }
            return try joined(parts, separator: "&")
        default: return Self.urlQuoted(try printed(value), isQuery: false)
        }
    }

    private static func urlQuoted(_ text: String, isQuery: Bool) -> String {
        var out: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"),
                UInt8(ascii: "~"):
                out.append(byte)
            case UInt8(ascii: "/") where !isQuery: out.append(byte)
            case 0x20 where isQuery: out.append(UInt8(ascii: "+"))
            default:
                out.append(UInt8(ascii: "%"))
                for digit in [byte >> 4, byte & 15] { out.append(digit < 10 ? 0x30 + digit : 0x41 - 10 + digit) }
            }
        }
        return String(decoding: out, as: UTF8.self)
    }

    /// Text without comments and tags, its white space folded and its common entities resolved.
    private static func withoutTags(_ text: String) -> String {
        var rest = text
        for (open, close) in [("<!--", "-->"), ("<", ">")] {
            let (openSearch, closeSearch) = (ByteSearch(open), ByteSearch(close))
            rest = rest.withBytes { bytes in
                var out: [UInt8] = []
                var position = 0
                while let start = openSearch.first(in: bytes, from: position),
                    let end = closeSearch.first(in: bytes, from: start + open.utf8.count)
                {
                    out.append(contentsOf: bytes[position..<start])
                    position = end + close.utf8.count
                }
                out.append(contentsOf: bytes[position...])
                return String(decoding: out, as: UTF8.self)
            }
        }
        rest = rest.splitAtSpace(limit: .max, fromRight: false).joined(separator: " ")
        let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'")]
        for (entity, character) in entities { rest = rest.replacing(entity, with: character) }
        return rest.replacing("&amp;", with: "&")
    }

    private func xmlAttributes(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> String {
        let autospace = try arguments.bind("xmlattr", ["autospace"])[0]?.isTrue ?? true
        guard case .dict(let dict) = value else {
            throw TemplateError(.runtime, "xmlattr needs a mapping, not \(value.typeName)")
        }
        var parts: [String] = []
        for (key, value) in zip(dict.keys, dict.values) where !value.isNone && !value.isUndefined {
            let name = try string(key, "xmlattr")
            guard !name.utf8.contains(where: { $0 <= 0x20 && $0 >= 0x09 || $0 == 0x2F || $0 == 0x3E || $0 == 0x3D })
            else { throw TemplateError(.runtime, "Invalid character in attribute name: \(pythonRepr(name))") }
            parts.append(Jinja.htmlEscaped(name) + "=\"" + (try htmlEscaped(value)) + "\"")
        }
        let text = try joined(parts, separator: " ")
        return autospace && !text.isEmpty ? " " + text : text
    }

    private func fileSize(_ value: Value, isBinary: Bool) throws(TemplateError) -> String {
        guard let bytes = try toFloat(value) else { throw TemplateError(.runtime, "filesizeformat needs a number") }
        let base: Double = isBinary ? 1024 : 1000
        if bytes == 1 { return "1 Byte" }
        if bytes < base { return "\(Int(exactly: bytes.rounded(.towardZero)) ?? 0) Bytes" }
        let prefixes =
            isBinary ? ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] : ["k", "M", "G", "T", "P", "E", "Z", "Y"]
        var unit = base
        for prefix in prefixes {
            unit *= base
            if bytes < unit || prefix == prefixes.last {
                return formatFixed(base * bytes / unit, precision: 1) + " \(prefix)B"
            }
        }
        return ""
    }
}
