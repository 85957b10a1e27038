import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Testing
import ZMTP
import ZeroMQ

/// What a socket hands out, as values.
private final class Log: Sendable {
    enum Entry: Equatable, Sendable {
        case opened([UInt8])
        case message([[UInt8]])
        case readComplete
        case violation(String)
        case caughtUp([UInt8])
    }

    private let stream: AsyncStream<Entry>
    private let continuation: AsyncStream<Entry>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream() }

    func attach(_ socket: ZMTPSocket) {
        let continuation = continuation
        socket.onOpen = { continuation.yield(.opened($0.identity)) }
        socket.onMessage = { message, _ in
            continuation.yield(.message((0..<message.count).map { Array(message[$0]) }))
        }
        socket.onReadComplete = { continuation.yield(.readComplete) }
        socket.onCaughtUp = { continuation.yield(.caughtUp($0)) }
        socket.onViolation = { continuation.yield(.violation($0)) }
    }

    func next() async -> Entry? {
        for await entry in stream { return entry }
        return nil
    }

    /// The next message, whatever else comes before it.
    func nextMessage() async -> [[UInt8]]? {
        for await entry in stream {
            if case .message(let frames) = entry { return frames }
        }
        return nil
    }

    func nextViolation() async -> String? {
        for await entry in stream {
            if case .violation(let problem) = entry { return problem }
        }
        return nil
    }
}

/// A socket on a path of its own.
private final class Bench: Sendable {
    let path: String
    let socket: ZMTPSocket
    let log = Log()
    var address: String { "ipc://\(path)" }

    init(
        _ kind: ZMTPSocket.Kind, limit: Int64 = 1 << 30, queue: Int = 1 << 28,
        origin: ((String) -> ZMTPSocket.Origin)? = nil
    ) async throws {
        var template = Array("/tmp/zmtp-XXXXXX".utf8CString)
        path = String(cString: mkdtemp(&template)) + "/s"
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        socket = ZMTPSocket(kind, on: loop, maximumMessageSize: limit, maximumQueuedBytes: queue)
        try await loop.submit { [log, socket] in log.attach(socket) }.get()
        if kind != .xsub {
            let bound = try socket.open(origin?(path) ?? .bind(address))
            if origin == nil { #expect(bound == address) }
        }
    }

    func onLoop<Result: Sendable>(_ body: @escaping @Sendable (ZMTPSocket) throws -> Result) async throws -> Result {
        let socket = socket
        return try await socket.eventLoop.submit { try body(socket) }.get()
    }

    func close() async throws {
        try await onLoop { $0.close() }
        unlink(path)
        rmdir(String(path.dropLast(2)))
    }
}

/// A peer whose bytes a test writes down.
private struct RawPeer {
    let descriptor: Int32

    init(_ path: String) {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        precondition(status == 0, "connect: errno \(errno)")
        // A missing answer is a failure, not a test that never ends.
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    func write(_ bytes: [UInt8]) { #expect(send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count) }

    /// - Returns: fewer bytes if the other side closed.
    func read(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let got = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + done, count - done, 0) }
            if got <= 0 { break }
            done += got
        }
        return Array(bytes[..<done])
    }

    func close() { Glibc.close(descriptor) }

    static func greeting(major: UInt8 = 3, mechanism: String = "NULL") -> [UInt8] {
        [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, major, 1] + Array(mechanism.utf8)
            + [UInt8](repeating: 0, count: 52 - mechanism.utf8.count)
    }

    /// Everything before the first message of a PUSH socket.
    static let open = greeting() + ready("PUSH")

    static func ready(_ type: String, identity: [UInt8] = []) -> [UInt8] {
        var body = Array("\u{5}READY\u{b}Socket-Type".utf8) + [0, 0, 0, UInt8(type.utf8.count)] + Array(type.utf8)
        body += Array("\u{8}Identity".utf8) + [0, 0, 0, UInt8(identity.count)] + identity
        return [4, UInt8(body.count)] + body
    }
}

