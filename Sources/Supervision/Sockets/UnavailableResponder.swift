import Glibc

/// Answers 503 on the HTTP socket while no frontend does it, so that clients neither hang nor are refused.
///
/// For the short time in which a foreign frontend is replaced together with its engine, and while one that was told to
/// stop finishes its requests: it does not accept any more then. It reads no more than a request's
/// head, and a bounded number of clients at once; the others wait in the socket's backlog.
package final class UnavailableResponder {
    private static let mostConnections = 128
    private static let mostHeadBytes = 64 * 1024
    private static let patience = Duration.seconds(2)

    package enum Reason: String {
        case engineIsRestarted = "The engine has died and is being restarted."
        case shuttingDown = "The server is shutting down."

        fileprivate var answer: [UInt8] {
            let body =
                #"{"error":{"message":"\#(rawValue)","type":"ServiceUnavailableError","param":null,"code":503}}"#
            return Array(
                ("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
                    + "Connection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n" + body).utf8)
        }
    }

    private final class Connection {
        let socket: FileDescriptor
        var received = 0
        /// The last bytes, in which the end of the head is looked for.
        var tail: [UInt8] = []
        var isAnswered = false
        var timer: EventLoop.TimerID?

        init(_ socket: FileDescriptor) { self.socket = socket }
    }

    private let listener: HTTPListener
    private let loop: EventLoop
    private let answer: [UInt8]
    private var connections: [Int32: Connection] = [:]
    private var isOpen = true
    private var isAccepting = false

    package init(_ listener: HTTPListener, _ reason: Reason, loop: EventLoop) {
        self.listener = listener
        answer = reason.answer
        self.loop = loop
        let descriptor = listener.descriptor.rawValue
        // Every frontend does the same: another process may accept first.
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        resume()
    }

    deinit {
        close()
        for descriptor in Array(connections.keys) { drop(descriptor) }
    }

    /// Accepts no more; clients whose request is being read still get their answer.
    package func close() {
        isOpen = false
        pause()
    }

    /// As ``close()``, and gives the socket up.
    package func end() {
        close()
        listener.close()
    }

    private func resume() {
        guard isOpen, !isAccepting, listener.descriptor.isOpen, connections.count < Self.mostConnections else { return }
        isAccepting = true
        loop.watch(listener.descriptor.rawValue) { [unowned self] in acceptAll() }
    }

    private func pause() {
        if isAccepting { loop.unwatch(listener.descriptor.rawValue) }
        isAccepting = false
    }

    private func acceptAll() {
        while isAccepting {
            let accepted = accept(listener.descriptor.rawValue, nil, nil)
            guard accepted >= 0 else {
                if errno == EINTR || errno == ECONNABORTED { continue }
                if errno != EAGAIN {
                    // No descriptors left: without a pause this would be a busy loop.
                    pause()
                    loop.schedule(after: .milliseconds(50)) { [weak self] in self?.resume() }
                }
                return
            }
            // Children are started on this thread only, so nobody inherits it in between.
            _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
            _ = fcntl(accepted, F_SETFL, O_NONBLOCK)
            let connection = Connection(FileDescriptor(owning: accepted))
            connections[accepted] = connection
            connection.timer = loop.schedule(after: Self.patience) { [weak self] in self?.drop(accepted) }
            loop.watch(accepted) { [unowned self] in read(accepted) }
            if connections.count >= Self.mostConnections { pause() }
        }
    }

    private func read(_ descriptor: Int32) {
        guard let connection = connections[descriptor] else { return }
        var chunk = [UInt8](repeating: 0, count: 16 * 1024)
        let count = recv(descriptor, &chunk, chunk.count, 0)
        guard count > 0 else {
            if count == 0 || (errno != EAGAIN && errno != EINTR) { drop(descriptor) }
            return
        }
        guard !connection.isAnswered else { return }
        connection.received += count
        connection.tail = Array((connection.tail + chunk[..<count]).suffix(count + 3))
        let isComplete = Self.endsHead(connection.tail)
        connection.tail = Array(connection.tail.suffix(3))
        guard isComplete || connection.received > Self.mostHeadBytes else { return }
        connection.isAnswered = true
        _ = send(descriptor, answer, answer.count, Int32(MSG_NOSIGNAL))
        // The client may still be sending its body; closing now could destroy the answer on its way.
        shutdown(descriptor, Int32(SHUT_WR))
    }

    private static func endsHead(_ bytes: [UInt8]) -> Bool {
        let end: [UInt8] = [13, 10, 13, 10]
        guard bytes.count >= end.count else { return false }
        return (0...(bytes.count - end.count)).contains { bytes[$0..<($0 + end.count)].elementsEqual(end) }
    }

    private func drop(_ descriptor: Int32) {
        guard let connection = connections.removeValue(forKey: descriptor) else { return }
        loop.cancel(connection.timer)
        loop.unwatch(descriptor)
        connection.socket.close()
        resume()
    }
}
