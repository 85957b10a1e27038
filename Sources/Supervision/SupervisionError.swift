/// Exit codes of `vllm-engine`. The cause is always the last line on standard error.
package enum ExitCode: Int32, Sendable, CaseIterable {
    /// Stopped by SIGTERM, SIGINT or SIGHUP and every child ended by itself in time.
    case success = 0
    /// A child died, or something failed, while the service was running.
    case failure = 1
    /// Wrong command line or configuration; nothing was started.
    case usage = 2
    /// The HTTP address could not be bound, for example because another process serves it.
    case addressInUse = 3
    /// The engine or the frontend failed before the service was ready.
    case startupFailure = 4
    /// Stopped by a signal, but a child had to be killed: it ignored a second signal, or the grace period ran out.
    case killed = 5

    package var meaning: String {
        switch self {
        case .success: "stopped by SIGTERM, SIGINT or SIGHUP; every child ended by itself"
        case .failure: "a child died, or something failed, while serving"
        case .usage: "wrong command line or configuration; nothing was started"
        case .addressInUse: "the HTTP address cannot be bound (in use, not local, no permission)"
        case .startupFailure: "engine or frontend failed before the service was ready"
        case .killed: "stopped by a signal, but a child that did not end had to be killed"
        }
    }
}

/// What went wrong in the supervisor, with the exit code it leads to.
package struct SupervisionError: Error, CustomStringConvertible, Sendable {
    package let code: ExitCode
    package let message: String

    package init(_ code: ExitCode, _ message: String) {
        self.code = code
        self.message = message
    }

    package var description: String { message }
}
