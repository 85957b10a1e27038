import Glibc

/// A point in local time, for `strftime_now`.
package struct TemplateTime: Sendable {
    private let secondsSinceEpoch: Int
    private let isUTC: Bool

    /// - Parameters:
    ///   - secondsSinceEpoch: Unix time.
    ///   - isUTC: show it in UTC instead of the process's time zone.
    package init(secondsSinceEpoch: Int, isUTC: Bool = false) {
        self.secondsSinceEpoch = secondsSinceEpoch
        self.isUTC = isUTC
    }

    package static func now() -> TemplateTime { TemplateTime(secondsSinceEpoch: time(nil)) }

    func formatted(_ format: String) throws(TemplateError) -> String {
        guard format.utf8.count <= 1024 else {
            throw TemplateError(.runtime, "strftime_now format is longer than 1024 bytes")
        }
        if format.isEmpty || format.utf8.contains(0) { return "" }
        var seconds = time_t(secondsSinceEpoch)
        var fields = tm()
        if isUTC { gmtime_r(&seconds, &fields) } else { localtime_r(&seconds, &fields) }
        // No conversion of the C locale expands to more than 32 bytes, except by an explicit width.
        let capacity = 64 * 1024
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: capacity) { buffer in
            let length = strftime(buffer.baseAddress!, capacity, format, &fields)
            return String(decoding: UnsafeRawBufferPointer(buffer)[..<length], as: UTF8.self)
        }
    }
}
