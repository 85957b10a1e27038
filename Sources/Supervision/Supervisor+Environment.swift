import Glibc
import Logging

/// What the supervisor does for, and takes from, those around it: service manager, kernel limits, the frontend's report.
extension Supervisor {
    func feedWatchdog() {
        guard let interval = ServiceNotifier.watchdogInterval() else { return }
        notifier.alive()
        loop.schedule(after: interval) { [unowned self] in feedWatchdog() }
    }

    /// For the frontend's `/health/startup`: when this process began on the monotonic clock, and its milestones.
    var startupReport: String {
        let begin = ProcessInfo.monotonicSeconds() - (ContinuousClock.now - start).inSeconds
        return (["\(begin)"] + milestones.map { "\($0.name)=\($0.after.inSeconds)" }).joined(separator: " ")
    }

    /// A server needs a descriptor per connection; vLLM asks for 65535 too.
    func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < 65535 else {
            return
        }
        limit.rlim_cur = min(65535, limit.rlim_max)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// SIGQUIT and SIGUSR1.
    func dumpState() {
        logger.info("State: \(state), up \(milliseconds(ContinuousClock.now - start)) ms")
        for child in children {
            logger.info("\(child.name) pid \(child.process.pid): \(child.process.exitDescription)")
        }
    }
}
