import Glibc

/// Unix time: what the API and the protocol show.
enum WallClock {
    /// Seconds with fraction.
    static func now() -> Double { ClockReading.seconds(CLOCK_REALTIME) }

    static func seconds() -> Int { Int(now()) }
}

/// CLOCK_MONOTONIC in seconds: for durations, and what engines on this machine stamp their outputs with.
enum MonotonicClock {
    static func now() -> Double { ClockReading.seconds(CLOCK_MONOTONIC) }
}

private enum ClockReading {
    static func seconds(_ clock: clockid_t) -> Double {
        var time = timespec()
        clock_gettime(clock, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
