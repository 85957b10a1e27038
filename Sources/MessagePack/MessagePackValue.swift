/// Any msgpack value as a tree: for results of unknown shape (utility calls, transfer parameters), never per token.
package enum MessagePackValue: Sendable, Equatable {
    case `nil`
    case bool(Bool)
    case int(Int)
    /// An integer above `Int.max`.
    case unsigned(UInt64)
    case double(Double)
    case string(String)
    case binary([UInt8])
    case array([MessagePackValue])
    /// Pairs in wire order; keys may be of any kind.
    case map([(key: MessagePackValue, value: MessagePackValue)])
    case ext(type: Int8, [UInt8])

    /// Decodes exactly one value.
    package init(decoding bytes: [UInt8], maxDepth: Int = 64) throws(MessagePackError) {
        self = try MessagePackReader.read(bytes) { reader throws(MessagePackError) in
            let value = try reader.readValue(maxDepth: maxDepth)
            try reader.requireEnd()
            return value
        }
    }

    /// The value of a text key in a map.
    package subscript(key key: String) -> MessagePackValue? {
        guard case .map(let pairs) = self else { return nil }
        return pairs.first { $0.key == .string(key) }?.value
    }

    package static func == (a: MessagePackValue, b: MessagePackValue) -> Bool {
        switch (a, b) {
        case (.nil, .nil): true
        case (.bool(let x), .bool(let y)): x == y
        case (.int(let x), .int(let y)): x == y
        case (.unsigned(let x), .unsigned(let y)): x == y
        case (.double(let x), .double(let y)): x == y
        case (.string(let x), .string(let y)): x == y
        case (.binary(let x), .binary(let y)): x == y
        case (.array(let x), .array(let y)): x == y
        case (.map(let x), .map(let y)): x.count == y.count && zip(x, y).allSatisfy { $0 == $1 }
        case (.ext(let s, let x), .ext(let t, let y)): s == t && x == y
        default: false
        }
    }

    /// Appends this value to `output`.
    package func encode(into output: inout [UInt8]) {
        switch self {
        case .nil: output.packNil()
        case .bool(let value): output.pack(value)
        case .int(let value): output.pack(value)
        case .unsigned(let value): output.pack(unsigned: value)
        case .double(let value): output.pack(value)
        case .string(let value): output.pack(value)
        case .binary(let value): value.withUnsafeBytes { output.pack(binary: $0) }
        case .ext(let type, let value): value.withUnsafeBytes { output.pack(ext: type, $0) }
        case .array(let values):
            output.packArrayHeader(values.count)
            for value in values { value.encode(into: &output) }
        case .map(let pairs):
            output.packMapHeader(pairs.count)
            for pair in pairs {
                pair.key.encode(into: &output)
                pair.value.encode(into: &output)
            }
        }
    }
}

extension MessagePackReader {
    /// Reads the next value as a tree of at most `maxDepth` nested containers.
    package mutating func readValue(maxDepth: Int = 64) throws(MessagePackError) -> MessagePackValue {
        switch try peekType() {
        case .nil:
            _ = try skipNil()
            return .nil
        case .bool: return .bool(try readBool())
        case .integer:
            guard try firstByte() == 0xcf else { return .int(try readInt()) }
            let value = try readBits64()
            return Int(exactly: value).map { .int($0) } ?? .unsigned(value)
        case .float: return .double(try readDouble())
        case .string: return .string(try readString())
        case .binary: return .binary([UInt8](try readStringBytes()))
        case .ext:
            let ext = try readExt()
            return .ext(type: ext.type, [UInt8](ext.body))
        case .array:
            guard maxDepth > 0 else { throw MessagePackError(.tooDeep, offset: offset) }
            var values: [MessagePackValue] = []
            for _ in 0..<(try readArrayHeader()) { values.append(try readValue(maxDepth: maxDepth - 1)) }
            return .array(values)
        case .map:
            guard maxDepth > 0 else { throw MessagePackError(.tooDeep, offset: offset) }
            var pairs: [(key: MessagePackValue, value: MessagePackValue)] = []
            for _ in 0..<(try readMapHeader()) {
                let key = try readValue(maxDepth: maxDepth - 1)
                pairs.append((key, try readValue(maxDepth: maxDepth - 1)))
            }
            return .map(pairs)
        case .reserved: throw MessagePackError(.reservedByte, offset: offset)
        }
    }
}
