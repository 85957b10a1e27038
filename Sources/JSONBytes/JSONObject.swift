/// An object that remembers the order of its keys. A repeated key keeps its first place and its last value, as in Python.
///
/// Keys are equal when their UTF-8 bytes are, as in JSON and Python; Swift's own string equality would merge keys that
/// only differ in Unicode normalisation. Small objects are searched linearly, larger ones through an index.
package struct JSONObject: Sendable {
    package typealias Member = (key: String, value: JSONValue)

    /// The members in source order.
    package private(set) var pairs: [Member] = []
    /// Position of each key in `pairs`; empty while the object is small.
    private var index: [UTF8Key: Int] = [:]

    private static let linearSearchLimit = 8

    package init() {}
    package init(_ pairs: [(String, JSONValue)]) {
        for (key, value) in pairs { self[key] = value }
    }

    package var count: Int { pairs.count }
    package var isEmpty: Bool { pairs.isEmpty }
    package var keys: [String] { pairs.map(\.key) }

    package subscript(key: String) -> JSONValue? {
        get { position(of: key).map { pairs[$0].value } }
        set {
            if let newValue, !index.isEmpty { return put(key, newValue) }
            let found = position(of: key)
            switch (found, newValue) {
            case (let position?, let value?): pairs[position].value = value
            case (nil, let value?): insert(key, value)
            case (let position?, nil):
                pairs.remove(at: position)
                rebuildIndex()
            case (nil, nil): break
            }
        }
    }

    private func position(of key: String) -> Int? {
        if index.isEmpty {
            return pairs.firstIndex { utf8Equal($0.key, key) }
        }
        return index[UTF8Key(key)]
    }

    /// With one look into the index where the key is new, as nearly all are.
    private mutating func put(_ key: String, _ value: JSONValue) {
        if let old = index.updateValue(pairs.count, forKey: UTF8Key(key)) {
            index[UTF8Key(key)] = old
            pairs[old].value = value
        } else {
            pairs.append((key, value))
        }
    }

    private mutating func insert(_ key: String, _ value: JSONValue) {
        pairs.append((key, value))
        if pairs.count > Self.linearSearchLimit {
            rebuildIndex()
        }
    }

    private mutating func rebuildIndex() {
        index.removeAll(keepingCapacity: true)
        guard pairs.count > Self.linearSearchLimit else { return }
        index.reserveCapacity(pairs.count)
        for (position, pair) in pairs.enumerated() { index[UTF8Key(pair.key)] = position }
    }
}

extension JSONObject: Equatable {
    /// Same members in the same order.
    package static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.pairs.count == right.pairs.count
            && zip(left.pairs, right.pairs).allSatisfy { utf8Equal($0.key, $1.key) && $0.value == $1.value }
    }
}

/// A string that hashes and compares by its UTF-8 bytes.
private struct UTF8Key: Hashable, Sendable {
    let text: String

    init(_ text: String) { self.text = text }

    static func == (left: UTF8Key, right: UTF8Key) -> Bool { utf8Equal(left.text, right.text) }

    func hash(into hasher: inout Hasher) {
        let hashed: Void? = text.utf8.withContiguousStorageIfAvailable {
            hasher.combine(bytes: UnsafeRawBufferPointer($0))
        }
        if hashed == nil { for byte in text.utf8 { hasher.combine(byte) } }
    }
}

/// Whether two strings have the same UTF-8 bytes (not merely the same canonical form).
package func utf8Equal(_ left: String, _ right: String) -> Bool {
    left.utf8.count == right.utf8.count && left.utf8.elementsEqual(right.utf8)
}
