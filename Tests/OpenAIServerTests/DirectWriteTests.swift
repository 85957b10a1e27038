import Glibc
import NIOCore
import NIOHTTP1
import OpenAIServer
import Synchronization
import Testing

/// Streams that change between the socket itself and the channel's queue: nothing may be lost, doubled or out of order, and
/// nothing may reach a descriptor that has been given to somebody else.
@Suite(.serialized, .timeLimit(.minutes(10))) struct DirectWriteTests {
    private static let request = "POST /numbers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    /// Streams numbered events for ever, each in a write of its own, and stops for a while when the client does not read.
    private final class Numbers {
        private let response: any ResponseWriter
        private let padding: String
        private let count: Int
        private var next = 0
        /// How often the socket did not take everything.
        private(set) var pauses = 0

        init(_ response: any ResponseWriter, count: Int, bytes: Int) {
            self.response = response
            self.count = count
            padding = String(repeating: "x", count: bytes)
        }

        func write() {
            while next < count {
                // Behind a full socket events wait in the stream: some are added to what waits.
                if !response.isWritable {
                    pauses += 1
                    if pauses % 2 == 1 { append() }
                    response.flush()
                    return
                }
                append()
                response.flush()
            }
            response.onWritable = nil
            response.endEventStream()
        }

        private func append() {
            guard next < count else { return }
            response.appendEvents { $0.writeString("data: \(next) \(padding)\n\n") }
            next += 1
        }
    }

    @Test(arguments: [100, 700, 70_000]) func everyEventArrivesOnceAndInOrder(bytes: Int) async throws {
        let count = 12_000_000 / (bytes + 20)
        let pauses = AsyncStream.makeStream(of: Int.self)
        let server = try TestServer(
            .tcp,
            routes: { router in
                router.add(.POST, "/numbers", .work) { _, response in
                    response.startEventStream(headers: [:])
                    let numbers = Numbers(response, count: count, bytes: bytes)
                    response.onWritable = {
                        numbers.write()
                        pauses.continuation.yield(numbers.pauses)
                    }
                    numbers.write()
                    pauses.continuation.yield(numbers.pauses)
                }
            })
        let client = try server.connect(receiveBuffer: 4096)
        client.send(Self.request)
        var iterator = pauses.stream.makeAsyncIterator()
        // The reader starts when the socket is full.
        #expect(try #require(await iterator.next()) > 0)
        let answer = client.receive(until: nil)
        let events = ChunkedAnswer.events(answer)
        #expect(events.count == count)
        let wrong = events.indices.first { !events[$0].hasPrefix("data: \($0) ") || events[$0].utf8.count < bytes }
        #expect(wrong == nil)
        client.close()
        try await server.stop()
    }

    /// The descriptor of a connection that ended in the middle of a write soon belongs to another client.
    @Test func aStreamThatEndsInMidWriteDoesNotReachTheNextClient() async throws {
        let gone = AsyncStream.makeStream(of: Void.self)
        let server = try TestServer(
            .tcp,
            routes: { router in
                router.add(.POST, "/numbers", .work) { _, response in
                    response.startEventStream(headers: [:])
                    let numbers = Numbers(response, count: .max, bytes: 5000)
                    response.onWritable = { numbers.write() }
                    response.onDisconnect = {
                        // Late news for a stream that is over.
                        numbers.write()
                        gone.continuation.yield()
                    }
                    numbers.write()
                }
            })
        var iterator = gone.stream.makeAsyncIterator()
        for round in 0..<10 {
            let client = try server.connect(receiveBuffer: 4096)
            client.send(Self.request)
            _ = client.receive(until: "data: 0 ")
            if round % 2 == 0 { client.close() } else { client.closeWithReset() }
            await iterator.next()
            let answer = try server.ask("GET /v1/echo?hi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 200"))
            #expect(WireResponse.parse(answer).first?.body == "hi")
        }
        try await server.stop()
    }
}
