import JSONBytes

/// A value during rendering, with Python's types. Only lives inside one render.
///
/// Lists, tuples and dicts are immutable (the sandbox forbids changing them). They know how deeply they nest, so that
/// recursion over them, and their release, is bounded, and how much they weigh: an object can occur many times inside
/// another one, so walking a value may take exponentially more work than making it. The mutable objects (`Namespace`, `LoopContext`, `Scope`) are
/// emptied at the end of the render, which also breaks reference cycles.
enum Value {
    case undefined(Undefined)
    case none
    case bool(Bool)
    case int(Int)
    /// An integer beyond 64 bits: it can be printed, compared for equality and tested, not calculated with.
    case bigInt(String)
    case float(Double)
    case string(String)
    /// A string that `escape`, `safe` or `forceescape` marked as HTML; `+` escapes what is added to it.
    case markup(String)
    case list(Sequence)
    case tuple(Sequence)
    case dict(Dict)
    case dictView(DictView)
    case range(Range)
    case iterator(ValueIterator)
    case function(Function)
    case namespace(Namespace)
    case loop(LoopContext)
    case cycler(Cycler)
}

extension Value {
    final class Undefined {
        let message: String
        init(_ message: String) { self.message = message }
        init(name: String) { message = "'\(name)' is undefined" }
        init(typeName: String, attribute: String) { message = "'\(typeName) object' has no attribute '\(attribute)'" }
    }

    /// The elements of a list or tuple.
    final class Sequence {
        let items: [Value]
        let depth: Int
        let weight: Int
        /// Key names of a `groupby` group, whose two elements can be read as attributes.
        let isGroup: Bool

        init(_ items: [Value], depth: Int, isGroup: Bool = false) {
            self.items = items
            self.depth = depth
            weight = items.reduce(1) { saturatingSum($0, $1.weight) }
            self.isGroup = isGroup
        }
    }

    /// `range(start, stop, step)`, never materialised as a whole before it is iterated.
    final class Range {
        let start: Int
        let step: Int
        let count: Int
        let stop: Int

        init(start: Int, stop: Int, step: Int, count: Int) {
            self.start = start
            self.stop = stop
            self.step = step
            self.count = count
        }

        subscript(index: Int) -> Int { start + index * step }
    }

    enum DictViewKind: String { case keys, values, items }

    final class DictView {
        let dict: Dict
        let kind: DictViewKind
        init(_ dict: Dict, _ kind: DictViewKind) {
            self.dict = dict
            self.kind = kind
        }
    }
}

/// An insertion-ordered mapping.
final class Dict {
    let keys: [Value]
    let values: [Value]
    let depth: Int
    let weight: Int
    private let index: [HashableValue: Int]

    /// - Parameter keys: distinct and hashable.
    init(keys: [Value], values: [Value], depth: Int, index: [HashableValue: Int] = [:]) {
        self.keys = keys
        self.values = values
        self.depth = depth
        weight = values.reduce(keys.reduce(1) { saturatingSum($0, $1.weight) }) { saturatingSum($0, $1.weight) }
        self.index = index
    }

    var count: Int { keys.count }

    func value(_ name: String) -> Value? {
        if index.isEmpty {
            for (position, key) in keys.enumerated() {
                if case .string(let text) = key, utf8Equal(text, name) { return values[position] }
            }
            return nil
        }
        return index[HashableValue(.string(name))].map { values[$0] }
    }

    /// - Parameter key: hashable.
    func value(forKey key: Value) -> Value? {
        if index.isEmpty { return keys.firstIndex { $0.equals(key) }.map { values[$0] } }
        return index[HashableValue(key)].map { values[$0] }
    }
}

func saturatingSum(_ left: Int, _ right: Int) -> Int {
    let (sum, overflow) = left.addingReportingOverflow(right)
    return overflow ? .max : sum
}

/// Collects the members of a dict; a repeated key keeps its first place and its last value.
struct DictBuilder {
    private(set) var keys: [Value] = []
    private(set) var values: [Value] = []
    private var index: [HashableValue: Int] = [:]

    var count: Int { keys.count }

