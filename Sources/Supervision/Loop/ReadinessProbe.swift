import Glibc

/// Asks the frontend's `/health` until it answers 200. The only way to know that a frontend is ready, as in vLLM.
package final class ReadinessProbe {
    private static let request = Array("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".utf8)
    private static let statusLine = Array("HTTP/1.1 200".utf8)

    private let listener: HTTPListener
    private let loop: EventLoop
    private let encrypted: Bool
    private let isComplete: () -> Bool
    private let onReady: () -> Void
    private var connection: FileDescriptor?
    private var answer: [UInt8] = []
    private var timer: EventLoop.TimerID?
    /// Set from outside once asking makes sense.
    package var isEnabled = false

    /// - Parameter encrypted: the frontend speaks TLS; then listening is all that can be seen from here.
    /// - Parameter isComplete: asked after a good answer: it may have come from one of several frontends.
    package init(
        _ listener: HTTPListener, loop: EventLoop, encrypted: Bool, isComplete: @escaping () -> Bool = { true },
        onReady: @escaping () -> Void
    ) {
        self.isComplete = isComplete
        self.listener = listener
        self.loop = loop
        self.encrypted = encrypted
        self.onReady = onReady
        tick()
    }

    deinit { stop() }

    package func stop() {
        loop.cancel(timer)
        timer = nil
        disconnect()
    }

    private func disconnect() {
        if let connection { loop.unwatch(connection.rawValue) }
        connection = nil
        answer.removeAll()
    }

    private func retry(after delay: Duration = .milliseconds(20)) {
        disconnect()
        timer = loop.schedule(after: delay) { [unowned self] in tick() }
    }

    private func tick() {
        guard listener.descriptor.isOpen else { return }
        guard listener.isListening else { return retry(after: .milliseconds(10)) }
        guard isEnabled else { return retry() }
        if encrypted { return succeed() }
        guard let socket = try? makeStreamSocket(listener.probeAddress.family, nonBlocking: true) else {
            return retry(after: .seconds(1))
        }
        connection = socket
        let status = listener.probeAddress.withPointer { connect(socket.rawValue, $0, $1) }
        guard status == 0 || errno == EINPROGRESS else { return retry() }
        loop.watch(socket.rawValue, for: POLLOUT) { [unowned self] in sendRequest() }
        // A frontend that accepts but does not answer is asked again on a new connection.
        timer = loop.schedule(after: .seconds(2)) { [unowned self] in retry() }
    }

    private func sendRequest() {
        guard let connection else { return }
        loop.cancel(timer)
        let count = send(connection.rawValue, Self.request, Self.request.count, Int32(MSG_NOSIGNAL))
        guard count == Self.request.count else { return retry() }
        loop.watch(connection.rawValue) { [unowned self] in readAnswer() }
        timer = loop.schedule(after: .seconds(2)) { [unowned self] in retry() }
    }

    private func readAnswer() {
        guard let connection else { return }
        var chunk = [UInt8](repeating: 0, count: 256)
        let count = recv(connection.rawValue, &chunk, chunk.count, 0)
        if count > 0 {
            answer += chunk[..<count]
            if answer.count < Self.statusLine.count { return }
            if answer.starts(with: Self.statusLine) { return succeed() }
        } else if count < 0, errno == EAGAIN {
            return
        }
        loop.cancel(timer)
        retry(after: .milliseconds(50))
    }

    private func succeed() {
        loop.cancel(timer)
        guard isComplete() else { return retry() }
        stop()
        onReady()
    }
}
