import Glibc
import NIOCore
import NIOPosix

/// CLOCK_MONOTONIC, the clock of the engine's stamps.
package func monotonicNanoseconds() -> Nanoseconds {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Nanoseconds(time.tv_sec) * 1_000_000_000 + Nanoseconds(time.tv_nsec)
}

/// Offers load to one server at a time, from one thread.
package final class LoadGenerator: Sendable {
    private let group: MultiThreadedEventLoopGroup
    private let loop: any EventLoop

    package init() {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = group.next()
    }

    /// A block that is ready to start: its connections are open.
    package struct Prepared: Sendable {
        fileprivate let run: NIOLoopBound<LoadRun>
        fileprivate let loop: any EventLoop
        let result: EventLoopFuture<LoadResult>
        let meter: LoadMeter

        /// Sends the first request; `result` follows.
        func start() { loop.execute { run.value.start() } }
        /// Ends it at once.
        func cancel() { loop.execute { run.value.cancel() } }
    }

    package func prepare(_ plan: LoadPlan, for target: LoadTarget) -> EventLoopFuture<Prepared> {
        let loop = loop
        return loop.flatSubmit {
            let done = loop.makePromise(of: LoadResult.self)
            let run = LoadRun(plan: plan, target: target, loop: loop, done: done)
            let opened = loop.makePromise(of: Void.self)
            let prepared = Prepared(
                run: NIOLoopBound(run, eventLoop: loop), loop: loop, result: done.futureResult, meter: run.meter)
            opened.futureResult.whenFailure { _ in prepared.cancel() }
            run.open(opened)
            return opened.futureResult.map { prepared }
        }
    }

    package func shutdown() { try? group.syncShutdownGracefully() }
}

/// The records of one block of load.
package struct BlockOfAnswers: Sendable {
    /// By place in the schedule.
    package var requests: [RequestRecord]
    package var start: Nanoseconds
    package var end: Nanoseconds
    package var lateness: ClientLateness
    package var retries: Int

    /// - Parameter latenessLimit: what counts as late.
    init(_ result: LoadResult, arm: Int, block: Int, keepsText: Bool, latenessLimit: Nanoseconds = .max) {
        requests = result.answers.map { RequestRecord($0, arm: arm, block: block, keepsText: keepsText) }
        requests.sort { $0.index < $1.index }
        start = result.start
        end = result.end
        retries = result.retries
        let sorted = result.lateness.sorted()
        func rank(_ fraction: Double) -> Nanoseconds {
            sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(fraction * Double(sorted.count)))]
        }
        lateness = ClientLateness(
            p50: rank(0.5), p99: rank(0.99), highest: sorted.last ?? 0, samples: sorted.count,
            late: sorted.count { $0 > latenessLimit })
    }
}

extension LoadGenerator {
    /// Runs a whole block on behalf of a thread that has nothing else to do.
    /// - Throws: when the connections that shall be open before the start cannot be opened.
    package func run(
        _ plan: LoadPlan, for target: LoadTarget, arm: Int, block: Int, keepsText: Bool = true
    ) throws -> BlockOfAnswers {
        let prepared = try prepare(plan, for: target).wait()
        prepared.start()
        return BlockOfAnswers(try prepared.result.wait(), arm: arm, block: block, keepsText: keepsText)
    }
}
