import JSONBytes

/// The filters, by their names in templates.
package enum Filter: String, Sendable, CaseIterable {
    // Text
    case trim, upper, lower, capitalize, title, replace, indent, center, truncate, wordcount, format, string, urlencode
    case striptags, safe, escape, e, forceescape, filesizeformat, tojson, xmlattr
    // Sequences and mappings
    case length, count, first, last, list, join, reverse, sort, unique, batch, slice, groupby, items, dictsort, map
    case select, reject, selectattr, rejectattr, random, attr
    // Numbers and the rest
    case int, float, round, abs, sum, min, max
    case `default`, d

    /// Filters of Jinja that chat templates have no use for.
    static let leftOut: Set<String> = ["pprint", "urlize", "wordwrap"]
}

extension Interpreter {
    func apply(
        _ filter: Filter, to value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        switch filter {
        case .length, .count:
            try arguments.requireNone("len")
            if case .loop(let loop) = value { return .int(try loop.length()) }
            guard let count = count(of: value) else {
                throw TemplateError(.runtime, "object of type '\(value.typeName)' has no len()")
            }
            return .int(count)
        case .default, .d:
            let bound = try arguments.bind("default", ["default_value", "boolean"])
            let isMissing = value.isUndefined || (bound[1]?.isTrue ?? false) && !value.isTrue
            return isMissing ? bound[0] ?? .string("") : value
        case .tojson: return .string(try json(value, arguments))
        case .trim, .upper, .lower, .capitalize, .title, .replace, .indent, .center, .truncate, .wordcount, .format,
            .string, .urlencode, .striptags, .safe, .escape, .e, .forceescape, .filesizeformat, .xmlattr:
            return try applyTextFilter(filter, value, arguments)
        case .int, .float, .round, .abs, .sum, .min, .max: return try applyNumberFilter(filter, value, arguments)
        case .map, .select, .reject, .selectattr, .rejectattr: return try applyLazyFilter(filter, value, arguments)
        default: return try applySequenceFilter(filter, value, arguments)
        }
    }

    // MARK: Attribute paths

    enum PathPart { case name(String), index(Int) }

    /// `"a.b.0"`: names and numbers separated by dots; a number stands for itself.
    func path(_ attribute: Value?) throws(TemplateError) -> [PathPart] {
        guard let attribute, !attribute.isNone else { return [] }
        if let index = attribute.integer { return [.index(index)] }
        guard let text = attribute.text else {
            throw TemplateError(.runtime, "attribute name must be a string or an integer")
        }
        return text.split(by: ".").map { part in
            let isNumber = !part.isEmpty && part.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
            return isNumber ? Int(part).map { .index($0) } ?? .name(part) : .name(part)
        }
    }

    func follow(
        _ path: [PathPart], from value: Value, default fallback: Value? = nil
    ) throws(TemplateError) -> Value {
        var current = value
        for part in path {
            try charge(1)
            switch part {
            case .name(let name): current = try item(.string(name), of: current)
            case .index(let index): current = try item(.int(index), of: current)
            }
            if let fallback, current.isUndefined { current = fallback }
        }
        return current
    }

    func ignoringCase(_ value: Value) -> Value {
        value.text.map { .string($0.pythonLowercased) } ?? value
    }

    // MARK: Lazy filters

    private func applyLazyFilter(
        _ filter: Filter, _ value: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        if !value.isTrue { return .iterator(ValueIterator([], depth: 1)) }
        let source = try iterator(over: value)
        if filter == .map {
            let transform = try mapping(arguments)
            return try lazyIterator(over: source) { [self] () throws(TemplateError) in
                guard let item = try source.next() else { return nil }
                try charge(1)
                return try nestedCall { () throws(TemplateError) in try transform(item) }
            }
        }
        let accepts = try selection(filter, arguments)
        let wanted = filter == .select || filter == .selectattr
        return try lazyIterator(over: source) { [self] () throws(TemplateError) in
            while let item = try source.next() {
                try charge(1)
                if try nestedCall({ () throws(TemplateError) in try accepts(item) }) == wanted { return item }
            }
            return nil
        }
    }

    private func nestedCall<Result>(
        _ body: () throws(TemplateError) -> Result
    ) throws(TemplateError) -> Result {
        try enter()
        defer { leave() }
        return try body()
    }

