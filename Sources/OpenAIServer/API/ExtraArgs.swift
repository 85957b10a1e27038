import JSONBytes
import MessagePack

/// `vllm_xargs` and transfer parameters on their way into the engine's `extra_args`.
enum ExtraArgs {
    /// Encodes as one msgpack map. Integers must fit 64 bits, or the engine's decoder fails.
    static func encode(_ object: JSONObject) throws(APIError) -> [UInt8] {
        var bytes: [UInt8] = []
        try append(.object(object), to: &bytes)
        return bytes
    }

    private static func append(_ value: JSONValue, to bytes: inout [UInt8]) throws(APIError) {
        switch value {
        case .null: bytes.packNil()
        case .bool(let bool): bytes.pack(bool)
        case .string(let string): bytes.pack(string)
        case .number(let number):
            if let int = number.intValue {
                bytes.pack(int)
            } else if number.isInteger {
                throw .badRequest("vllm_xargs: the integer \(number.text.prefix(64)) does not fit 64 bits.")
            } else {
                bytes.pack(number.doubleValue)
            }
        case .array(let elements):
            bytes.packArrayHeader(elements.count)
            for element in elements { try append(element, to: &bytes) }
        case .object(let object):
            bytes.packMapHeader(object.count)
            for (key, member) in object.pairs {
                bytes.pack(key)
                try append(member, to: &bytes)
            }
        }
    }
}
