import NIOCore
import NIOPosix

/// An HTTP server that answers what the test says, in the pieces that the test says.
final class ScriptedServer: Sendable {
    /// Requests in, pieces of the answer out; an empty list closes the connection without a word.
    typealias Script = @Sendable (_ number: Int, _ body: String) -> [String]

    private let group: MultiThreadedEventLoopGroup
    private let channel: any Channel
    let port: Int

    init(closesAfterEach: Bool = false, _ script: @escaping Script) throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        // One thread: the number of a request needs no lock.
        let counter = NIOLoopBoundBox<Int>.makeBoxSendingValue(0, eventLoop: group.next())
        channel = try ServerBootstrap(group: group)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        Handler(script: script, counter: counter, closes: closesAfterEach))
                }
            }
            .bind(host: "127.0.0.1", port: 0).wait()
        port = channel.localAddress?.port ?? 0
    }

    func stop() {
        try? channel.close().wait()
        try? group.syncShutdownGracefully()
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        private let script: Script
        private let counter: NIOLoopBoundBox<Int>
        private let closes: Bool
        private var received = ""

        init(script: @escaping Script, counter: NIOLoopBoundBox<Int>, closes: Bool) {
            self.script = script
            self.counter = counter
            self.closes = closes
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            received += String(buffer: unwrapInboundIn(data))
            guard let end = received.firstRange(of: "\r\n\r\n"),
                let length = received.firstMatch(of: #/Content-Length: ([0-9]+)/#).flatMap({ Int($0.1) })
            else { return }
            let body = received[end.upperBound...]
            guard body.utf8.count >= length else { return }
            received = ""
            counter.value += 1
            send(script(counter.value, String(body))[...], context)
        }

        /// Each piece is one write and so, on an idle loopback with TCP_NODELAY, mostly one read.
        private func send(_ pieces: ArraySlice<String>, _ context: ChannelHandlerContext) {
            guard let piece = pieces.first else {
                if closes || pieces.startIndex == 0 { context.close(promise: nil) }
                return
            }
            let written = context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: piece)))
            let next = NIOLoopBound((self, context), eventLoop: context.eventLoop)
            written.whenSuccess { next.value.0.send(pieces.dropFirst(), next.value.1) }
        }
    }
}

/// Answers in the shape of the API.
enum Answers {
    static let streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    static func chunk(_ text: String) -> String { String(text.utf8.count, radix: 16) + "\r\n" + text + "\r\n" }

    static func content(_ text: String, finish: String? = nil) -> String {
        let finish = finish.map { "\"\($0)\"" } ?? "null"
        return chunk(
            #"data: {"id":"c","choices":[{"index":0,"delta":{"content":"\#(text)"},"finish_reason":\#(finish)}]}"#
                + "\n\n")
    }

    static func end(prompt: Int, completion: Int) -> String {
        chunk(#"data: {"choices":[],"usage":{"prompt_tokens":\#(prompt),"completion_tokens":\#(completion)}}"# + "\n\n")
            + chunk("data: [DONE]\n\n") + "0\r\n\r\n"
    }

    static func whole(_ json: String, status: String = "200 OK") -> String {
        "HTTP/1.1 \(status)\r\nContent-Type: application/json\r\nContent-Length: \(json.utf8.count)\r\n\r\n" + json
    }
}
