import NIOCore
import NIOEmbedded
import NIOHTTP1
import OpenAIServer
import Testing

@Suite struct HTTPRequestTests {
    @Test func bodyReachesTheHandlerWhateverItsPieces() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        for piece in ["POST /ec", "ho HTTP/1.1\r\nHo", "st: x\r\nContent-Length: 11\r\n\r\nhel", "lo ", "world"] {
            try wire.send(piece)
        }
        let response = try #require(WireResponse.parse(try wire.receive()).first)
        #expect(response.status == 200)
        #expect(response.body == "hello world")
    }

    @Test func chunkedBodiesAreJoined() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let response = try wire.exchange(
            "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")
        #expect(response.body == "hello!")
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let one = "GET /v1/echo?1 HTTP/1.1\r\nHost: x\r\n\r\n"
        try wire.send(one + one.replacingFirst("?1", "?2") + one.replacingFirst("?1", "?3"))
        let responses = WireResponse.parse(try wire.receive())
        #expect(responses.map(\.body) == ["1", "2", "3"])
        #expect(wire.isOpen)
    }

    @Test func pipelinedRequestWaitsForTheStreamBeforeIt() throws {
        let probe = StreamProbe()
        let wire = try WireConnection(routes: { router, _ in TestRoutes.install(&router, stream: probe) })
        defer { wire.close() }
        try wire.send(
            "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET /v1/echo?next HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        #expect(try wire.receive() == "")
        let response = try #require(probe.response)
        response.startEventStream(headers: [:])
        response.appendEvents { $0.writeString("data: 1\n\n") }
        response.endEventStream()
        let responses = WireResponse.parse(try wire.receive())
        #expect(responses.map(\.body) == ["data: 1\n\n", "next"])
    }

    @Test func expectContinueIsAnsweredBeforeTheBody() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        try wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        #expect(try wire.receive() == "HTTP/1.1 100 Continue\r\n\r\n")
        try wire.send("ok")
        #expect(WireResponse.parse(try wire.receive()).first?.body == "ok")
    }

    @Test(arguments: [
        // Both lengths: the classic request-smuggling pair.
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity, xchunked\r\n\r\n",
        "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /v1/echo HTTP/1.1\nHost: x\n\n",
        "GET /v1/echo HTTP/1.1\r\nHost: x\r\nX-Folded: a\r\n b\r\n\r\n",
        "GET /v1/echo HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
        "GET /v1/echo HTTP/1.1\r\n\r\n",
        "GET /v1/echo HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}",
    ])
    func malformedOrAmbiguousRequestsGet400AndTheConnectionEnds(_ request: String) throws {
        let wire = try WireConnection()
        defer { wire.close() }
        try wire.send(request + "GET /v1/echo?smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        let responses = WireResponse.parse(try wire.receive())
        #expect(responses.count == 1)
        let response = try #require(responses.first)
        #expect(response.status == 400)
        #expect(response.headers.first(name: "connection") == "close")
        #expect(response.body.hasPrefix("{\"error\":{\"message\":"))
        wire.loop.advanceTime(by: .seconds(2))
        #expect(!wire.isOpen)
    }

    @Test func http2PrefaceIsRefused() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let response = try wire.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        #expect([400, 505].contains(response.status))
        wire.loop.advanceTime(by: .seconds(2))
        #expect(!wire.isOpen)
    }

    @Test func headerLimitsAreAnsweredWith431() throws {
        let many = try WireConnection()
        defer { many.close() }
        let fields = (0..<256).map { "X-\($0): 1\r\n" }.joined()
        #expect(try many.get("/v1/echo", headers: fields).status == 431)

        let allowed = try WireConnection()
        defer { allowed.close() }
        let fewer = (0..<255).map { "X-\($0): 1\r\n" }.joined()
        #expect(try allowed.get("/v1/echo", headers: fewer).status == 200)

        let large = try WireConnection(configure: { $0.limits.maxHeaderBytes = 1000 })
        defer { large.close() }
        let response = try large.get("/v1/echo", headers: "X: \(String(repeating: "a", count: 1001))\r\n")
        #expect(response.status == 431)
        #expect(response.body.contains("\"code\":431"))

        let big = try WireConnection()
        defer { big.close() }
        #expect(try big.get("/v1/echo", headers: "X: \(String(repeating: "a", count: 1 << 20))\r\n").status == 200)
    }

    @Test func longTargetIsAnsweredWith414() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        #expect(try wire.get("/v1/echo?\(String(repeating: "a", count: 70_000))").status == 414)
    }

    @Test func announcedLargeBodyIsRefusedBeforeItIsSent() throws {
        let wire = try WireConnection(configure: { $0.limits.maxBodyBytes = 10 })
        defer { wire.close() }
        let response = try wire.exchange(
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
        #expect(response.status == 413)
        #expect(response.headers.first(name: "connection") == "close")
    }

    @Test func chunkedLargeBodyIsRefusedAtTheLimit() throws {
        let wire = try WireConnection(configure: { $0.limits.maxBodyBytes = 10 })
        defer { wire.close() }
        try wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try wire.send("6\r\nabcdef\r\n")
        #expect(try wire.receive() == "")
        let response = try wire.exchange("6\r\nabcdef\r\n")
        #expect(response.status == 413)
        // Endless senders are cut off.
        for _ in 0..<3 { try? wire.send("6\r\nabcdef\r\n") }
        wire.loop.advanceTime(by: .seconds(2))
        #expect(!wire.isOpen)
    }

    @Test func bodyOfExactlyTheLimitIsAccepted() throws {
        let wire = try WireConnection(configure: { $0.limits.maxBodyBytes = 10 })
        defer { wire.close() }
        #expect(try wire.post("/echo", "0123456789").status == 200)
    }

    @Test func zeroMeansNoBodyLimit() throws {
        let wire = try WireConnection(configure: { $0.limits.maxBodyBytes = 0 })
        defer { wire.close() }
        let body = String(repeating: "x", count: 100_000)
        #expect(try wire.post("/echo", body).body == body)
    }

    @Test func bodyThatStopsArrivingTimesOut() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        try wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        wire.loop.advanceTime(by: .seconds(19))
        try wire.send(String(repeating: "x", count: 5000))
        wire.loop.advanceTime(by: .seconds(2))
        #expect(try wire.receive() == "")
        wire.loop.advanceTime(by: .seconds(20))
        #expect(WireResponse.parse(try wire.receive()).first?.status == 408)
        wire.loop.advanceTime(by: .seconds(2))
        #expect(!wire.isOpen)
    }

    @Test func halfSentHeadTimesOutWithAnAnswer() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        try wire.send("GET /v1/ec")
        wire.loop.advanceTime(by: .seconds(5))
        #expect(wire.isOpen)
        wire.loop.advanceTime(by: .seconds(6))
        #expect(WireResponse.parse(try wire.receive()).first?.status == 408)
        wire.loop.advanceTime(by: .seconds(2))
        #expect(!wire.isOpen)
    }

    @Test func idleConnectionIsClosedAfterTheKeepAliveTimeout() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        #expect(try wire.get("/v1/echo").status == 200)
        wire.loop.advanceTime(by: .milliseconds(4900))
        #expect(wire.isOpen)
        #expect(try wire.get("/v1/echo").status == 200)
        wire.loop.advanceTime(by: .milliseconds(4900))
        #expect(wire.isOpen)
        wire.loop.advanceTime(by: .milliseconds(200))
        #expect(!wire.isOpen)
        #expect(try wire.receive() == "")
    }

    @Test func timeoutZeroSwitchesKeepAliveOff() throws {
        let wire = try WireConnection(configure: { $0.limits.keepAliveTimeout = .zero })
        defer { wire.close() }
        let response = try wire.get("/v1/echo")
        #expect(response.status == 200)
        #expect(response.headers.first(name: "connection") == "close")
        #expect(!wire.isOpen)
    }

    @Test func connectionCloseIsHonoured() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let response = try wire.get("/v1/echo", headers: "Connection: close\r\n")
        #expect(response.headers.first(name: "connection") == "close")
        #expect(!wire.isOpen)
    }

    @Test func http10NeedsNoHostAndClosesUnlessAskedToStay() throws {
        let plain = try WireConnection()
        defer { plain.close() }
        #expect(try plain.exchange("GET /v1/echo?a HTTP/1.0\r\n\r\n").body == "a")
        #expect(!plain.isOpen)

        let kept = try WireConnection()
        defer { kept.close() }
        let response = try kept.exchange("GET /v1/echo?a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        #expect(response.headers.first(name: "connection") == "keep-alive")
        #expect(kept.isOpen)
    }

    @Test func earlyAnswerKeepsTheConnectionAfterAShortBody() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        try wire.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        #expect(WireResponse.parse(try wire.receive()).first?.status == 404)
        try wire.send("lloGET /v1/echo?after HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(WireResponse.parse(try wire.receive()).first?.body == "after")
    }

    @Test func lineBreaksInResponseHeadersAreDefused() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let response = try wire.get("/inject")
        #expect(response.headers.first(name: "set-cookie") == nil)
        #expect(response.headers.first(name: "x-evil") == "a  set-cookie: b")
    }

    @Test func upgradeOfferIsIgnoredButEndsTheConnection() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let response = try wire.post(
            "/echo", "body",
            headers: "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
        #expect(response.status == 200)
        #expect(response.body == "body")
        #expect(response.headers.first(name: "connection") == "close")
    }
}

extension String {
    func replacingFirst(_ target: String, _ replacement: String) -> String {
        guard let range = self.firstRange(of: target) else { return self }
        return replacingCharacters(range, replacement)
    }

    private func replacingCharacters(_ range: Range<String.Index>, _ replacement: String) -> String {
        String(self[..<range.lowerBound]) + replacement + String(self[range.upperBound...])
    }
}
