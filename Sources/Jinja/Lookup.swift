// Attributes, items, slices and iteration.
extension Interpreter {
    /// `value.name`: a method or property first, then an item.
    func attribute(_ name: String, of value: Value) throws(TemplateError) -> Value {
        switch value {
        case .undefined(let undefined): throw TemplateError(.undefined, undefined.message)
        case .dict(let dict):
            if Self.methods(of: value).contains(name) { return method(name, of: value) }
            if let item = dict.value(name) { return item }
        default:
            if let property = try property(name, of: value) { return property }
        }
        return .undefined(missing(name, in: value))
    }

    /// `value[key]`: an item first, then a method or property.
    func item(_ key: Value, of value: Value) throws(TemplateError) -> Value {
        if case .undefined(let undefined) = value { throw TemplateError(.undefined, undefined.message) }
        if let item = try itemOrNil(key, of: value) { return item }
        guard let name = key.text else {
            return .undefined(.init("\(Self.describe(value)) has no element \(try repr(key))"))
        }
        if let property = try property(name, of: value) { return property }
        return .undefined(missing(name, in: value))
    }

    private func itemOrNil(_ key: Value, of value: Value) throws(TemplateError) -> Value? {
        switch value {
        case .dict(let dict):
            try charge(key.weight)
            return key.isHashable ? dict.value(forKey: key) : nil
        case .list(let sequence), .tuple(let sequence):
            guard let index = resolve(key, count: sequence.items.count) else { return nil }
            return sequence.items[index]
        case .string(let text), .markup(let text):
            guard key.integer != nil else { return nil }
            try charge(bytes: text.utf8.count)
            guard let index = resolve(key, count: text.pythonLength) else { return nil }
            let scalars = text.unicodeScalars
            return .string(String(scalars[scalars.index(scalars.startIndex, offsetBy: index)]))
        case .range(let range):
            guard let index = resolve(key, count: range.count) else { return nil }
            return .int(range[index])
        default: return nil
        }
    }

    private func resolve(_ key: Value, count: Int) -> Int? {
        guard let index = key.integer else { return nil }
        if index >= 0 { return index < count ? index : nil }
        return index >= -count ? index + count : nil
    }

    private func missing(_ name: String, in value: Value) -> Value.Undefined {
        .init("'\(Self.describe(value))' has no attribute '\(name)'")
    }

    static func describe(_ value: Value) -> String { value.isNone ? "None" : "\(value.typeName) object" }

    private func method(_ name: String, of value: Value) -> Value {
        .function(Function(.method(receiver: value, name: name), depth: value.depth + 1))
    }

    /// What Python's `getattr` would find, as far as a template may see it.
    private func property(_ name: String, of value: Value) throws(TemplateError) -> Value? {
        switch value {
        case .namespace(let namespace): return namespace.get(name)
        case .loop(let loop): return try property(name, of: loop)
        case .tuple(let sequence) where sequence.isGroup && (name == "grouper" || name == "list"):
            return sequence.items[name == "grouper" ? 0 : 1]
        case .range(let range):
            switch name {
            case "start": return .int(range.start)
            case "stop": return .int(range.stop)
            case "step": return .int(range.step)
            default: break
            }
        case .cycler(let cycler):
            if name == "current" { return cycler.items[cycler.position] }
        case .function(let function):
            guard case .macro(let macro) = function.body else { return nil }
            switch name {
            case "name": return macro.definition.name.map { .string($0.text) } ?? Value.none
            case "arguments": return try tuple(macro.definition.parameters.map { .string($0.name.text) })
            case "catch_kwargs": return .bool(macro.definition.keywords != nil)
            case "catch_varargs": return .bool(macro.definition.positional != nil)
            case "caller": return .bool(macro.definition.caller != nil)
            default: return nil
            }
        default: break
        }
        return Self.methods(of: value).contains(name) ? method(name, of: value) : nil
    }

    private func property(_ name: String, of loop: LoopContext) throws(TemplateError) -> Value? {
        switch name {
        case "index": return .int(loop.index)
        case "index0": return .int(loop.index0)
        case "first": return .bool(loop.index0 == 0)
        case "last": return .bool(try loop.peek() == nil)
        case "length": return .int(try loop.length())
        case "revindex": return .int(try loop.length() - loop.index0)
        case "revindex0": return .int(try loop.length() - loop.index)
        case "depth": return .int(loop.recursionDepth + 1)
        case "depth0": return .int(loop.recursionDepth)
        case "previtem":
            return loop.index0 == 0 ? .undefined(.init("there is no previous item")) : loop.previous
        case "nextitem": return try loop.peek() ?? .undefined(.init("there is no next item"))
        case "cycle", "changed": return .function(Function(.method(receiver: .loop(loop), name: name)))
        default: return nil
        }
    }

    // MARK: Slices

