import CProcessShims
import Glibc

/// Signals as loop events. Create it before any other thread exists: the signals are blocked from then on, and new
/// threads inherit the mask. Children start with an empty mask.
package final class SignalSource {
    private let descriptor: FileDescriptor
    private let loop: EventLoop
    /// Stop requests in the order they came: SIGTERM, SIGINT, SIGHUP.
    package private(set) var stopRequests: [Int32] = []
    /// Called for SIGCHLD: some child ended, maybe one we inherited.
    package var onChildExit: (() -> Void)?
    /// Called for SIGQUIT and SIGUSR1: print the state.
    package var onDump: (() -> Void)?

    /// What asks for a stop. A SIGHUP that is ignored from the start is to stay ignored: that is what nohup is for.
    package static let stopSignals: [Int32] = {
        var hangUp = sigaction()
        let isKnown = sigaction(SIGHUP, nil, &hangUp) == 0
        let isIgnored =
            isKnown
            && unsafeBitCast(hangUp.__sigaction_handler.sa_handler, to: Int.self)
                == unsafeBitCast(SIG_IGN, to: Int.self)
        return [SIGTERM, SIGINT] + (isIgnored ? [] : [SIGHUP])
    }()

    package init(loop: EventLoop) throws {
        self.loop = loop
        // Writing to a client or log reader that is gone is an error code, not a reason to die.
        Glibc.signal(SIGPIPE, SIG_IGN)
        let signals = Self.stopSignals + [SIGCHLD, SIGQUIT, SIGUSR1]
        descriptor = FileDescriptor(owning: cps_signalfd(signals, signals.count))
        guard descriptor.isOpen else {
            throw SupervisionError(.failure, "cannot create a signalfd: \(describeErrno(errno))")
        }
        loop.watch(descriptor.rawValue) { [unowned self] in drain() }
    }

    deinit { loop.unwatch(descriptor.rawValue) }

    package var stopRequested: Bool { !stopRequests.isEmpty }

    /// A stop that was asked for by other means than a signal counts as SIGTERM.
    package func requestStop() { stopRequests.append(SIGTERM) }

    private func drain() {
        while true {
            switch cps_next_signal(descriptor.rawValue) {
            case 0: return
            case SIGCHLD: onChildExit?()
            case SIGQUIT, SIGUSR1: onDump?()
            case let signal: stopRequests.append(signal)
            }
        }
    }
}
