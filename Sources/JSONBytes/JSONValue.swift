/// A JSON value that keeps what matters to a chat template: the order of object keys and the spelling of numbers.
///
/// Strings are unescaped. Numbers keep their source text, so `1.0`, `1` and `1e0` survive a round trip.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case number(JSONNumber)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)
}

/// A JSON number as it was spelled.
package struct JSONNumber: Sendable, Equatable, Hashable {
    /// The source text, for example `1e0`; also `NaN`, `Infinity` and `-Infinity`, which Python's reader accepts.
    package let text: String

    package init(text: String) { self.text = text }
    package init(_ value: Int) { self.text = String(value) }
    package init(_ value: Double) { self.text = "\(value)" }

    /// The value when it is spelled as an integer (no point, no exponent) that fits into 64 bits.
    package var intValue: Int? { Int(text) }
    /// The value as a double; Swift parses the same spellings as JSON.
    package var doubleValue: Double { Double(text) ?? .nan }
    /// Whether the source had neither a fraction nor an exponent (Python: `int`, otherwise `float`).
    package var isInteger: Bool { !text.utf8.contains { $0 == 0x2E || $0 == 0x65 || $0 == 0x45 || $0 == 0x4E || $0 == 0x49 } }
}

/// An object that remembers the order of its keys. A repeated key keeps its first place and its last value, as in Python.
package struct JSONObject: Sendable, Equatable {
    package private(set) var keys: [String] = []
    private var storage: [String: JSONValue] = [:]

    package init() {}
    package init(_ pairs: [(String, JSONValue)]) {
        for (key, value) in pairs { self[key] = value }
    }

    package var count: Int { keys.count }
    package var isEmpty: Bool { keys.isEmpty }

    package subscript(key: String) -> JSONValue? {
        get { storage[key] }
        set {
            if let newValue {
                if storage.updateValue(newValue, forKey: key) == nil { keys.append(key) }
            } else if storage.removeValue(forKey: key) != nil {
                keys.removeAll { $0 == key }
            }
        }
    }

    /// The members in source order.
    package var pairs: [(key: String, value: JSONValue)] {
        keys.map { ($0, storage[$0]!) }
    }
}

extension JSONValue {
    package var isNull: Bool { if case .null = self { true } else { false } }
    package var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    package var numberValue: JSONNumber? { if case .number(let value) = self { value } else { nil } }
    package var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var objectValue: JSONObject? { if case .object(let value) = self { value } else { nil } }
    package subscript(key: String) -> JSONValue? { objectValue?[key] }
}
