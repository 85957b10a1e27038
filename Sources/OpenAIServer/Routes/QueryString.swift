/// The parameters of a query string, in order; `+` and percent escapes are decoded, broken escapes stay as they are.
struct QueryString {
    let pairs: [(name: String, value: String)]

    init(_ query: String) {
        pairs = query.split(separator: "&").map { part in
            let mark = part.firstIndex(of: "=") ?? part.endIndex
            let value = mark < part.endIndex ? part[part.index(after: mark)...] : ""
            return (Self.decode(part[..<mark]), Self.decode(value))
        }
    }

    /// The last value of `name`, as in Python.
    subscript(name: String) -> String? { pairs.last { $0.name == name }?.value }

    func all(_ name: String) -> [String] { pairs.filter { $0.name == name }.map(\.value) }

    /// Python's spellings of a boolean; an error for anything else.
    func bool(_ name: String, default fallback: Bool) throws(APIError) -> Bool {
        guard let text = self[name] else { return fallback }
        switch text.lowercased() {
        case "true", "1", "on", "t", "y", "yes": return true
        case "false", "0", "off", "f", "n", "no": return false
        default: throw Self.invalid(name, "Input should be a valid boolean, unable to interpret input")
        }
    }

    func int(_ name: String, default fallback: Int, in range: ClosedRange<Int>) throws(APIError) -> Int {
        guard let text = self[name] else { return fallback }
        guard let value = Int(text) else {
            throw Self.invalid(name, "Input should be a valid integer, unable to parse string as an integer")
        }
        guard value >= range.lowerBound else {
            throw Self.invalid(name, "Input should be greater than or equal to \(range.lowerBound)")
        }
        guard value <= range.upperBound else {
            throw Self.invalid(name, "Input should be less than or equal to \(range.upperBound)")
        }
        return value
    }

    func choice(_ name: String, default fallback: String, of choices: [String]) throws(APIError) -> String {
        guard let text = self[name] else { return fallback }
        guard choices.contains(text) else {
            let quoted = choices.map { "'\($0)'" }
            let list = quoted.dropLast().joined(separator: ", ") + " or " + (quoted.last ?? "")
            throw Self.invalid(name, "Input should be \(list)")
        }
        return text
    }

    static func invalid(_ name: String, _ message: String) -> APIError {
        .invalidBody("1 validation error:\n  query.\(name): \(message)", param: "query.\(name)")
    }

    private static func decode(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        let source = Array(text.utf8)
        var index = 0
        while index < source.count {
            if source[index] == UInt8(ascii: "+") {
                bytes.append(0x20)
            } else if source[index] == UInt8(ascii: "%"), index + 2 < source.count,
                let high = hexDigit(source[index + 1]), let low = hexDigit(source[index + 2])
            {
                bytes.append(high << 4 | low)
                index += 2
            } else {
                bytes.append(source[index])
            }
            index += 1
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }
}
