import Glibc

/// The supervisor's one place of waiting: `poll` over descriptors, plus deadlines.
///
/// Code above it stays sequential ("spawn, wait for the handshake, wait for an exit, shut down"): each wait pumps the
/// loop until its condition holds, so logs flow and exits are noticed in every phase. Confined to one thread.
package final class EventLoop {
    package typealias Instant = ContinuousClock.Instant

    private struct Watch {
        var events: Int16
        var handler: () -> Void
    }

    private struct Timer {
        var deadline: Instant
        var handler: () -> Void
    }

    package struct TimerID: Hashable {
        fileprivate let value: UInt64
    }

    private var watches: [Int32: Watch] = [:]
    private var timers: [TimerID: Timer] = [:]
    private var nextTimer: UInt64 = 0
    private var entries: [pollfd] = []

    package init() {}

    /// Calls `handler` whenever the descriptor is ready (or in error), until `unwatch`. Level-triggered.
    package func watch(_ descriptor: Int32, for events: Int32 = POLLIN, _ handler: @escaping () -> Void) {
        watches[descriptor] = Watch(events: Int16(events), handler: handler)
    }

    package func unwatch(_ descriptor: Int32) {
        watches[descriptor] = nil
    }

    @discardableResult
    package func schedule(after delay: Duration, _ handler: @escaping () -> Void) -> TimerID {
        nextTimer += 1
        let id = TimerID(value: nextTimer)
        timers[id] = Timer(deadline: .now + delay, handler: handler)
        return id
    }

    package func cancel(_ timer: TimerID?) {
        if let timer { timers[timer] = nil }
    }

    /// Waits for the next event, at most until `deadline`, and runs the handlers that are due.
    package func runOnce(until deadline: Instant? = nil) {
        var wake = deadline
        for timer in timers.values { wake = min(wake ?? timer.deadline, timer.deadline) }
        let timeout = wake.map { ($0 - .now).pollMilliseconds } ?? -1

        entries.removeAll(keepingCapacity: true)
        for (descriptor, watch) in watches {
            entries.append(pollfd(fd: descriptor, events: watch.events, revents: 0))
        }
        let ready = poll(&entries, nfds_t(entries.count), timeout)
        if ready > 0 {
            for entry in entries where entry.revents != 0 {
                // An earlier handler may have removed this watch.
                watches[entry.fd]?.handler()
            }
        }
        let now = Instant.now
        for (id, timer) in timers where timer.deadline <= now && timers[id] != nil {
            timers[id] = nil
            timer.handler()
        }
    }

    /// Pumps events while the condition holds, at most until `deadline`. Returns whether the condition became false.
    @discardableResult
    package func run(until deadline: Instant? = nil, while condition: () -> Bool) -> Bool {
        while condition() {
            if let deadline, Instant.now >= deadline { return false }
            runOnce(until: deadline)
        }
        return true
    }
}
