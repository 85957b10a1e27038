import Glibc

/// Turns signals and other threads' news into bytes that the main thread waits for.
///
/// A signal handler may do next to nothing; writing one byte to a pipe is allowed.
package final class SignalPipe: Sendable {
    package enum Event: UInt8, Sendable {
        /// SIGTERM or SIGINT.
        case stop = 1
        /// The engine client gave up before it was ever ready.
        case startupFailed
        /// Something that is waited for may have changed.
        case wakeUp
        /// SIGUSR1: finish what is running, however long it takes, refuse what is new, then stop.
        case drain
        /// SIGUSR2: another process serves this socket from now on; answer what is connected, then stop.
        case handOver
        /// The watchdog found the engine dead.
        case engineDead
    }

    private let readEnd: Int32
    private let writeEnd: Int32

    nonisolated(unsafe) private static var handlerDescriptor: Int32 = -1

    package init() throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw ServerSetupError("pipe: \(String(cString: strerror(errno)))") }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        readEnd = ends[0]
        writeEnd = ends[1]
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    /// From now on SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 are events of this pipe; a broken pipe is an error of the call and no
    /// signal.
    package func catchSignals() {
        Self.handlerDescriptor = writeEnd
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { signal in
            let saved = errno
            var byte =
                switch signal {
                case SIGUSR1: Event.drain.rawValue
                case SIGUSR2: Event.handOver.rawValue
                default: Event.stop.rawValue
                }
            _ = write(SignalPipe.handlerDescriptor, &byte, 1)
            errno = saved
        }
        action.sa_flags = SA_RESTART
        sigaction(SIGTERM, &action, nil)
        sigaction(SIGINT, &action, nil)
        sigaction(SIGUSR1, &action, nil)
        sigaction(SIGUSR2, &action, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    package func post(_ event: Event) {
        var byte = event.rawValue
        _ = write(writeEnd, &byte, 1)
    }

    /// Waits for the next event; nil after `milliseconds` (nil = for ever).
    package func next(milliseconds: Int32?) -> Event? {
        var entry = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
        while true {
            let count = poll(&entry, 1, milliseconds ?? -1)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return nil }
            var byte: UInt8 = 0
            if read(readEnd, &byte, 1) == 1, let event = Event(rawValue: byte) { return event }
        }
    }
}

/// Ends the process when the other end of an inherited pipe is closed: the supervisor is gone, however it died.
enum DeathPipe {
    static func watch(_ descriptor: Int32) throws {
        guard fcntl(descriptor, F_GETFD) >= 0 else {
            throw ServerSetupError("VLLM_ENGINE_DEATH_FD=\(descriptor) is not an open descriptor")
        }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        var thread = pthread_t()
        let argument = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
        argument.initialize(to: descriptor)
        let result = pthread_create(
            &thread, nil,
            { raw in
                let argument = raw!.assumingMemoryBound(to: Int32.self)
                let descriptor = argument.pointee
                argument.deallocate()
                var byte: UInt8 = 0
                while true {
                    let count = read(descriptor, &byte, 1)
                    if count == 0 { _exit(1) }
                    if count < 0 {
                        if errno == EAGAIN {
                            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                            poll(&entry, 1, -1)
                        } else if errno != EINTR {
                            return nil
                        }
                    }
                }
            }, argument)
        guard result == 0 else {
            argument.deallocate()
            throw ServerSetupError("pthread_create: \(String(cString: strerror(result)))")
        }
        pthread_detach(thread)
    }
}
