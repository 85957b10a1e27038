/// Functions every template can call.
enum Global: String, CaseIterable {
    case range
    case dict
    case namespace
    case cycler
    case joiner
    case raiseException = "raise_exception"
    case strftimeNow = "strftime_now"

    /// Python classes call themselves types.
    var isClass: Bool {
        switch self {
        case .dict, .namespace, .cycler, .joiner: true
        default: false
        }
    }
}

extension Interpreter {
    func call(_ global: Global, _ arguments: CallArguments) throws(TemplateError) -> Value {
        switch global {
        case .range: return .range(try range(arguments))
        case .dict: return try dict(try members("dict", arguments))
        case .namespace:
            let builder = try members("namespace", arguments)
            try charge(builder.count + 1)
            let namespace = Namespace()
            register(namespace)
            for (key, value) in zip(builder.keys, builder.values) {
                if let name = key.text { namespace.set(name, value) }
            }
            return .namespace(namespace)
        case .cycler:
            guard !arguments.positional.isEmpty else {
                throw TemplateError(.runtime, "at least one item has to be provided")
            }
            return .cycler(Cycler(arguments.positional, depth: try depth(above: arguments.positional)))
        case .joiner:
            let separator = try arguments.bind("joiner", ["sep"])[0] ?? .string(", ")
            return .function(Function(.joiner(Joiner(separator)), depth: try depth(above: [separator])))
        case .raiseException:
            let message = try arguments.bind("raise_exception", ["message"], required: 1)[0] ?? .none
            throw TemplateError(.raised, try printed(message))
        case .strftimeNow:
            let format = try string(
                try arguments.bind("strftime_now", ["format"], required: 1)[0], "strftime_now")
            return .string(try clock().formatted(format))
        }
    }

    private func range(_ arguments: CallArguments) throws(TemplateError) -> Value.Range {
        guard arguments.keywords.isEmpty else {
            throw TemplateError(.runtime, "range() takes no keyword arguments")
        }
        guard (1...3).contains(arguments.positional.count) else {
            throw TemplateError(.runtime, "range expected 1 to 3 arguments, got \(arguments.positional.count)")
        }
        var bounds: [Int] = []
        for value in arguments.positional { bounds.append(try integer(value, default: 0)) }
        let (start, stop) = bounds.count == 1 ? (0, bounds[0]) : (bounds[0], bounds[1])
        let step = bounds.count == 3 ? bounds[2] : 1
        guard step != 0 else { throw TemplateError(.runtime, "range() arg 3 must not be zero") }
        let (distance, overflow) =
            step > 0 ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
        let isEmpty = step > 0 ? stop <= start : start <= stop
        if isEmpty { return Value.Range(start: start, stop: stop, step: step, count: 0) }
        let count = overflow ? UInt.max : (UInt(distance) - 1) / step.magnitude + 1
        guard count <= 100_000 else {
            throw TemplateError(
                .runtime, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).")
        }
        return Value.Range(start: start, stop: stop, step: step, count: Int(count))
    }

    /// The members that `dict(...)` and `namespace(...)` collect: a mapping or pairs, then keywords.
    private func members(_ function: String, _ arguments: CallArguments) throws(TemplateError) -> DictBuilder {
        var builder = DictBuilder()
        guard arguments.positional.count <= 1 else {
            throw TemplateError(
                .runtime, "\(function) expected at most 1 argument, got \(arguments.positional.count)")
        }
        if let source = arguments.positional.first {
            if case .dict(let dict) = source {
                for (key, value) in zip(dict.keys, dict.values) { builder.set(key, value) }
            } else {
                for element in try items(of: source) {
                    let pair = try items(of: element, limit: 3)
                    guard pair.count == 2 else {
                        throw TemplateError(.runtime, "dictionary update sequence element needs length 2")
                    }
                    try requireHashable(pair[0])
                    builder.set(pair[0], pair[1])
                }
            }
        }
        for (name, value) in arguments.keywords { builder.set(.string(name), value) }
        return builder
    }
}
