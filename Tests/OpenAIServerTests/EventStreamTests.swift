import Metrics
import NIOCore
import NIOEmbedded
import NIOHTTP1
import OpenAIServer
import Testing

@Suite struct EventStreamTests {
    private static let request = "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"

    private func start(
        _ request: String = request, configure: (inout ServerConfiguration) -> Void = { _ in }
    ) throws -> (WireConnection, StreamProbe, any ResponseWriter) {
        let probe = StreamProbe()
        let wire = try WireConnection(
            configure: configure, routes: { router, _ in TestRoutes.install(&router, stream: probe) })
        try wire.send(request)
        return (wire, probe, try #require(probe.response))
    }

    @Test func eachFlushIsOneWriteAndOneChunk() throws {
        let (wire, _, response) = try start()
        defer { wire.close() }
        response.startEventStream(headers: ["x-a": "b"])
        response.appendEvents { $0.writeString("data: 1\n\n") }
        response.appendEvents { $0.writeString("data: 2\n\n") }
        response.flush()
        // The head travels with the first events.
        let first = try wire.receiveWrites()
        #expect(first.count == 1)
        #expect(first[0].hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(first[0].contains("\r\ncontent-type: text/event-stream; charset=utf-8\r\n"))
        #expect(first[0].contains("\r\ntransfer-encoding: chunked\r\n"))
        #expect(first[0].contains("\r\nx-a: b\r\n"))
        #expect(first[0].hasSuffix("\r\n\r\n12\r\ndata: 1\n\ndata: 2\n\n\r\n"))

        response.appendEvents { $0.writeString("data: 3\n\n") }
        response.flush()
        #expect(try wire.receiveWrites() == ["9\r\ndata: 3\n\n\r\n"])

        response.flush()
        #expect(try wire.receiveWrites() == [])

        response.appendEvents { $0.writeString("data: [DONE]\n\n") }
        response.endEventStream()
        #expect(try wire.receiveWrites() == ["e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"])
        #expect(wire.isOpen)
    }

    @Test(arguments: [1, 15, 16, 255, 256, 4095, 4096, 70_000])
    func chunkSizesAreExact(_ size: Int) throws {
        let (wire, _, response) = try start()
        defer { wire.close() }
        let text = String(repeating: "x", count: size)
        response.startEventStream(headers: [:])
        response.appendEvents { $0.writeString(text) }
        response.endEventStream()
        let answer = try #require(WireResponse.parse(try wire.receive()).first)
        #expect(answer.chunks == [text])
    }

    @Test func http10StreamEndsWithTheConnection() throws {
        let (wire, _, response) = try start(
            "POST /stream HTTP/1.0\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n")
        defer { wire.close() }
        response.startEventStream(headers: [:])
        response.appendEvents { $0.writeString("data: 1\n\n") }
        response.flush()
        response.appendEvents { $0.writeString("data: [DONE]\n\n") }
        response.endEventStream()
        let text = try wire.receive()
        #expect(!text.contains("transfer-encoding"))
        #expect(text.contains("\r\nconnection: close\r\n"))
        #expect(text.hasSuffix("\r\n\r\ndata: 1\n\ndata: [DONE]\n\n"))
        #expect(!wire.isOpen)
    }

    @Test func silentStreamGetsComments() throws {
        let (wire, _, response) = try start(configure: { $0.sseKeepAliveInterval = 2 })
        defer { wire.close() }
        response.startEventStream(headers: [:])
        response.appendEvents { $0.writeString("data: 1\n\n") }
        response.flush()
        _ = try wire.receive()
        wire.loop.advanceTime(by: .milliseconds(1500))
        response.appendEvents { $0.writeString("data: 2\n\n") }
        response.flush()
        _ = try wire.receive()
        wire.loop.advanceTime(by: .milliseconds(1900))
        #expect(try wire.receiveWrites() == [])
        wire.loop.advanceTime(by: .milliseconds(200))
        #expect(try wire.receiveWrites() == ["e\r\n: keep-alive\n\n\r\n"])
        wire.loop.advanceTime(by: .seconds(2))
        #expect(try wire.receiveWrites().count == 1)
        response.endEventStream()
        _ = try wire.receive()
        wire.loop.advanceTime(by: .seconds(4))
        #expect(try wire.receiveWrites() == [])
    }

    @Test func disconnectIsToldOnceAndLaterCallsAreHarmless() throws {
        let (wire, probe, response) = try start()
        response.startEventStream(headers: [:])
        response.flush()
        #expect(wire.context.metrics.serverLoad == 1)
        wire.close()
        #expect(probe.disconnects == 1)
        #expect(response.endCause == "client_abort")
        #expect(!response.isWritable)
        response.appendEvents { $0.writeString("data: 1\n\n") }
        response.flush()
        response.endEventStream()
        #expect(probe.disconnects == 1)
        #expect(wire.context.metrics.serverLoad == 0)
    }

    @Test func halfCloseCountsAsDisconnect() throws {
        let (wire, probe, _) = try start()
        defer { wire.close() }
        wire.channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        #expect(probe.disconnects == 1)
        #expect(!wire.isOpen)
    }

    @Test func finishedRequestIsNotToldOfTheDisconnect() throws {
        let (wire, probe, response) = try start()
        response.send(status: .ok, contentType: "text/plain", headers: [:], body: ByteBuffer(string: "x"))
        wire.close()
        #expect(probe.disconnects == 0)
    }

    @Test func unwritableConnectionCoalescesUntilItIsWritableAgain() throws {
        let (wire, probe, response) = try start()
        defer { wire.close() }
        response.startEventStream(headers: [:])
        response.flush()
        _ = try wire.receive()
        wire.channel.isWritable = false
        wire.channel.pipeline.fireChannelWritabilityChanged()
        #expect(!response.isWritable)
        for index in 0..<3 {
            response.appendEvents { $0.writeString("data: \(index)\n\n") }
            response.flush()
        }
        #expect(try wire.receiveWrites() == [])
        #expect(response.bufferedBytes >= 27)
        wire.channel.isWritable = true
        wire.channel.pipeline.fireChannelWritabilityChanged()
        #expect(try wire.receiveWrites() == ["1b\r\ndata: 0\n\ndata: 1\n\ndata: 2\n\n\r\n"])
        #expect(probe.becameWritable == 1)
    }

    @Test func clientThatNeverReadsIsDroppedAtTheLimit() throws {
        let (wire, probe, response) = try start(configure: { $0.limits.maxStreamBacklog = 1000 })
        defer { wire.close() }
        response.startEventStream(headers: [:])
        response.flush()
        wire.channel.isWritable = false
        wire.channel.pipeline.fireChannelWritabilityChanged()
        for _ in 0..<10 {
            response.appendEvents { $0.writeString(String(repeating: "x", count: 99)) }
            response.flush()
        }
        #expect(wire.isOpen)
        response.appendEvents { $0.writeString(String(repeating: "x", count: 99)) }
        response.flush()
        #expect(!wire.isOpen)
        #expect(probe.disconnects == 1)
        #expect(response.endCause == "slow_reader")
    }

    @Test func shutdownEndsStreamsInBand() throws {
        let (wire, probe, response) = try start()
        defer { wire.close() }
        response.startEventStream(headers: [:])
        response.appendEvents { $0.writeString("data: 1\n\n") }
        response.flush()
        wire.context.endRunningRequests()
        let answer = try #require(WireResponse.parse(try wire.receive()).first)
        #expect(
            answer.body
                == "data: 1\n\ndata: {\"error\":{\"message\":\"The server is shutting down.\","
                + "\"type\":\"ServiceUnavailableError\",\"param\":null,\"code\":503}}\n\ndata: [DONE]\n\n")
        #expect(probe.disconnects == 1)
        #expect(!wire.isOpen)
    }

