/// The printable characters that byte-level vocabularies write for bytes (GPT-2's table: `Ġ` is a space).
enum ByteLevelAlphabet {
    /// Scalar of each byte.
    static let scalars: [UInt32] = {
        var table = [UInt32](repeating: 0, count: 256)
        var next: UInt32 = 256
        for byte in UInt32(0)..<256 {
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: table[Int(byte)] = byte
            default:
                table[Int(byte)] = next
                next += 1
            }
        }
        return table
    }()

    /// Byte of each scalar below 0x144, -1 for the others.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 0x144)
        for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
        return table
    }()

    /// Appends the bytes that `name` (valid UTF-8) stands for.
    /// - Returns: false when it has a character outside the alphabet; part of it may have been appended then.
    static func decode(_ name: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) -> Bool {
        guard let base = name.baseAddress else { return true }
        return bytes.withUnsafeBufferPointer { bytes in
            var index = 0
            while index < name.count {
                let (scalar, length) = decodeScalar(base, at: index)
                guard scalar < 0x144, bytes[Int(scalar)] >= 0 else { return false }
                output.append(UInt8(truncatingIfNeeded: bytes[Int(scalar)]))
                index += length
            }
            return true
        }
    }
}
