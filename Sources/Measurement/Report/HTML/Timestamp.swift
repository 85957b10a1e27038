import Foundation

enum Timestamp {
    /// `2026-01-31 23:59 UTC` of Unix seconds.
    static func utc(_ seconds: Double) -> String {
        guard seconds.isFinite, abs(seconds) < 1e11 else { return "an unknown time" }
        var calendar = Calendar(identifier: .gregorian)
        calendar.timeZone = .gmt
        let parts = calendar.dateComponents(
            [.year, .month, .day, .hour, .minute], from: Date(timeIntervalSince1970: seconds))
        func two(_ value: Int?) -> String { String(format: "%02d", value ?? 0) }
        return "\(parts.year ?? 0)-\(two(parts.month))-\(two(parts.day)) \(two(parts.hour)):\(two(parts.minute)) UTC"
    }
}
