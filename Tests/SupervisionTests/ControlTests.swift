import Glibc
import JSONBytes
import Supervision
import Testing

@Suite struct ControlTests {
    private let scratch = Scratch()
    private let loop = EventLoop()
    private var path: String { scratch.file("control.sock") }

    /// A raw client: what is sent, and the lines that come back until the server hangs up or `count` of them are there.
    private func exchange(_ bytes: [UInt8], lines count: Int = 1) throws -> [String] {
        let client = try #require(connect())
        _ = bytes.withUnsafeBytes { send(client.rawValue, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        var received: [UInt8] = []
        var ended = false
        loop.watch(client.rawValue) {
            var chunk = [UInt8](repeating: 0, count: 4096)
            let size = recv(client.rawValue, &chunk, chunk.count, Int32(MSG_DONTWAIT))
            if size > 0 { received += chunk[..<size] } else if size == 0 || errno != EAGAIN { ended = true }
        }
        defer { loop.unwatch(client.rawValue) }
        loop.run(until: .now + .seconds(10)) { !ended && received.count(where: { $0 == 10 }) < count }
        return String(decoding: received, as: UTF8.self).split(separator: "\n").map(String.init)
    }

    private func connect() -> FileDescriptor? {
        guard let address = try? SocketAddress.unix(path: path) else { return nil }
        let client = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
        return address.withPointer { Glibc.connect(client.rawValue, $0, $1) } == 0 ? client : nil
    }

    private func echo() throws -> ControlServer {
        try ControlServer(path: path, loop: loop) { request, exchange in
            exchange.finish(JSONObject([("got", .object(request))]))
        }
    }

    @Test func requestIsAnswered() throws {
        let server = try echo()
        #expect(try exchange(Array(#"{"command":"x"}"#.utf8) + [10]) == [#"{"got":{"command":"x"}}"#])
        server.close()
        #expect(connect() == nil)
    }

    @Test func requestMayComeInPieces() throws {
        let server = try echo()
        defer { server.close() }
        let client = try #require(connect())
        for piece in ["{\"a\"", ":1", "}\n"] {
            _ = Array(piece.utf8).withUnsafeBytes { send(client.rawValue, $0.baseAddress, $0.count, 0) }
            loop.runOnce(until: .now + .milliseconds(20))
            loop.runOnce(until: .now + .milliseconds(20))
        }
        #expect(readAll(client.rawValue) == "{\"got\":{\"a\":1}}\n")
    }

    @Test(arguments: ["nonsense\n", "[1]\n", "\n", "\u{0}\n", String(repeating: "[", count: 100) + "\n"])
    func brokenRequestIsRefused(_ text: String) throws {
        let server = try echo()
        defer { server.close() }
        #expect(try exchange(Array(text.utf8)) == [#"{"error":"the request is not a JSON object"}"#])
    }

    @Test func endlessRequestIsRefused() throws {
        let server = try echo()
        defer { server.close() }
        #expect(
            try exchange([UInt8](repeating: UInt8(ascii: "x"), count: 66_000))
                == [#"{"error":"the request is too long"}"#])
    }

    @Test func answerMayComeLaterAndInSeveralLines() throws {
        let loop = loop
        let server = try ControlServer(path: path, loop: loop) { _, exchange in
            exchange.send(JSONObject([("n", .number(1))]))
            loop.schedule(after: .milliseconds(5)) { exchange.finish(JSONObject([("n", .number(2))])) }
        }
        defer { server.close() }
        #expect(try exchange(Array("{}\n".utf8), lines: 2) == [#"{"n":1}"#, #"{"n":2}"#])
    }

    @Test func clientThatHangsUpDoesNoHarm() throws {
        var kept: [ControlServer.Exchange] = []
        let server = try ControlServer(path: path, loop: loop) { _, exchange in kept.append(exchange) }
        defer { server.close() }
        let client = try #require(connect())
        _ = send(client.rawValue, "{}\n", 3, 0)
        #expect(loop.run(until: .now + .seconds(10)) { kept.isEmpty })
        client.close()
        loop.runOnce(until: .now + .seconds(1))
        kept[0].finish(JSONObject())
    }

    @Test func connectionsAreBounded() throws {
        let server = try echo()
        defer { server.close() }
        let clients = (0..<40).compactMap { _ in
            let client = connect()
            loop.runOnce(until: .now + .milliseconds(1))
            return client
        }
        // Those beyond the limit were hung up on at once; the others wait for their request.
        let ended = clients.count {
            var byte: UInt8 = 0
            return recv($0.rawValue, &byte, 1, Int32(MSG_DONTWAIT)) == 0
        }
        #expect(ended == 8)
    }

    @Test func runsAreFoundByPortAndPid() throws {
        func found(_ port: UInt16?, _ pid: pid_t?) -> pid_t? {
            try? ControlClient.find(port: port, pid: pid, in: [scratch.path]).pid
        }
        #expect(found(nil, nil) == nil)
        let own = try RuntimeDirectory.plan(in: [scratch.path])
        try own.create()
        try own.note(httpAddress: "http://127.0.0.1:4321")
        #expect(found(nil, nil) == getpid())
        #expect(found(4321, nil) == getpid())
        #expect(found(321, nil) == nil)
        #expect(found(nil, getpid()) == getpid())
        #expect(found(nil, 1) == nil)
    }
}
