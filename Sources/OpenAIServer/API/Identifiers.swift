/// Random ids for answers that the client gave none.
enum RandomID {
    private static let digits = Array("0123456789abcdef".utf8)

    /// `count` lower-case hex digits.
    static func hex(_ count: Int) -> String {
        var generator = SystemRandomNumberGenerator()
        var bits = UInt64(0)
        return String(unsafeUninitializedCapacity: count) { buffer in
            for index in 0..<count {
                if index % 16 == 0 { bits = generator.next() }
                buffer[index] = digits[Int(bits & 15)]
                bits >>= 4
            }
            return count
        }
    }
}
