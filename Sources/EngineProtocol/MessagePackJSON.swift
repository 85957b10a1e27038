import MessagePack

extension MessagePackValue {
    /// Appends compact JSON. Bytes and extension values become null; non-finite numbers too, as JSON has none.
    package func appendJSON(to output: inout [UInt8]) {
        switch self {
        case .nil, .binary, .ext: output.append(contentsOf: "null".utf8)
        case .bool(let value): output.append(contentsOf: (value ? "true" : "false").utf8)
        case .int(let value): output.append(contentsOf: String(value).utf8)
        case .unsigned(let value): output.append(contentsOf: String(value).utf8)
        case .double(let value): output.append(contentsOf: (value.isFinite ? "\(value)" : "null").utf8)
        case .string(let value): Self.appendJSON(value, to: &output)
        case .array(let values):
            output.append(UInt8(ascii: "["))
            for (index, value) in values.enumerated() {
                if index > 0 { output.append(UInt8(ascii: ",")) }
                value.appendJSON(to: &output)
            }
            output.append(UInt8(ascii: "]"))
        case .map(let pairs):
            output.append(UInt8(ascii: "{"))
            for (index, pair) in pairs.enumerated() {
                if index > 0 { output.append(UInt8(ascii: ",")) }
                if case .string(let key) = pair.key {
                    Self.appendJSON(key, to: &output)
                } else {
                    // JSON keys are text: other keys appear as the text of their JSON form, as in Python.
                    var key: [UInt8] = []
                    pair.key.appendJSON(to: &key)
                    Self.appendJSON(String(decoding: key, as: UTF8.self), to: &output)
                }
                output.append(UInt8(ascii: ":"))
                pair.value.appendJSON(to: &output)
            }
            output.append(UInt8(ascii: "}"))
        }
    }

    private static func appendJSON(_ text: String, to output: inout [UInt8]) {
        let hex = Array("0123456789abcdef".utf8)
        output.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): output += [UInt8(ascii: "\\"), byte]
            case 0..<0x20:
                output.append(contentsOf: "\\u00".utf8)
                output += [hex[Int(byte >> 4)], hex[Int(byte & 15)]]
            default: output.append(byte)
            }
        }
        output.append(UInt8(ascii: "\""))
    }
}