    func slice(
        _ value: Value, _ start: Value, _ stop: Value, _ step: Value
    ) throws(TemplateError) -> Value {
        let count: Int
        switch value {
        case .undefined(let undefined): throw TemplateError(.undefined, undefined.message)
        case .list(let sequence), .tuple(let sequence): count = sequence.items.count
        case .string(let text), .markup(let text):
            try charge(bytes: text.utf8.count)
            count = text.pythonLength
        case .range(let range): count = range.count
        case .dict: throw TemplateError(.runtime, "unhashable type: 'slice'")
        default: throw TemplateError(.runtime, "'\(value.typeName)' object is not subscriptable")
        }
        guard let indices = try Self.sliceIndices(start, stop, step, count: count) else {
            throw TemplateError(
                .runtime, "slice indices must be integers or None or have an __index__ method")
        }
        try charge(indices.count)
        switch value {
        case .list(let sequence): return .list(try self.sequence(indices.map { sequence.items[$0] }))
        case .tuple(let sequence): return .tuple(try self.sequence(indices.map { sequence.items[$0] }))
        case .range(let range):
            return .range(
                .init(
                    start: indices.first.map { range[$0] } ?? range.start,
                    stop: indices.last.map { range[$0] + range.step * indices.step } ?? range.start,
                    step: range.step * indices.step, count: indices.count))
        default:
            let text = value.text ?? ""
            let scalars = Array(text.unicodeScalars)
            let sliced = String(scalars: indices.map { scalars[$0] })
            return value.isMarkup ? .markup(sliced) : .string(sliced)
        }
    }

    struct SliceIndices: Swift.Sequence {
        let first0: Int
        let step: Int
        let count: Int
        var first: Int? { count > 0 ? first0 : nil }
        var last: Int? { count > 0 ? first0 + (count - 1) * step : nil }

        func makeIterator() -> some IteratorProtocol<Int> {
            (0..<count).lazy.map { first0 + $0 * step }.makeIterator()
        }
    }

    /// Python's `slice.indices`; nil when a bound is not an integer.
    static func sliceIndices(
        _ start: Value, _ stop: Value, _ step: Value, count: Int
    ) throws(TemplateError) -> SliceIndices? {
        func bound(_ value: Value) -> Int?? { value.isNone ? .some(nil) : value.integer.map { .some($0) } }
        guard let start = bound(start), let stop = bound(stop), let step = bound(step) else { return nil }
        let stride = max(-(1 << 40), min(1 << 40, step ?? 1))
        guard stride != 0 else { throw TemplateError(.runtime, "slice step cannot be zero") }
        let (low, high) = stride > 0 ? (0, count) : (-1, count - 1)
        func clamp(_ value: Int?, default fallback: Int) -> Int {
            guard let value else { return fallback }
            let absolute = value < 0 ? max(value, -count - 1) + count : value
            return max(low, min(high, absolute))
        }
        let first = clamp(start, default: stride > 0 ? low : high)
        let end = clamp(stop, default: stride > 0 ? high : low)
        let distance = stride > 0 ? end - first : first - end
        let size = distance > 0 ? (distance - 1) / abs(stride) + 1 : 0
        return SliceIndices(first0: first, step: stride, count: size)
    }

    // MARK: Iteration

    /// `len(value)`; nil when Python would raise TypeError.
    func count(of value: Value) -> Int? {
        switch value {
        case .undefined: 0
        case .string(let text), .markup(let text): text.pythonLength
        case .list(let sequence), .tuple(let sequence): sequence.items.count
        case .dict(let dict): dict.count
        case .dictView(let view): view.dict.count
        case .range(let range): range.count
        case .loop(let loop): try? loop.length()
        default: nil
        }
    }

    /// The elements `for` would visit, all at once. An iterator is used up.
    /// - Parameter limit: enough elements for the caller; an iterator may have more.
    func items(of value: Value, limit: Int = .max) throws(TemplateError) -> [Value] {
        switch value {
        case .list(let sequence), .tuple(let sequence): return sequence.items
        case .undefined: return []
        case .dict(let dict): return dict.keys
        case .dictView(let view):
            switch view.kind {
            case .keys: return view.dict.keys
            case .values: return view.dict.values
            case .items:
                var pairs: [Value] = []
                for (key, value) in zip(view.dict.keys, view.dict.values) { pairs.append(try tuple([key, value])) }
                return pairs
            }
        case .string(let text), .markup(let text):
            try charge(text.utf8.count)
            return text.unicodeScalars.map { .string(String($0)) }
        case .range(let range):
            try charge(range.count)
            return (0..<range.count).map { .int(range[$0]) }
        case .iterator(let iterator):
            var items: [Value] = []
            while items.count < limit, let item = try iterator.next() {
                try charge(1)
                items.append(item)
            }
            return items
        default: throw TemplateError(.runtime, "'\(value.typeName)' object is not iterable")
        }
    }

    func iterator(over value: Value) throws(TemplateError) -> ValueIterator {
        if case .iterator(let iterator) = value { return iterator }
        return ValueIterator(try items(of: value), depth: value.depth + 1)
    }
}
