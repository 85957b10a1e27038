import CZeroMQ
import Glibc

/// One libzmq socket. **It belongs to one thread at a time**: it may be created on one thread and handed to another
/// (starting a thread is the needed fence), but never be used by two. That is why it is not `Sendable`.
///
/// `close()` or the last release closes it; pending outgoing messages live on for the linger time.
package final class ZMQSocket {
    package enum Kind: Sendable {
        case dealer, router, push, pull, xpub, xsub

        var rawValue: Int32 {
            switch self {
            case .dealer: ZMQ_DEALER
            case .router: ZMQ_ROUTER
            case .push: ZMQ_PUSH
            case .pull: ZMQ_PULL
            case .xpub: ZMQ_XPUB
            case .xsub: ZMQ_XSUB
            }
        }
    }

    package let context: ZMQContext
    private var storage: UnsafeMutableRawPointer?
    private var adoptedDescriptor = false
    private var isBound = false
    /// Whether the socket was used since it was last found empty: its descriptor may have nothing to say then.
    private(set) var mayHaveInput = true

    package init(_ kind: Kind, context: ZMQContext) throws(ZMQError) {
        guard let handle = zmq_socket(context.handle, kind.rawValue) else { throw .last("create \(kind) socket") }
        self.context = context
        storage = handle
    }

    deinit { close() }

    /// Closes the socket; later calls on it throw `ENOTSOCK`.
    package func close() {
        if let handle = storage { zmq_close(handle) }
        storage = nil
    }

    package var isClosed: Bool { storage == nil }

    func handle(_ operation: @autoclosure () -> String) throws(ZMQError) -> UnsafeMutableRawPointer {
        guard let handle = storage else { throw ZMQError(code: ENOTSOCK, operation: operation()) }
        return handle
    }

    // MARK: - Endpoints

    /// Binds to `tcp://host:port` or `ipc://path`.
    ///
    /// After ``adopt(listener:)`` a second bind is refused here: libzmq accepts it and aborts the process later.
    package func bind(_ endpoint: String) throws(ZMQError) {
        let handle = try handle("bind \(endpoint)")
        if adoptedDescriptor && isBound {
            throw ZMQError(code: EINVAL, operation: "second bind of an adopted listener")
        }
        guard zmq_bind(handle, endpoint) == 0 else { throw .last("bind \(endpoint)") }
        isBound = true
    }

    package func connect(_ endpoint: String) throws(ZMQError) {
        guard zmq_connect(try handle("connect \(endpoint)"), endpoint) == 0 else {
            throw .last("connect \(endpoint)")
        }
    }

    /// Takes over a bound and listening stream socket (tcp or unix) and accepts connections from it. libzmq owns the
    /// descriptor from here on. Call it once, instead of ``bind(_:)``; a unix socket's path is never removed.
    /// - Returns: the endpoint that peers connect to.
    @discardableResult
    package func adopt(listener descriptor: Int32) throws(ZMQError) -> String {
        if isBound { throw ZMQError(code: EINVAL, operation: "adopt a listener on a bound socket") }
        let endpoint = try ZMQEndpoint.ofListener(descriptor)
        // accept() must not block the I/O thread when a queued connection vanishes.
        let flags = fcntl(descriptor, F_GETFL)
        guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0 else {
            throw ZMQError(code: errno, operation: "make listener \(descriptor) non-blocking")
        }
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        try set(ZMQ_USE_FD, descriptor, "USE_FD")
        adoptedDescriptor = true
        try bind(endpoint)
        return endpoint
    }

    /// The endpoint last bound, with the real port of `tcp://host:0` or `tcp://host:*`.
    package func lastEndpoint() throws(ZMQError) -> String {
        let handle = try handle("LAST_ENDPOINT")
        return try withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer throws(ZMQError) in
            var size = buffer.count
            guard zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, buffer.baseAddress, &size) == 0 else {
                throw .last("LAST_ENDPOINT")
            }
            return String(decoding: buffer[..<Swift.max(0, size - 1)], as: UTF8.self)
        }
    }

    // MARK: - Options (set them before bind and connect unless noted)

    /// Milliseconds that unsent messages survive ``close()``; -1 = forever. May be set at any time.
    package func setLinger(milliseconds: Int32) throws(ZMQError) { try set(ZMQ_LINGER, milliseconds, "LINGER") }

    /// Messages queued per connection before receiving stops; 0 = unlimited.
    package func setReceiveHighWaterMark(_ count: Int32) throws(ZMQError) { try set(ZMQ_RCVHWM, count, "RCVHWM") }

    /// Messages queued per connection before sending blocks; 0 = unlimited.
    package func setSendHighWaterMark(_ count: Int32) throws(ZMQError) { try set(ZMQ_SNDHWM, count, "SNDHWM") }

    /// A new connection with a known identity replaces the old one instead of being ignored.
    package func setRouterHandover(_ on: Bool) throws(ZMQError) {
        try set(ZMQ_ROUTER_HANDOVER, on ? 1 : 0, "ROUTER_HANDOVER")
    }

    package func setXPUBVerbose(_ on: Bool) throws(ZMQError) { try set(ZMQ_XPUB_VERBOSE, on ? 1 : 0, "XPUB_VERBOSE") }
    package func setIPv6(_ on: Bool) throws(ZMQError) { try set(ZMQ_IPV6, on ? 1 : 0, "IPV6") }

    /// Milliseconds that a blocking receive waits; -1 = forever. May be set at any time.
    package func setReceiveTimeout(milliseconds: Int32) throws(ZMQError) {
        try set(ZMQ_RCVTIMEO, milliseconds, "RCVTIMEO")
    }

    /// Largest incoming frame in bytes; a peer that sends more is disconnected. -1 = unlimited.
    package func setMaximumMessageSize(bytes: Int64) throws(ZMQError) {
        var value = bytes
        guard zmq_setsockopt(try handle("MAXMSGSIZE"), ZMQ_MAXMSGSIZE, &value, MemoryLayout<Int64>.size) == 0 else {
            throw .last("MAXMSGSIZE")
        }
    }

    /// The identity that a ROUTER peer sees; 1...255 bytes.
    package func setIdentity(_ identity: [UInt8]) throws(ZMQError) {
        guard zmq_setsockopt(try handle("ROUTING_ID"), ZMQ_ROUTING_ID, identity, identity.count) == 0 else {
            throw .last("ROUTING_ID")
        }
    }

    private func set(_ option: Int32, _ value: Int32, _ name: String) throws(ZMQError) {
        var value = value
        guard zmq_setsockopt(try handle(name), option, &value, MemoryLayout<Int32>.size) == 0 else { throw .last(name) }
    }

    // MARK: - Monitoring

    // MARK: - Polling

    /// Readable when the state of the socket may have changed; ask ``checkInput()`` then.
    func pollDescriptor() throws(ZMQError) -> Int32 {
        var value: Int32 = 0
        var size = MemoryLayout<Int32>.size
        guard zmq_getsockopt(try handle("FD"), ZMQ_FD, &value, &size) == 0 else { throw .last("FD") }
        return value
    }

    /// Whether a message can be received.
    func checkInput() throws(ZMQError) -> Bool {
        var value: Int32 = 0
        var size = MemoryLayout<Int32>.size
        guard zmq_getsockopt(try handle("EVENTS"), ZMQ_EVENTS, &value, &size) == 0 else { throw .last("EVENTS") }
        mayHaveInput = value & Int32(ZMQ_POLLIN) != 0
        return mayHaveInput
    }

    // MARK: - Sending

    /// Sends one frame. A multipart message is sent as a whole or not at all.
    /// - Parameters:
    ///   - more: further frames of the same message follow.
    ///   - wait: false throws (EAGAIN) instead of blocking.
    package func send(_ bytes: UnsafeRawBufferPointer, more: Bool = false, wait: Bool = false) throws(ZMQError) {
        let handle = try handle("send")
        mayHaveInput = true
        let flags = (more ? ZMQ_SNDMORE : 0) | (wait ? 0 : ZMQ_DONTWAIT)
        while zmq_send(handle, bytes.baseAddress, bytes.count, flags) < 0 {
            if zmq_errno() != EINTR { throw .last("send") }
        }
    }

    package func send(_ bytes: [UInt8], more: Bool = false, wait: Bool = false) throws(ZMQError) {
        try bytes.withUnsafeBufferPointer { buffer throws(ZMQError) in
            try send(UnsafeRawBufferPointer(buffer), more: more, wait: wait)
        }
    }

    package func send(frames: [[UInt8]], wait: Bool = false) throws(ZMQError) {
        for (index, frame) in frames.enumerated() {
            try send(frame, more: index + 1 < frames.count, wait: wait)
        }
    }

    /// Sends a message without copying its bytes; it is consumed even when sending fails.
    package func send(_ message: consuming ZMQMessage, more: Bool = false, wait: Bool = false) throws(ZMQError) {
        let handle = try handle("send")
        mayHaveInput = true
        let flags = (more ? ZMQ_SNDMORE : 0) | (wait ? 0 : ZMQ_DONTWAIT)
        while zmq_msg_send(&message.raw, handle, flags) < 0 {
            if zmq_errno() != EINTR { throw .last("send") }
        }
    }

    // MARK: - Receiving

    /// Receives one whole multipart message into `frames`, whose former content is dropped.
    /// - Returns: false when nothing is there (`wait` false or the receive timeout passed).
    package func receive(into frames: ZMQFrames, wait: Bool = false) throws(ZMQError) -> Bool {
        let handle = try handle("receive")
        frames.removeAll()
        mayHaveInput = true
        var flags = wait ? 0 : ZMQ_DONTWAIT
        while true {
            let slot = frames.append()
            var result = zmq_msg_recv(slot, handle, flags)
            while result < 0 && zmq_errno() == EINTR { result = zmq_msg_recv(slot, handle, flags) }
            if result < 0 {
                let code = zmq_errno()
                frames.removeAll()
                if code == EAGAIN {
                    mayHaveInput = false
                    return false
                }
                throw ZMQError(code: code, operation: "receive")
            }
            if zmq_msg_more(slot) == 0 { return true }
            // libzmq delivers multipart messages atomically: the rest is there.
            flags = 0
        }
    }

    /// Receives one frame; nil when nothing is there.
    package func receive(wait: Bool = false) throws(ZMQError) -> ZMQMessage? {
        let handle = try handle("receive")
        mayHaveInput = true
        var message = ZMQMessage()
        while zmq_msg_recv(&message.raw, handle, wait ? 0 : ZMQ_DONTWAIT) < 0 {
            switch zmq_errno() {
            case EINTR: continue
            case EAGAIN: return nil
            default: throw .last("receive")
            }
        }
        return message
    }

    /// Receives one multipart message as copied arrays: for control traffic and tests.
    package func receiveFrames(wait: Bool = false) throws(ZMQError) -> [[UInt8]]? {
        let frames = ZMQFrames()
        guard try receive(into: frames, wait: wait) else { return nil }
        return (0..<frames.count).map { [UInt8](frames[$0]) }
    }
}
