import JSONBytes
import NIOCore
import NIOHTTP1

/// A complete request: the body was read and bounded before a handler sees it.
package struct HTTPRequest: Sendable {
    package var method: HTTPMethod
    /// Path without the query, percent-decoding not applied.
    package var path: String
    /// Raw query string without `?`, empty if none.
    package var query: String
    package var headers: HTTPHeaders
    package var body: ByteBuffer
    /// The body as JSON, if it was parsed before the handler gets the request.
    var parsed: ParsedBody?

    package init(method: HTTPMethod, path: String, query: String, headers: HTTPHeaders, body: ByteBuffer) {
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
    }
}

/// Answers one request. Called on the connection's event loop; `response` belongs to that loop.
package protocol RouteHandler: Sendable {
    func handle(_ request: HTTPRequest, _ response: any ResponseWriter)
}

/// Writes exactly one response, whole or as a server-sent event stream.
///
/// Bound to the event loop of its connection. Middleware headers (request id, CORS) are added by the writer itself.
/// Misuse (a second head, writing after the end) is a programming error and traps in debug builds.
package protocol ResponseWriter: AnyObject {
    var eventLoop: any EventLoop { get }

    /// The id that the log line of this request names; `nil` until the handler knows it.
    var requestID: String? { get set }

    /// Why the request ended (`stop`, `length`, `engine_error` …), for the log line. The connection itself fills in
    /// `client_abort`, `slow_reader` and `shutdown`.
    var endCause: String? { get set }

    /// Called once if the client goes away before the response has ended. Set it before returning from `handle`.
    var onDisconnect: (() -> Void)? { get set }

    /// Called when the operator ends the request: it is for the handler to complete the response. Without it the request
    /// ends with an error.
    var onAbort: (() -> Void)? { get set }

    /// Called when the connection becomes writable again after `isWritable` was false.
    var onWritable: (() -> Void)? { get set }

    /// False when the client reads too slowly: stop appending or drop the client.
    var isWritable: Bool { get }

    /// Bytes that the client has not taken yet.
    var bufferedBytes: Int { get }

    /// A whole response with `Content-Length`.
    func send(status: HTTPResponseStatus, contentType: String, headers: HTTPHeaders, body: ByteBuffer)

    /// Starts a `text/event-stream` answer with status 200.
    func startEventStream(headers: HTTPHeaders)

    /// Appends raw bytes (one or several complete `data: …\n\n` frames) to the stream's pending chunk; nothing is
    /// written until `flush()`. `body` appends directly into the connection's output buffer.
    func appendEvents(_ body: (inout ByteBuffer) -> Void)

    /// Writes everything appended since the last flush as one HTTP chunk with one write call.
    func flush()

    /// Ends the event stream (after the handler appended its terminal `data: [DONE]` frame).
    func endEventStream()
}

extension ResponseWriter {
    /// Ends the event stream: the last events, if there are any, then `data: [DONE]`, in one write.
    func finishEvents(_ body: (inout ByteBuffer) -> Void) {
        appendEvents { buffer in
            body(&buffer)
            buffer.appendLiteral("data: [DONE]\n\n")
        }
        flush()
        endEventStream()
    }
}
