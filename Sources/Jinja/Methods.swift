// Methods of built-in types. What is not named here does not exist, so templates have no way out of the sandbox.
extension Interpreter {
    private static let stringMethods: Set<String> = [
        "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format", "format_map", "index",
        "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable",
        "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix",
        "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
        "startswith", "strip", "swapcase", "title", "upper", "zfill",
    ]
    private static let listMethods: Set<String> = ["copy", "count", "index"]
    private static let tupleMethods: Set<String> = ["count", "index"]
    private static let dictMethods: Set<String> = ["copy", "get", "items", "keys", "values"]
    private static let cyclerMethods: Set<String> = ["next", "reset"]
    private static let floatMethods: Set<String> = ["is_integer"]
    private static let intMethods: Set<String> = ["bit_length"]

    static func methods(of value: Value) -> Set<String> {
        switch value {
        case .string, .markup: stringMethods
        case .list: listMethods
        case .tuple, .range: tupleMethods
        case .dict: dictMethods
        case .cycler: cyclerMethods
        case .float: floatMethods
        case .int, .bool: intMethods
        default: []
        }
    }

    func callMethod(
        _ name: String, of receiver: Value, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        try charge(1)
        switch receiver {
        case .string(let text): return try callStringMethod(name, text, arguments)
        case .markup(let text):
            return try marked(try callStringMethod(name, text, arguments))
        case .dict(let dict): return try callDictMethod(name, dict, arguments)
        case .list(let sequence), .tuple(let sequence):
            if name == "copy" {
                try arguments.requireNone(name)
                return receiver
            }
            return try callSequenceMethod(name, sequence.items, arguments)
        case .range: return try callSequenceMethod(name, try items(of: receiver), arguments)
        case .loop(let loop): return try callLoopMethod(name, loop, arguments)
        case .cycler(let cycler):
            try arguments.requireNone(name)
            if name == "reset" {
                cycler.position = 0
                return .none
            }
            defer { cycler.position = (cycler.position + 1) % cycler.items.count }
            return cycler.items[cycler.position]
        case .float(let number):
            try arguments.requireNone(name)
            return .bool(number.isFinite && number == number.rounded())
        default:
            try arguments.requireNone(name)
            return .int(Int.bitWidth - (receiver.integer ?? 0).magnitude.leadingZeroBitCount)
        }
    }

    /// What a method of HTML text makes is HTML text, too.
    private func marked(_ value: Value) throws(TemplateError) -> Value {
        func marked(_ item: Value) -> Value { item.text.map { .markup($0) } ?? item }
        switch value {
        case .list(let sequence): return try list(sequence.items.map(marked))
        case .tuple(let sequence): return try tuple(sequence.items.map(marked))
        default: return marked(value)
        }
    }

    private func callDictMethod(
        _ name: String, _ dict: Dict, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        switch name {
        case "get":
            guard arguments.keywords.isEmpty else {
                throw TemplateError(.runtime, "dict.get() takes no keyword arguments")
            }
            let bound = try arguments.bind("get", ["key", "default"], required: 1)
            let key = bound[0] ?? .none
            try requireHashable(key)
            return dict.value(forKey: key) ?? bound[1] ?? .none
        case "copy":
            try arguments.requireNone(name)
            return .dict(dict)
        default:
            try arguments.requireNone(name)
            return .dictView(Value.DictView(dict, Value.DictViewKind(rawValue: name) ?? .items))
        }
    }

    private func callSequenceMethod(
        _ name: String, _ items: [Value], _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        try charge(items.count)
        if name == "count" {
            let wanted = try arguments.bind(name, ["value"], required: 1)[0] ?? .none
            var count = 0
            for item in items where try equal(item, wanted) { count += 1 }
            return .int(count)
        }
        let bound = try arguments.bind(name, ["value", "start", "stop"], required: 1)
        let range = try Self.searchRange(bound[1], bound[2], count: items.count)
        let wanted = bound[0] ?? .none
        for index in range where try equal(items[index], wanted) { return .int(index) }
        throw TemplateError(.runtime, "\(try repr(wanted)) is not in list")
    }

    private func callLoopMethod(
        _ name: String, _ loop: LoopContext, _ arguments: CallArguments
    ) throws(TemplateError) -> Value {
        if name == "changed" {
            register(loop)
            for value in arguments.positional { try charge(value.weight) }
            return .bool(loop.changed(arguments.positional))
        }
        guard !arguments.positional.isEmpty else { throw TemplateError(.runtime, "no items for cycling given") }
        return arguments.positional[max(0, loop.index0) % arguments.positional.count]
    }

    /// The positions `start..<stop` of a search, given Python's optional and possibly negative bounds.
    static func searchRange(
        _ start: Value?, _ stop: Value?, count: Int
    ) throws(TemplateError) -> Swift.Range<Int> {
        guard let indices = try sliceIndices(start ?? .none, stop ?? .none, .none, count: count) else {
            throw TemplateError(.runtime, "slice indices must be integers or None or have an __index__ method")
        }
        return indices.first0..<(indices.first0 + indices.count)
    }
}
