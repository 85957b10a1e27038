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

extension JSONValue {
    package var isNull: Bool { if case .null = self { true } else { false } }
    package var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    package var numberValue: JSONNumber? { if case .number(let value) = self { value } else { nil } }
    package var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var objectValue: JSONObject? { if case .object(let value) = self { value } else { nil } }
    package subscript(key: String) -> JSONValue? { objectValue?[key] }

    package static func number(_ value: Int) -> JSONValue { .number(JSONNumber(value)) }
    package static func number(_ value: Double) -> JSONValue { .number(JSONNumber(value)) }
}
