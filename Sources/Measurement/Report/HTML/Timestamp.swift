import Glibc

enum Timestamp {
    /// `2026-01-31 23:59 UTC` of Unix seconds.
    static func utc(_ seconds: Double) -> String {
        guard seconds.isFinite, abs(seconds) < 1e11 else { return "an unknown time" }
        var moment = time_t(seconds.rounded(.down))
        var parts = tm()
        guard gmtime_r(&moment, &parts) != nil else { return "an unknown time" }
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday)) "
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)) UTC"
    }
}
