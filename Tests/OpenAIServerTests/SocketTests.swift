import Glibc
import Metrics
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import OpenAIServer
import Synchronization
import Testing

/// Real sockets: what an embedded channel cannot show.
@Suite(.serialized) struct SocketTests {
    @Test func inheritedSocketsAreListenedOnWithALongQueue() async throws {
        let server = try TestServer(.tcp)
        let answer = try server.ask("GET /v1/echo?hi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(WireResponse.parse(answer).first?.body == "hi")
        // For a listening socket the kernel reports the length of its queue here.
        var info = tcp_info()
        var length = socklen_t(MemoryLayout<tcp_info>.size)
        #expect(getsockopt(server.descriptor, Int32(IPPROTO_TCP), TCP_INFO, &info, &length) == 0)
        let limit = try #require(TestServer.readInteger("/proc/sys/net/core/somaxconn"))
        #expect(Int(info.tcpi_sacked) == min(2048, limit))
        try await server.stop()
    }

    @Test func unixSocketsServeToo() async throws {
        let server = try TestServer(.unix)
        let answer = try server.ask("GET /v1/echo?hi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(WireResponse.parse(answer).first?.body == "hi")
        try await server.stop()
    }

    @Test func aDescriptorThatIsNoStreamSocketIsRefused() throws {
        let context = try TestServer.makeContext(group: MultiThreadedEventLoopGroup.singleton)
        let service = HTTPService(context: context, router: Router())
        let file = open("/dev/null", O_RDONLY)
        defer { close(file) }
        #expect(throws: ServerSetupError.self) {
            try HTTPListener.start(
                on: .descriptor(file), service: service, group: MultiThreadedEventLoopGroup.singleton)
        }
    }

    @Test func resetDuringAStreamReachesTheHandler() async throws {
        let events = AsyncStream.makeStream(of: String.self)
        let server = try TestServer(
            .tcp,
            routes: { router in
                router.add(.POST, "/stream", .work) { _, response in
                    response.onDisconnect = { events.continuation.yield("gone") }
                    response.startEventStream(headers: [:])
                    response.appendEvents { $0.writeString("data: 1\n\n") }
                    response.flush()
                }
            })
        var iterator = events.stream.makeAsyncIterator()
        for reset in [false, true] {
            let client = try server.connect()
            client.send("POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            _ = client.receive(until: "data: 1\n\n")
            if reset { client.closeWithReset() } else { client.close() }
            #expect(await iterator.next() == "gone")
        }
        // A half close counts as well: nobody waits for the rest.
        let client = try server.connect()
        client.send("POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        _ = client.receive(until: "data: 1\n\n")
        client.shutdownWrites()
        #expect(await iterator.next() == "gone")
        client.close()
        try await server.stop()
    }

    @Test func readerThatStopsReadingIsDroppedWithBoundedMemory() async throws {
        let outcome = AsyncStream.makeStream(of: Int.self)
        let server = try TestServer(
            .tcp, configure: { $0.limits.maxStreamBacklog = 256 << 10 },
            routes: { router in
                router.add(.POST, "/flood", .work) { _, response in
                    var isGone = false
                    response.onDisconnect = { isGone = true }
                    response.startEventStream(headers: [:])
                    let event = ByteBuffer(string: "data: \(String(repeating: "x", count: 8000))\n\n")
                    var most = 0
                    // Far more than all socket buffers hold; the limit must end it.
                    for _ in 0..<20_000 where !isGone {
                        response.appendEvents { buffer in
                            var event = event
                            buffer.writeBuffer(&event)
                        }
                        response.flush()
                        most = max(most, response.bufferedBytes)
                    }
                    outcome.continuation.yield(isGone ? most : -1)
                }
            })
        let client = try server.connect(receiveBuffer: 4096)
        client.send("POST /flood HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        var iterator = outcome.stream.makeAsyncIterator()
        let most = try #require(await iterator.next())
        #expect(most > 0)
        #expect(most <= (256 << 10) + 16384 + (64 << 10))
        client.close()
        try await server.stop()
    }

    @Test func refusedUploadStillDeliversItsAnswer() async throws {
        let server = try TestServer(.tcp, configure: { $0.limits.maxBodyBytes = 1000 })
        let body = String(repeating: "x", count: 300_000)
        let answer = try server.ask(
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        #expect(WireResponse.parse(answer).first?.status == 413)
        try await server.stop()
    }

    @Test func largeResponseArrivesWholeBeforeTheClose() async throws {
        let server = try TestServer(.tcp)
        let body = String(repeating: "0123456789abcdef", count: 1 << 16)
        let answer = try server.ask(
            "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        #expect(WireResponse.parse(answer).first?.body == body)
        try await server.stop()
    }

    @Test func tlsServesWithTheGivenCertificate() async throws {
        let directory = try TestServer.temporaryDirectory()
        let file = directory + "/server.pem"
        try TestServer.write(TestCertificate.pem, to: file)
        let server = try TestServer(.tcp, tls: TLSSettings(certificateFile: file, keyFile: file))
        let answer = try await server.askTLS("GET /v1/echo?secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(WireResponse.parse(answer).first?.body == "secret")
        // Plain HTTP on the TLS port ends without an answer.
        #expect(try server.ask("GET /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n") == "")
        try await server.stop()
        unlink(file)
        rmdir(directory)
    }

    @Test(
        arguments: [
            ("ECDHE-RSA-AES256-GCM-SHA384", [.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]),
            (
                "ECDHE+AESGCM:!aNULL:-AES128",
                [.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]
            ),
            (
                "kRSA, !SHA +AES128",
                [.TLS_RSA_WITH_AES_256_GCM_SHA384, .TLS_RSA_WITH_AES_128_GCM_SHA256]
            ),
            ("CHACHA20:@STRENGTH:!ECDSA", [.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]),
        ] as [(String, [NIOTLSCipher])])
    func cipherLists(text: String, ciphers: [NIOTLSCipher]) throws {
        #expect(try TLSCipherList(text).ciphers == ciphers)
    }

    @Test func everyKnownCipherIsUsable() throws {
        var configuration = TLSConfiguration.makeClientConfiguration()
        for cipher in try TLSCipherList("ALL").ciphers {
            configuration.cipherSuiteValues = [cipher]
            #expect(throws: Never.self) { try NIOSSLContext(configuration: configuration) }
        }
    }

    @Test(arguments: ["", "BOGUS", "HIGH:!ALL", "!ALL:HIGH", "aNULL", "ECDHE+RC5"])
    func uselessCipherListsAreErrors(text: String) {
        #expect(throws: ServerSetupError.self) { try TLSCipherList(text) }
    }

    @Test func unusableCertificateNamesItsOptionAndFile() {
        let error = #expect(throws: ServerSetupError.self) {
            try TLSSettings(certificateFile: "/nonexistent/x.pem", keyFile: "/nonexistent/x.pem").makeContext()
        }
        #expect(error?.description.contains("ssl_certfile: /nonexistent/x.pem") == true)
    }
}
