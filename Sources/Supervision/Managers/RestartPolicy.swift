/// How often a child may be restarted, and how long to wait before it: at once the first time, then longer and longer
/// while it keeps dying young. No I/O, no clock of its own.
package struct RestartPolicy: Sendable {
    /// Most restarts within `window`; 0 = never restart.
    package var limit: Int
    package var window: Duration
    private var history: [ContinuousClock.Instant] = []

    package static let never = RestartPolicy(limit: 0, window: .seconds(600))
    package static let standard = RestartPolicy(limit: 5, window: .seconds(600))

    package init(limit: Int, window: Duration) {
        self.limit = limit
        self.window = window
    }

    /// Restarts within the window.
    package var count: Int { history.count }

    /// The child died at `now`: the delay before it is started again, or nil when that would be too often.
    package mutating func delay(now: ContinuousClock.Instant) -> Duration? {
        history.removeAll { now - $0 > window }
        guard history.count < limit else { return nil }
        // Of the restarts, those shortly after one another tell of a child that cannot stay up.
        let recent = history.filter { now - $0 < .seconds(30) }.count
        history.append(now)
        return recent == 0 ? .zero : min(.milliseconds(250) * (1 << min(recent - 1, 6)), .seconds(10))
    }
}
