import CProcessShims
import Glibc
import NIOCore
import Supervision

/// A stop signal arrived; everything that was started must go before the program ends.
struct Interrupted: Error {
    let signal: Int32
}

/// Lets the main thread wait for things while SIGINT, SIGTERM and SIGHUP wait with it: they come out as errors, so that the
/// way out is the same as for any other failure.
///
/// Must be made before any other thread: those inherit the blocked signals.
final class Interruption {
    private let descriptor: Int32
    private let wake: (read: Supervision.FileDescriptor, write: Supervision.FileDescriptor)

    init() throws {
        let signals = SignalSource.stopSignals
        descriptor = cps_signalfd(signals, signals.count)
        guard descriptor >= 0 else { throw SupervisionError(.failure, "signalfd: \(describeErrno(errno))") }
        wake = try Supervision.FileDescriptor.pipe()
        // A reader that is gone must not kill the program before it has cleaned up.
        signal(SIGPIPE, SIG_IGN)
    }

    func check() throws {
        let signal = cps_next_signal(descriptor)
        if signal != 0 { throw Interrupted(signal: signal) }
    }

    /// Offers load until its last answer, which nothing else waits for.
    /// - Parameter tick: is told how far it is.
    func result(
        of plan: LoadPlan, for target: LoadTarget, from generator: LoadGenerator, tick: ((Double) -> Void)? = nil
    ) throws -> LoadResult {
        try result(of: wait(for: generator.prepare(plan, for: target)), tick: tick)
    }

    func result(of prepared: LoadGenerator.Prepared, tick: ((Double) -> Void)? = nil) throws -> LoadResult {
        prepared.start()
        return try wait(for: prepared.result) { tick?(prepared.meter.fraction) }
    }

    func sleep(_ duration: Duration) throws {
        let deadline = ContinuousClock.now + duration
        repeat { try wait(until: deadline, and: -1) } while ContinuousClock.now < deadline
    }

    /// - Parameter tick: called a few times a second meanwhile.
    func wait<Value: Sendable>(for future: EventLoopFuture<Value>, tick: (() -> Void)? = nil) throws -> Value {
        let end = wake.write.rawValue
        future.whenComplete { _ in
            var byte: UInt8 = 1
            _ = write(end, &byte, 1)
        }
        while try !wait(until: tick.map { _ in .now + .milliseconds(200) }, and: wake.read.rawValue) { tick?() }
        var byte: UInt8 = 0
        _ = read(wake.read.rawValue, &byte, 1)
        return try future.wait()
    }

    /// Whether the descriptor has become readable.
    @discardableResult
    private func wait(until deadline: ContinuousClock.Instant?, and other: Int32) throws -> Bool {
        var entries = [
            pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: other, events: Int16(POLLIN), revents: 0),
        ]
        let milliseconds =
            deadline.map { deadline -> Int32 in
                let left: Duration = deadline - ContinuousClock.now
                return Int32(
                    clamping: left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000 + 1)
            } ?? -1
        poll(&entries, 2, max(milliseconds, deadline == nil ? -1 : 0))
        try check()
        return entries[1].revents != 0
    }
}
