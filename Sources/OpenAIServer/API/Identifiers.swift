import Glibc

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

/// The wall clock, as the protocol and the API want it.
enum WallClock {
    /// Unix time in seconds with fraction.
    static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    static func seconds() -> Int { Int(now()) }
}