    @Test func shutdownAnswersWaitingRequestsWith503() throws {
        let (wire, probe, _) = try start()
        defer { wire.close() }
        wire.context.endRunningRequests()
        let answer = try #require(WireResponse.parse(try wire.receive()).first)
        #expect(answer.status == 503)
        #expect(answer.headers.first(name: "retry-after") == "1")
        #expect(answer.headers.first(name: "connection") == "close")
        #expect(probe.disconnects == 1)
        #expect(!wire.isOpen)
    }

    @Test func drainingRefusesNewWorkAndLetsOldWorkEnd() throws {
        let (wire, _, response) = try start()
        defer { wire.close() }
        response.startEventStream(headers: [:])
        response.flush()
        wire.context.startDraining()
        #expect(wire.isOpen)
        response.appendEvents { $0.writeString("data: [DONE]\n\n") }
        response.endEventStream()
        #expect(WireResponse.parse(try wire.receive()).first?.body == "data: [DONE]\n\n")
        #expect(!wire.isOpen)

        let other = try WireConnection()
        defer { other.close() }
        other.context.life.phase = .draining
        let refused = try other.post("/echo", "x")
        #expect(refused.status == 503)
        #expect(refused.headers.first(name: "retry-after") == "1")
        #expect(refused.headers.first(name: "connection") == "close")
    }

    /// A successor has the socket: what is connected here is answered once more, and nothing is cut.
    @Test func leavingAnswersEveryOpenConnectionOnce() throws {
        let fresh = try WireConnection()
        defer { fresh.close() }
        let used = try WireConnection()
        defer { used.close() }
        #expect(try used.post("/echo", "x").status == 200)
        for wire in [fresh, used] {
            wire.context.startLeaving()
            wire.loop.run()
            #expect(wire.isOpen)
            let answer = try wire.post("/echo", "y")
            #expect(answer.status == 200 && answer.headers.first(name: "connection") == "close")
            #expect(!wire.isOpen)
        }
        let silent = try WireConnection()
        silent.context.startLeaving()
        silent.loop.advanceTime(by: .seconds(6))
        #expect(!silent.isOpen)
    }
}