/// Against libzmq, and against bytes that libzmq would not send.
@Suite(.timeLimit(.minutes(10))) struct ZMTPSocketTests {
    // MARK: - libzmq on the other side

    @Test func messagesOfAPushSocket() async throws {
        let bench = try await Bench(.pull)
        let peer = try ZMQSocket(.push, context: ZMQContext())
        try peer.connect(bench.address)
        let large = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0) }
        let messages: [[[UInt8]]] = [[[1]], [[]], [[], [2], large, [3]], [[UInt8](repeating: 4, count: 256)], [large]]
        for message in messages { try peer.send(frames: message, wait: true) }
        for message in messages { #expect(await bench.log.nextMessage() == message) }
        try await bench.close()
    }

    @Test func aRouterTalksToDealersByName() async throws {
        let bench = try await Bench(.router)
        let context = try ZMQContext()
        let dealers = try [[0, 0], [1, 0]].map { (identity: [UInt8]) in
            let dealer = try ZMQSocket(.dealer, context: context)
            try dealer.setIdentity(identity)
            try dealer.setReceiveTimeout(milliseconds: 20_000)
            try dealer.connect(bench.address)
            try dealer.send(identity + [9])
            return dealer
        }
        let messages = [await bench.log.nextMessage(), await bench.log.nextMessage()]
        #expect(Set(messages) == [[[0, 0, 9]], [[1, 0, 9]]])
        let long = [UInt8](repeating: 7, count: 100_000)
        let sent = try await bench.onLoop { socket in
            let results = [[1, 0], [0, 0], [2, 0], []].map { (identity: [UInt8]) in
                long.withUnsafeBytes { long in
                    [UInt8(1)].withUnsafeBytes { short in socket.send([short, long], to: identity) }
                }
            }
            socket.flush()
            return results
        }
        #expect(sent == [.queued, .queued, .noPeer, .noPeer])
        for dealer in dealers { #expect(try dealer.receiveFrames(wait: true) == [[1], long]) }
        try await bench.close()
    }

    @Test func aSubscriberComesBack() async throws {
        let bench = try await Bench(.xsub)
        try await bench.onLoop { socket in
            let former = socket.onOpen
            socket.onOpen = { [unowned socket] connection in
                former(connection)
                socket.send([1], to: connection)
                socket.flush()
            }
            try socket.connect(to: bench.address)
        }
        for round: UInt8 in 1...2 {
            let publisher = try ZMQSocket(.xpub, context: ZMQContext())
            try publisher.setReceiveTimeout(milliseconds: 20_000)
            try publisher.bind(bench.address)
            #expect(try publisher.receiveFrames(wait: true) == [[1]])
            try publisher.send([round])
            #expect(await bench.log.nextMessage() == [[round]])
            #expect(
                try await bench.onLoop { socket in
                    let sent = socket.sendToAll([5])
                    socket.flush()
                    return sent
                })
            #expect(try publisher.receiveFrames(wait: true) == [[5]])
            publisher.close()
        }
        try await bench.close()
    }

    // MARK: - Bytes

    @Test func bytesMayComeOneByOne() async throws {
        let bench = try await Bench(.pull)
        let peer = RawPeer(bench.path)
        let stream =
            RawPeer.greeting() + RawPeer.ready("PUSH", identity: [8]) + [1, 2, 65, 66, 2, 0, 0, 0, 0, 0, 0, 0, 1, 67]
        for byte in stream { peer.write([byte]) }
        #expect(await bench.log.next() == .opened([8]))
        #expect(await bench.log.next() == .message([[65, 66], [67]]))
        #expect(await bench.log.next() == .readComplete)
        // Ours is complete before the peer's.
        #expect(peer.read(64).prefix(12) == [0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 3, 0])
        peer.close()
        try await bench.close()
    }

    @Test func whatComesTogetherIsHandedOutTogether() async throws {
        let bench = try await Bench(.pull)
        let peer = RawPeer(bench.path)
        peer.write(RawPeer.open + [0, 1, 1, 0, 1, 2, 0, 1])
        #expect(await bench.log.next() == .opened([]))
        #expect(await bench.log.next() == .message([[1]]))
        #expect(await bench.log.next() == .message([[2]]))
        #expect(await bench.log.next() == .readComplete)
        peer.write([3])
        #expect(await bench.log.next() == .message([[3]]))
        peer.close()
        try await bench.close()
    }

    @Test func pingsAreAnsweredAndUnknownCommandsPassedOver() async throws {
        let bench = try await Bench(.pull)
        let peer = RawPeer(bench.path)
        peer.write(RawPeer.open + [4, 4] + Array("\u{3}NEW".utf8))
        peer.write([4, 9] + Array("\u{4}PING".utf8) + [0, 9, 0x61, 0x62])
        let ours = peer.read(64 + 2)
        _ = peer.read(Int(ours[65]))
        #expect(peer.read(9) == [4, 7, 4] + Array("PONGab".utf8))
        peer.close()
        try await bench.close()
    }

    private static let violations: [(bytes: [UInt8], problem: String)] = [
        (Array("GET / HTTP/1.1\r\n\r\n".utf8) + [UInt8](repeating: 32, count: 64), "it does not speak ZMTP"),
        (RawPeer.greeting(major: 2), "it speaks ZMTP 2"),
        (RawPeer.greeting(mechanism: "CURVE"), "other than NULL"),
        (RawPeer.greeting() + RawPeer.ready("SUB"), "a SUB socket cannot talk to PULL"),
        (RawPeer.greeting() as [UInt8] + [0, 1, 1], "before the handshake was over"),
        (RawPeer.greeting() as [UInt8] + [4, 3, 9, 1, 1], "a command without a name"),
        (RawPeer.greeting() as [UInt8] + [4, 8, 5] + Array("READY".utf8) + [200, 1], "damaged metadata"),
        (RawPeer.open + [0x10, 1, 1], "reserved flags"),
        (RawPeer.open + [2, 0, 0, 0, 0, 0, 0, 4, 1], "more than 1024 bytes"),
        (RawPeer.open + [2] + [UInt8](repeating: 255, count: 8), "more than 1024 bytes"),
        (RawPeer.open + [1, 1, 1, 4, 2, 1, 65], "a command in the middle"),
    ]

    @Test(arguments: violations.indices) func whatIsNotTheProtocolEndsTheConnection(_ index: Int) async throws {
        let (bytes, problem) = Self.violations[index]
        let bench = try await Bench(.pull, limit: 1024)
        let peer = RawPeer(bench.path)
        peer.write(bytes)
        let violation = try #require(await bench.log.nextViolation())
        #expect(violation.contains(problem))
        #expect(peer.read(1000).count < 1000)
        peer.close()
        // Others are not concerned.
        let next = RawPeer(bench.path)
        next.write(RawPeer.open + [0, 1, 5])
        #expect(await bench.log.nextMessage() == [[5]])
        next.close()
        try await bench.close()
    }

    @Test func aNewConnectionTakesTheNameOfTheOld() async throws {
        let bench = try await Bench(.router)
        let old = RawPeer(bench.path)
        old.write(RawPeer.greeting() + RawPeer.ready("DEALER", identity: [4, 0]))
        #expect(await bench.log.next() == .opened([4, 0]))
        let new = RawPeer(bench.path)
        new.write(RawPeer.greeting() + RawPeer.ready("DEALER", identity: [4, 0]))
        #expect(await bench.log.next() == .opened([4, 0]))
        #expect(old.read(10_000).count < 10_000)
        #expect(
            try await bench.onLoop { socket in
                let sent = [UInt8(1)].withUnsafeBytes { socket.send([$0], to: [4, 0]) }
                socket.flush()
                return sent == .queued
            })
        let ours = new.read(66)
        _ = new.read(Int(ours[65]))
        #expect(new.read(3) == [0, 1, 1])
        old.close()
        new.close()
        try await bench.close()
    }

    /// A peer that does not read takes so much memory and no more, until it has read.
    @Test func whatIsNotReadIsNotQueuedForEver() async throws {
        let bench = try await Bench(.router, queue: 1_000_000)
        let peer = RawPeer(bench.path)
        peer.write(RawPeer.greeting() + RawPeer.ready("DEALER", identity: [4, 0]))
        #expect(await bench.log.next() == .opened([4, 0]))
        let message = [UInt8](repeating: 6, count: 100_000)
        let send = { @Sendable (socket: ZMTPSocket, always: Bool) in
            let result = message.withUnsafeBytes { socket.send([$0], to: [4, 0], always: always) }
            socket.flush()
            return result
        }
        // Beside the queue there is what the kernel holds, which may be set up to be a lot.
        let queued = try await bench.onLoop { socket in
            (0..<5000).prefix { _ in send(socket, false) == .queued }.count
        }
        #expect((10..<5000).contains(queued))
        #expect(try await bench.onLoop { send($0, false) } == .peerIsBehind)
        #expect(try await bench.onLoop { send($0, true) } == .queued)
        #expect(try await bench.onLoop { send($0, false) } == .peerIsBehind)
        let ours = peer.read(66)
        _ = peer.read(Int(ours[65]))
        let length = (queued + 1) * (9 + message.count)
        #expect(peer.read(length).count == length)
        #expect(await bench.log.next() == .caughtUp([4, 0]))
        #expect(try await bench.onLoop { send($0, false) } == .queued)
        peer.close()
        try await bench.close()
    }

    // MARK: - Ends

    @Test func whatIsQueuedMayStillLeave() async throws {
        let bench = try await Bench(.router)
        let peer = RawPeer(bench.path)
        peer.write(RawPeer.greeting() + RawPeer.ready("DEALER", identity: [1]))
        #expect(await bench.log.next() == .opened([1]))
        let large = [UInt8](repeating: 6, count: 4_000_000)
        try await bench.onLoop { socket in
            _ = large.withUnsafeBytes { socket.send([$0], to: [1]) }
            socket.close(linger: .seconds(20))
        }
        let ours = peer.read(66)
        _ = peer.read(Int(ours[65]))
        #expect(peer.read(9 + large.count).count == 9 + large.count)
        #expect(peer.read(1).isEmpty)
        #expect(access(bench.path, F_OK) != 0)
        peer.close()
        try await bench.close()
    }

    @Test func addresses() async throws {
        let bench = try await Bench(.pull, origin: { _ in .bind("tcp://127.0.0.1:0") })
        try await bench.close()
        for text in ["udp://x:1", "tcp://", "tcp://host", "tcp://:1", "tcp://h:x", "ipc://", "ipc://@name", ""] {
            let socket = ZMTPSocket(.pull, on: MultiThreadedEventLoopGroup.singleton.next())
            #expect(throws: ZMTPError.self) { try socket.open(.bind(text)) }
        }
    }
}
