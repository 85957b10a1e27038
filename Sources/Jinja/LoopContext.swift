/// The `loop` variable.
final class LoopContext {
    private var iterator: ValueIterator
    private var knownLength: Int?
    /// The element after the current one, once it was asked for.
    private var peeked: Value?
    private var hasPeeked = false
    private var current: Value?
    private(set) var previous: Value?
    private(set) var index0 = -1
    private var lastChanged: [Value]?
    let depth: Int
    let recursionDepth: Int
    /// The loop and the scope around it, when it is recursive.
    private(set) var recursion: (loop: ForLoop, scope: Scope)?

    init(
        _ iterator: ValueIterator, length: Int?, depth: Int, recursionDepth: Int,
        recursion: (loop: ForLoop, scope: Scope)?
    ) {
        self.iterator = iterator
        knownLength = length
        self.depth = depth
        self.recursionDepth = recursionDepth
        self.recursion = recursion
    }

    var hasStarted: Bool { index0 >= 0 }
    var index: Int { index0 + 1 }

    func advance() throws(TemplateError) -> Value? {
        let next = try hasPeeked ? peeked : iterator.next()
        hasPeeked = false
        peeked = nil
        guard let next else { return nil }
        index0 += 1
        previous = current
        current = next
        return next
    }

    func peek() throws(TemplateError) -> Value? {
        if !hasPeeked {
            peeked = try iterator.next()
            hasPeeked = true
        }
        return peeked
    }

    /// Number of elements; reads the rest of an iterator that does not know.
    func length() throws(TemplateError) -> Int {
        if let knownLength { return knownLength }
        var rest: [Value] = []
        while let item = try iterator.next() { rest.append(item) }
        let length = rest.count + index + (hasPeeked && peeked != nil ? 1 : 0)
        iterator = ValueIterator(rest, depth: iterator.depth)
        knownLength = length
        return length
    }

    /// Whether `values` differ from those of the previous call.
    func changed(_ values: [Value]) -> Bool {
        if let lastChanged, lastChanged.count == values.count, zip(lastChanged, values).allSatisfy({ $0.equals($1) }) {
            return false
        }
        lastChanged = values
        return true
    }

    func clear() {
        lastChanged = nil
        recursion = nil
    }
}
