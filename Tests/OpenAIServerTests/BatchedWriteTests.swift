import EngineClient
import EngineProtocol
import Glibc
import NIOCore
import NIOHTTP1
import OpenAIServer
import Synchronization
import Testing

/// Writes that leave in one system call, where the kernel has it.
@Suite(.serialized, .timeLimit(.minutes(10))) struct BatchedWriteTests {
    private func pair() throws -> (writer: Int32, reader: Int32) {
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        // The kernel may be set up to take a lot.
        var size: Int32 = 1 << 16
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        return (ends[0], ends[1])
    }

    private func read(_ descriptor: Int32, _ capacity: Int = 1 << 20) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: capacity)
        let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return Array(buffer[..<max(0, count)])
    }

    @Test(.enabled(if: SendBatch() != nil)) func everySendHasItsOwnResult() throws {
        let batch = try #require(SendBatch())
        let pairs = try (0..<SendBatch.capacity).map { _ in try pair() }
        defer { for pair in pairs.dropFirst(2) { close(pair.writer); close(pair.reader) } }
        // Nobody reads this one, its buffer gets full within a write.
        let large = ByteBuffer(repeating: 120, count: 4 << 20)
        // Nobody will read this one any more; and the third send has no socket.
        close(pairs[1].reader)
        for round in 0..<3 {
            let buffers = pairs.indices.map { $0 == 0 ? large : ByteBuffer(string: "\(round) \($0)") }
            for (index, buffer) in buffers.enumerated() { batch.add(buffer, to: index == 2 ? -1 : pairs[index].writer) }
            let results = withExtendedLifetime(buffers) { Array(batch.submit()) }
            #expect(results.count == pairs.count)
            #expect(round == 0 ? results[0] > 0 && results[0] < large.readableBytes : results[0] == -EAGAIN)
            #expect(results[1] == -EPIPE)
            #expect(results[2] == -EBADF)
            for index in 3..<pairs.count {
                let expected = "\(round) \(index)"
                #expect(Int(results[index]) == expected.utf8.count)
                #expect(String(decoding: read(pairs[index].reader), as: UTF8.self) == expected)
            }
        }
        // Fewer than fit, after a full one.
        let last = ByteBuffer(string: "last")
        batch.add(last, to: pairs[5].writer)
        #expect(withExtendedLifetime(last) { Array(batch.submit()) } == [4])
        #expect(read(pairs[5].reader) == Array("last".utf8))
        close(pairs[0].reader)
        close(pairs[0].writer)
        close(pairs[1].writer)
    }

    /// A stream of numbered events, one for each delivery.
    private final class Ticks: RequestReceiver, @unchecked Sendable {
        private let response: any ResponseWriter
        private let padding: String
        private let count: Int
        private var next = 0

        init(_ response: any ResponseWriter, count: Int, bytes: Int) {
            self.response = response
            self.count = count
            padding = String(repeating: "x", count: bytes)
        }

        func receive(_ event: RequestEvent) {
            guard next < count else { return }
            response.appendEvents { $0.writeString("data: \(next) \(padding)\n\n") }
            next += 1
            if next == count { response.endEventStream() } else { response.flush() }
        }
    }

    /// More streams than fit into a batch; some clients do not read until all is over, and some go away in the middle.
    @Test func streamsOfAStepKeepTheirEvents() async throws {
        let streams = 70, count = 300
        let ticks = Mutex<[Ticks]>([])
        let started = AsyncStream.makeStream(of: Void.self)
        let server = try TestServer(
            .tcp, configure: { $0.limits.maxStreamBacklog = 64 << 20 },
            routes: { router in
                router.add(.POST, "/ticks", .work) { request, response in
                    response.startEventStream(headers: [:])
                    let receiver = Ticks(response, count: count, bytes: Int(request.query) ?? 0)
                    ticks.withLock { $0.append(receiver) }
                    started.continuation.yield()
                }
            })
        var isStarted = started.stream.makeAsyncIterator()
        var clients: [TestClient] = []
        for index in 0..<streams {
            let isSlow = index % 10 == 0
            clients.append(try server.connect(receiveBuffer: isSlow ? 4096 : nil))
            clients[index].send(
                "POST /ticks?\(isSlow ? 20_000 : 200) HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            await isStarted.next()
        }
        let inbox = server.context.loopStates[0]
        for step in 0..<count {
            if step == count / 2 { for index in stride(from: 5, to: streams, by: 10) { clients[index].close() } }
            inbox.deliver(
                ticks.withLock { ticks in
                    ticks.map { Delivery(receiver: $0, event: .output(EngineCoreOutput(), timestamp: 0)) }
                })
        }
        for index in 0..<streams where index % 10 != 5 {
            let events = ChunkedAnswer.events(clients[index].receive(until: nil))
            #expect(events.count == count)
            #expect(events.indices.first { !events[$0].hasPrefix("data: \($0) ") } == nil)
            clients[index].close()
        }
        try await server.stop()
    }
}
