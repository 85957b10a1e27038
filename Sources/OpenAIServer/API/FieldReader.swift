import JSONBytes

/// Reads the fields of a request object with the leniency of the Python server: numbers may come in strings, integral
/// floats count as integers, `"true"` and 1 as booleans, and null means "not given".
///
/// Type errors are collected, not thrown one by one, so that a client sees all of them at once.
struct FieldReader {
    /// At most this many errors are reported.
    static let maximumErrors = 10

    struct Issue {
        var path: String
        var message: String
    }

    let object: JSONObject
    private let path: String
    private(set) var issues: [Issue] = []
    /// The first violated rule that the Python server checks before any type.
    private(set) var violatedRule: APIError?

    init(_ object: JSONObject, path: String = "body") {
        self.object = object
        self.path = path
    }

    /// The member if it is present and not null.
    func value(_ key: String) -> JSONValue? {
        guard let value = object[key], !value.isNull else { return nil }
        return value
    }

    mutating func report(_ key: String, _ message: String) {
        issues.append(Issue(path: "\(path).\(key)", message: message))
    }

    /// Reports members that are null although the Python server has no null for them.
    mutating func refuseNull(_ keys: String...) {
        for key in keys where object[key]?.isNull ?? false { report(key, "Input should not be null") }
    }

    mutating func string(_ key: String) -> String? {
        guard let value = value(key) else { return nil }
        guard let string = value.stringValue else {
            report(key, "Input should be a valid string")
            return nil
        }
        return string
    }

    mutating func bool(_ key: String) -> Bool? {
        guard let value = value(key) else { return nil }
        guard let bool = Self.bool(value) else {
            report(key, "Input should be a valid boolean")
            return nil
        }
        return bool
    }

    /// - Parameter saturating: what exceeds 64 bits becomes the largest or smallest number, for fields whose limits are far
    ///   below and name the error.
    mutating func int(_ key: String, minimum: Int? = nil, saturating: Bool = false) -> Int? {
        guard let value = value(key) else { return nil }
        if saturating, case .number(let number) = value, number.isInteger, number.intValue == nil {
            return number.doubleValue < 0 ? .min : .max
        }
        guard let int = Self.int(value) else {
            report(key, "Input should be a valid integer")
            return nil
        }
        if let minimum, int < minimum {
            report(key, "Input should be greater than or equal to \(minimum)")
            return nil
        }
        return int
    }

    mutating func double(_ key: String) -> Double? {
        guard let value = value(key) else { return nil }
        guard let double = Self.double(value) else {
            report(key, "Input should be a valid number")
            return nil
        }
        return double
    }

    mutating func object(_ key: String) -> JSONObject? {
        guard let value = value(key) else { return nil }
        guard let object = value.objectValue else {
            report(key, "Input should be a valid dictionary")
            return nil
        }
        return object
    }

    mutating func array(_ key: String) -> [JSONValue]? {
        guard let value = value(key) else { return nil }
        guard let array = value.arrayValue else {
            report(key, "Input should be a valid list")
            return nil
        }
        return array
    }

    /// A list of integers that fit a token id.
    mutating func tokenIDs(_ key: String, minimum: Int = Int(Int32.min)) -> [Int32]? {
        guard let array = array(key) else { return nil }
        var ids: [Int32] = []
        ids.reserveCapacity(array.count)
        for (index, element) in array.enumerated() {
            guard let int = Self.int(element) else {
                report("\(key).\(index)", "Input should be a valid integer")
                return nil
            }
            guard int >= minimum else {
                report("\(key).\(index)", "Input should be greater than or equal to \(minimum)")
                return nil
            }
            // Larger than any vocabulary: the range check that follows names the id.
            ids.append(Int32(clamping: int))
        }
        return ids
    }

    mutating func strings(_ key: String) -> [String]? {
        guard let array = array(key) else { return nil }
        var strings: [String] = []
        for (index, element) in array.enumerated() {
            guard let string = element.stringValue else {
                report("\(key).\(index)", "Input should be a valid string")
                return nil
            }
            strings.append(string)
        }
        return strings
    }

    /// Takes over the issues of a reader for a nested object.
    mutating func absorb(_ nested: FieldReader) {
        issues.append(contentsOf: nested.issues)
        if violatedRule == nil { violatedRule = nested.violatedRule }
    }

    /// Takes note of an error that has a type and `param` of its own.
    mutating func reportRule(_ error: APIError) {
        if violatedRule == nil { violatedRule = error }
    }

    /// Throws one error that names every issue; its `param` is the first path.
    func finish() throws(APIError) {
        if let violatedRule { throw violatedRule }
        guard let first = issues.first else { return }
        var message = issues.count == 1 ? "1 validation error:" : "\(issues.count) validation errors:"
        for issue in issues.prefix(Self.maximumErrors) {
            message += "\n  \(issue.path): \(issue.message)"
        }
        throw APIError.invalidBody(message, param: first.path)
    }

    // MARK: - Conversions

    /// Whether Python takes the value for true.
    static func isTrue(_ value: JSONValue?) -> Bool {
        switch value {
        case .null, nil: false
        case .bool(let bool): bool
        case .number(let number): number.doubleValue != 0
        case .string(let text): !text.isEmpty
        case .array(let elements): !elements.isEmpty
        case .object(let object): !object.isEmpty
        }
    }

    static func bool(_ value: JSONValue) -> Bool? {
        switch value {
        case .bool(let bool): return bool
        case .number(let number):
            switch number.doubleValue {
            case 0: return false
            case 1: return true
            default: return nil
            }
        case .string(let string):
            switch string.lowercased() {
            case "true", "1", "yes", "y", "on", "t": return true
            case "false", "0", "no", "n", "off", "f": return false
            default: return nil
            }
        default: return nil
        }
    }

    static func int(_ value: JSONValue) -> Int? {
        switch value {
        case .number(let number):
            if let int = number.intValue { return int }
            // An integer beyond 64 bits must not be rounded into range.
            return number.isInteger ? nil : Int(exactly: number.doubleValue)
        case .string(let string):
            if let int = Int(string) { return int }
            guard let double = Double(string) else { return nil }
            return Int(exactly: double)
        case .bool(let bool): return bool ? 1 : 0
        default: return nil
        }
    }

    static func double(_ value: JSONValue) -> Double? {
        switch value {
        case .number(let number): return number.doubleValue
        case .string(let string): return Double(string)
        case .bool(let bool): return bool ? 1 : 0
        default: return nil
        }
    }
}
