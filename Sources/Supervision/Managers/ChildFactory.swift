import Glibc
import Logging

/// One child with the log it writes.
package final class SupervisedProcess {
    package let process: SubprocessWrapper
    package let log: ChildLog
    package let startedAt = ContinuousClock.now

    init(process: SubprocessWrapper, log: ChildLog) {
        self.process = process
        self.log = log
    }

    package var name: String { process.name }
}

/// Starts children of one supervisor: marked, logged, tied to its life.
package final class ChildFactory {
    package let loop: EventLoop
    package let logger: Logger
    private let orphanGuard: OrphanGuard
    private let output: LogOutput

    package init(loop: EventLoop, orphanGuard: OrphanGuard, logger: Logger, output: LogOutput = .standardError) {
        self.loop = loop
        self.orphanGuard = orphanGuard
        self.logger = logger
        self.output = output
    }

    /// The read end of the death pipe: give it to children that watch it.
    package var deathDescriptor: Int32 { orphanGuard.deathPipe.rawValue }

    /// Starts the child with its standard streams on a log pipe.
    package func start(_ request: SpawnRequest) throws -> SupervisedProcess {
        let log = try ChildLog(name: request.name, loop: loop, output: output)
        var request = request
        request.standardOutput = log.childEnd
        request.standardError = log.childEnd
        orphanGuard.mark(&request.environment)
        let process = try SubprocessWrapper(request)
        log.spawned(pid: process.pid)
        // Without a handler: waking up is enough, whoever waits looks at the processes itself.
        return SupervisedProcess(process: process, log: log)
    }
}