    /// - Parameter key: hashable.
    mutating func set(_ key: Value, _ value: Value) {
        if let position = index.isEmpty ? keys.firstIndex(where: { $0.equals(key) }) : index[HashableValue(key)] {
            values[position] = value
            return
        }
        keys.append(key)
        values.append(value)
        if keys.count > 8 {
            if index.isEmpty {
                for (position, key) in keys.enumerated() { index[HashableValue(key)] = position }
            } else {
                index[HashableValue(key)] = keys.count - 1
            }
        }
    }

    func build(depth: Int) -> Dict { Dict(keys: keys, values: values, depth: depth, index: index) }
}

/// A key with Python's equality: `1`, `1.0` and `true` are the same key.
struct HashableValue: Hashable {
    let value: Value

    init(_ value: Value) { self.value = value }

    static func == (left: HashableValue, right: HashableValue) -> Bool { left.value.equals(right.value) }

    func hash(into hasher: inout Hasher) {
        switch value {
        case .bool(let flag): hasher.combine(flag ? 1 : 0)
        case .int(let number): hasher.combine(number)
        case .float(let number):
            if let whole = Int(exactly: number) { hasher.combine(whole) } else { hasher.combine(number) }
        case .bigInt(let text): hasher.combine(text)
        case .string(let text), .markup(let text):
            text.withBytes { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        case .tuple(let sequence): for item in sequence.items { HashableValue(item).hash(into: &hasher) }
        default: break
        }
    }
}

/// A Python iterator: consumed once, produced lazily.
final class ValueIterator {
    private var items: [Value]
    private var position = 0
    private let producer: (() throws(TemplateError) -> Value?)?
    let depth: Int

    init(_ items: [Value], depth: Int) {
        self.items = items
        producer = nil
        self.depth = depth
    }

    init(depth: Int, _ producer: @escaping () throws(TemplateError) -> Value?) {
        items = []
        self.producer = producer
        self.depth = depth
    }

    func next() throws(TemplateError) -> Value? {
        if let producer { return try producer() }
        guard position < items.count else { return nil }
        defer { position += 1 }
        return items[position]
    }
}

/// The object behind `namespace(...)`, the only one a template can change.
final class Namespace {
    private(set) var attributes = DictBuilder()

    func set(_ name: String, _ value: Value) { attributes.set(.string(name), value) }

    func get(_ name: String) -> Value? {
        for (position, key) in attributes.keys.enumerated() {
            if case .string(let text) = key, utf8Equal(text, name) { return attributes.values[position] }
        }
        return nil
    }

    func clear() { attributes = DictBuilder() }
}

final class Cycler {
    let items: [Value]
    var position = 0
    let depth: Int
    init(_ items: [Value], depth: Int) {
        self.items = items
        self.depth = depth
    }
}

final class Joiner {
    let separator: Value
    var isUsed = false
    init(_ separator: Value) { self.separator = separator }
}

/// Something that can be called.
final class Function {
    enum Body {
        case global(Global)
        case method(receiver: Value, name: String)
        case macro(Macro)
        case joiner(Joiner)
    }

    let body: Body
    let depth: Int

    init(_ body: Body, depth: Int = 1) {
        self.body = body
        self.depth = depth
    }
}

final class Macro {
    let definition: MacroDefinition
    /// The scope the macro was defined in.
    let scope: Scope

    init(_ definition: MacroDefinition, scope: Scope) {
        self.definition = definition
        self.scope = scope
    }
}

/// Variables of one lexical scope.
final class Scope {
    private var ids: [Int] = []
    private var values: [Value] = []
    let parent: Scope?
    /// Kept by a macro: the scope must not be reused for another pass of its loop.
    var isCaptured = false

    init(parent: Scope?) { self.parent = parent }

    func lookup(_ id: Int) -> Value? {
        var scope: Scope? = self
        while let current = scope {
            // From the newest: a variable is more often read soon after it was set.
            var position = current.ids.count - 1
            while position >= 0 {
                if current.ids[position] == id { return current.values[position] }
                position -= 1
            }
            scope = current.parent
        }
        return nil
    }

    func set(_ id: Int, _ value: Value) {
        if let position = ids.firstIndex(of: id) {
            values[position] = value
        } else {
            ids.append(id)
            values.append(value)
        }
    }

    func clear() {
        ids.removeAll(keepingCapacity: true)
        values.removeAll(keepingCapacity: true)
    }
}
