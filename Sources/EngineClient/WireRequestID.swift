/// Request ids on the wire: `<client's id>-<8 hex digits>`, which look like vLLM's random ones but hold the registry slot
/// and the low bits of its generation, so that finding a request is an index and not a hash.
struct WireRequestID {
    static let slotBits: UInt32 = 20
    /// Most requests in flight.
    static let slotLimit = 1 << slotBits
    private static let slotMask: UInt32 = (1 << slotBits) - 1
    private static let suffixLength = 9
    private static let digits: [UInt8] = Array("0123456789abcdef".utf8)

    /// Differs per client: outputs for a former frontend process, or of another one, do not resolve here.
    let key: UInt32

    func make(_ id: String, slot: UInt32, generation: UInt32) -> String {
        let value = (slot | generation << Self.slotBits) ^ key
        var id = id
        var source = id.withUTF8 { $0.count }
        source += Self.suffixLength
        return String(unsafeUninitializedCapacity: source) { buffer in
            let prefix = id.withUTF8 { bytes in buffer.update(fromContentsOf: bytes) }
            buffer[prefix] = UInt8(ascii: "-")
            for digit in 0..<8 {
                let nibble = value >> UInt32(28 - 4 * digit) & 15
                buffer[prefix + 1 + digit] = Self.digits[Int(nibble)]
            }
            return source
        }
    }

    /// The slot and the low generation bits that an id names; nil when it is not of our form.
    func parse(_ id: UnsafeRawBufferPointer) -> (slot: UInt32, generation: UInt32)? {
        guard id.count >= Self.suffixLength, id[id.count - Self.suffixLength] == UInt8(ascii: "-") else { return nil }
        var value: UInt32 = 0
        for index in (id.count - 8)..<id.count {
            let byte = id[index]
            let nibble: UInt8
            switch byte {
            case 0x30...0x39: nibble = byte - 0x30
            case 0x61...0x66: nibble = byte - 0x57
            default: return nil
            }
            value = value << 4 | UInt32(nibble)
        }
        value ^= key
        return (value & Self.slotMask, value >> Self.slotBits)
    }

    static func matches(generation: UInt32, low: UInt32) -> Bool {
        generation & (UInt32.max >> slotBits) == low
    }
}