    private func mapping(
        _ arguments: CallArguments
    ) throws(TemplateError) -> (Value) throws(TemplateError) -> Value {
        if arguments.positional.isEmpty, arguments.keywords.contains(where: { $0.name == "attribute" }) {
            let bound = try arguments.bind("map", ["attribute", "default"])
            let path = try path(bound[0])
            let fallback = bound[1].flatMap { $0.isNone ? nil : $0 }
            return { [self] (item: Value) throws(TemplateError) in
                try follow(path, from: item, default: fallback)
            }
        }
        guard let name = arguments.positional.first else {
            throw TemplateError(.runtime, "map requires a filter argument")
        }
        guard let filter = name.text.flatMap(Filter.init(rawValue:)) else {
            throw TemplateError(.runtime, "No filter named \(try repr(name)).")
        }
        let rest = CallArguments(
            positional: Array(arguments.positional.dropFirst()), keywords: arguments.keywords)
        return { [self] (item: Value) throws(TemplateError) in try apply(filter, to: item, rest) }
    }

    private func selection(
        _ filter: Filter, _ arguments: CallArguments
    ) throws(TemplateError) -> (Value) throws(TemplateError) -> Bool {
        var positional = arguments.positional[...]
        var path: [PathPart] = []
        if filter == .selectattr || filter == .rejectattr {
            guard let attribute = positional.popFirst() else {
                throw TemplateError(.runtime, "Missing parameter for attribute name")
            }
            path = try self.path(attribute)
        }
        guard let name = positional.popFirst() else {
            return { [self] (item: Value) throws(TemplateError) in try follow(path, from: item).isTrue }
        }
        guard let test = name.text.flatMap(Test.init(rawValue:)) else {
            throw TemplateError(.runtime, "No test named \(try repr(name)).")
        }
        let rest = CallArguments(positional: Array(positional), keywords: arguments.keywords)
        return { [self] (item: Value) throws(TemplateError) in
            try apply(test, to: try follow(path, from: item), rest)
        }
    }

    // MARK: tojson

    /// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, the filter that Hugging
    /// Face libraries put in place of Jinja's own.
    private func json(_ value: Value, _ arguments: CallArguments) throws(TemplateError) -> String {
        let bound = try arguments.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])
        var indent: String?
        if let value = bound[1], !value.isNone {
            if let text = value.text {
                indent = text
            } else {
                let width = try integer(value, default: 0)
                try charge(bytes: max(0, width))
                indent = " ".repeated(width)
            }
        }
        var style = JSONStyle.python(
            indent: indent, ensureASCII: bound[0]?.isTrue ?? false, sortKeys: bound[3]?.isTrue ?? false)
        if let separators = bound[2], !separators.isNone {
            let parts = try items(of: separators, limit: 3)
            guard parts.count == 2 else { throw TemplateError(.runtime, "separators must be a pair") }
            style.itemSeparator = try string(parts[0], "tojson")
            style.keySeparator = try string(parts[1], "tojson")
        }
        let text = try jsonValue(value).serialized(style: style)
        try charge(bytes: text.utf8.count)
        return text
    }

    private func jsonValue(_ value: Value) throws(TemplateError) -> JSONValue {
        try charge(1)
        switch value {
        case .none: return .null
        case .bool(let flag): return .bool(flag)
        case .int(let number): return .number(number)
        case .bigInt(let digits): return .number(JSONNumber(text: digits))
        case .float(let number): return .number(number)
        case .string(let text), .markup(let text):
            try charge(bytes: text.utf8.count)
            return .string(text)
        case .list(let sequence), .tuple(let sequence):
            var elements: [JSONValue] = []
            for item in sequence.items { elements.append(try jsonValue(item)) }
            return .array(elements)
        case .dict(let dict):
            var object = JSONObject()
            for (key, value) in zip(dict.keys, dict.values) { object[try jsonKey(key)] = try jsonValue(value) }
            return .object(object)
        default: throw TemplateError(.runtime, "Object of type \(value.typeName) is not JSON serializable")
        }
    }

    private func jsonKey(_ key: Value) throws(TemplateError) -> String {
        switch key {
        case .string(let text), .markup(let text): return text
        case .none: return "null"
        case .bool(let flag): return flag ? "true" : "false"
        case .int(let number): return String(number)
        case .bigInt(let digits): return digits
        case .float(let number): return JSONNumber(number).text
        default:
            throw TemplateError(
                .runtime, "keys must be str, int, float, bool or None, not \(key.typeName)")
        }
    }
}
