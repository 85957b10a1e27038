import EngineClient
import EngineProtocol
import Metrics
import NIOCore
import NIOEmbedded
import NIOHTTP1
import OpenAIServer
import Synchronization
import Testing

/// An engine that is there and does what a test tells it.
final class ScriptedEngine: EngineConnection {
    struct Call: Sendable, Equatable {
        var method: String
        var arguments: [UInt8]
    }

    private struct Script: Sendable {
        var state: EngineClientState
        var results: [String: [UInt8]] = [:]
        var failures: [String: EngineFailure] = [:]
        var calls: [Call] = []
        var abortAllCount = 0
        var inFlight = 0
        var messages: UInt64 = 0
        /// Engines whose utility calls nobody answers.
        var silentRanks: Set<Int> = []
        var hungRanks: Set<Int> = []
        /// One entry per call of `failRequests`.
        var failedRequests: [(rank: Int, failure: EngineFailure)] = []
        var unanswered: [@Sendable () -> Void] = []
    }

    private let script: Mutex<Script>

    init(state: EngineClientState = .ready(.tiny)) {
        script = Mutex(Script(state: state))
    }

    var state: EngineClientState { script.withLock { $0.state } }
    var inFlight: Int { script.withLock { $0.inFlight } }
    var messagesReceived: UInt64 { script.withLock { $0.messages } }
    var calls: [Call] { script.withLock { $0.calls } }

    func setState(_ state: EngineClientState) { script.withLock { $0.state = state } }
    /// What `method` answers, as msgpack.
    func answer(_ method: String, _ bytes: [UInt8]) { script.withLock { $0.results[method] = bytes } }
    func fail(_ method: String, _ failure: EngineFailure) { script.withLock { $0.failures[method] = failure } }
    func setInFlight(_ count: Int) { script.withLock { $0.inFlight = count } }
    func sendMessage() { script.withLock { $0.messages += 1 } }

    /// As a stopped process: calls are answered when it goes on.
    func stop(ranks: Set<Int> = [0]) { script.withLock { $0.silentRanks = ranks } }
    func goOn() {
        let late = script.withLock { script in
            script.silentRanks = []
            defer { script.unanswered = [] }
            return script.unanswered
        }
        for answer in late { answer() }
    }

    func add(_ request: EngineCoreRequest, inbox: any OutputInbox, receiver: any RequestReceiver) -> RequestHandle {
        RequestHandle(slot: 0, generation: 0)
    }

    func abort(_ handle: RequestHandle) {}

    func callUtility(
        _ method: String, arguments: [UInt8], rank: Int?,
        completion: @escaping @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void
    ) {
        let result = script.withLock { script -> Result<[UtilityOutput], EngineFailure> in
            script.calls.append(Call(method: method, arguments: arguments))
            if let failure = script.failures[method] { return .failure(failure) }
            return .success([UtilityOutput(callID: 1, failureMessage: nil, result: script.results[method])])
        }
        let waits = script.withLock { script in
            let isSilent = rank.map { script.silentRanks.contains($0) } ?? !script.silentRanks.isEmpty
            if isSilent { script.unanswered.append { completion(result) } } else { script.messages += 1 }
            return isSilent
        }
        if !waits { completion(result) }
    }

    var hungRanks: Set<Int> { script.withLock { $0.hungRanks } }
    var failedRequests: [(rank: Int, failure: EngineFailure)] { script.withLock { $0.failedRequests } }

    func markHung(_ ranks: Set<Int>) { script.withLock { $0.hungRanks = ranks } }
    func failRequests(rank: Int, _ failure: EngineFailure) {
        script.withLock { $0.failedRequests.append((rank, failure)) }
    }

    func onSchedulerStats(_ observer: @escaping @Sendable (Int, SchedulerStats) -> Void) {}
    func onStateChange(_ observer: @escaping @Sendable (EngineClientState) -> Void) {}
}

extension EngineInformation {
    static let tiny = EngineInformation(
        maxModelLength: 2048, numGPUBlocks: 100, blockSize: 16, dtype: "bfloat16", vllmVersion: "0.32.0",
        maxNumSeqs: 64, maxNumBatchedTokens: 2048, worldSize: 1, maxLoRAs: 0, engineCount: 1)
}

/// A response as it came over the wire.
struct WireResponse {
    var status: Int
    var headers: HTTPHeaders
    var body: String
    /// The chunks of a chunked body, without framing.
    var chunks: [String] = []
}

/// One connection on an embedded channel, spoken to in raw text.
final class WireConnection {
    let channel: EmbeddedChannel
    let context: ServerContext
    let engine: ScriptedEngine
    private var received = ""

    var loop: EmbeddedEventLoop { channel.embeddedEventLoop }

    init(
        configure: (inout ServerConfiguration) -> Void = { _ in }, engine: ScriptedEngine = ScriptedEngine(),
        connection: (any EngineConnection)? = nil, watch: EngineWatch? = nil,
        startup: StartupTimeline = StartupTimeline(),
        routes: (inout Router, ServerContext) -> Void = { router, _ in TestRoutes.install(&router) }
    ) throws {
        var configuration = ServerConfiguration(modelTag: "models/tiny", servedModelNames: ["tiny", "tiny-alias"])
        configuration.disableAccessLog = true
        configure(&configuration)
        channel = EmbeddedChannel()
        self.engine = engine
        context = ServerContext(
            configuration: configuration, engine: connection ?? engine,
            metrics: FrontendMetrics(modelName: "tiny", startTime: 1), group: channel.embeddedEventLoop, startTime: 1,
            watch: watch, startup: startup)
        var router = Router()
        routes(&router, context)
        let service = HTTPService(context: context, router: router)
        try HTTPListener.configure(channel, service: service)
        channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1234), promise: nil)
    }

    var isOpen: Bool { channel.isActive }

    func send(_ text: String) throws {
        try channel.writeInbound(ByteBuffer(string: text))
        channel.embeddedEventLoop.run()
    }

    /// All bytes since the last call.
    func receive() throws -> String {
        channel.embeddedEventLoop.run()
        var text = ""
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: buffer) }
        return text
    }

    /// Number of non-empty writes since the last call.
    func receiveWrites() throws -> [String] {
        channel.embeddedEventLoop.run()
        var writes: [String] = []
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) {
            if buffer.readableBytes > 0 { writes.append(String(buffer: buffer)) }
        }
        return writes
    }

    func exchange(_ request: String) throws -> WireResponse {
        try send(request)
        return try #require(WireResponse.parse(try receive()).first, "no complete response")
    }

    func get(_ path: String, headers: String = "") throws -> WireResponse {
        try exchange("GET \(path) HTTP/1.1\r\nHost: x\r\n\(headers)\r\n")
    }

    func post(_ path: String, _ body: String = "", headers: String = "") throws -> WireResponse {
        try exchange(
            "POST \(path) HTTP/1.1\r\nHost: x\r\nContent-Length: \(body.utf8.count)\r\n\(headers)\r\n\(body)")
    }

    func close() { _ = try? channel.finish(acceptAlreadyClosed: true) }
}

extension WireResponse {
    /// Splits a byte stream into responses; stops at the first incomplete one.
    static func parse(_ text: String) -> [WireResponse] {
        var rest = Array(text.utf8)[...]
        var responses: [WireResponse] = []
        while let end = rest.firstRange(of: Array("\r\n\r\n".utf8)) {
            let lines = String(decoding: rest[..<end.lowerBound], as: UTF8.self)
                .split(separator: "\r\n", omittingEmptySubsequences: false)
            rest = rest[end.upperBound...]
            let status = Int(lines[0].split(separator: " ")[1]) ?? -1
            if status == 100 { continue }
            var headers = HTTPHeaders()
            for line in lines.dropFirst() {
                guard let colon = line.firstIndex(of: ":") else { continue }
                headers.add(
                    name: String(line[..<colon]), value: String(line[line.index(colon, offsetBy: 2)...]))
            }
            var response = WireResponse(status: status, headers: headers, body: "")
            if headers.first(name: "transfer-encoding") == "chunked" {
                guard let (chunks, after) = parseChunks(rest) else { return responses }
                response.chunks = chunks
                response.body = chunks.joined()
                rest = after
            } else if let length = headers.first(name: "content-length").flatMap({ Int($0) }) {
                let count = min(length, rest.count)
                response.body = String(decoding: rest.prefix(count), as: UTF8.self)
                rest = rest.dropFirst(count)
            } else {
                response.body = String(decoding: rest, as: UTF8.self)
                rest = []
            }
            responses.append(response)
        }
        return responses
    }

    /// nil while the last chunk is missing.
    static func parseChunks(_ bytes: ArraySlice<UInt8>) -> ([String], ArraySlice<UInt8>)? {
        var rest = bytes
        var chunks: [String] = []
        while let line = rest.firstRange(of: Array("\r\n".utf8)) {
            guard let size = Int(String(decoding: rest[..<line.lowerBound], as: UTF8.self), radix: 16) else {
                return nil
            }
            rest = rest[line.upperBound...]
            guard rest.count >= size + 2 else { return nil }
            if size == 0 { return (chunks, rest.dropFirst(2)) }
            chunks.append(String(decoding: rest.prefix(size), as: UTF8.self))
            rest = rest.dropFirst(size + 2)
        }
        return nil
    }
}

/// A stream that a test drives by hand; only touched on the test's embedded loop.
final class StreamProbe: @unchecked Sendable {
    var response: (any ResponseWriter)?
    var disconnects = 0
    var becameWritable = 0
}

enum TestRoutes {
    static func install(_ router: inout Router, stream: StreamProbe? = nil) {
        router.add(.POST, "/echo", .work) { request, response in
            response.send(status: .ok, contentType: "text/plain", headers: [:], body: request.body)
        }
        router.add(.GET, "/v1/echo") { request, response in
            response.send(
                status: .ok, contentType: "text/plain", headers: [:], body: ByteBuffer(string: request.query))
        }
        router.add(.GET, "/inject") { _, response in
            response.send(
                status: .ok, contentType: "text/plain", headers: ["x-evil": "a\r\nset-cookie: b"], body: ByteBuffer())
        }
        guard let stream else { return }
        // Leaves the response to the test.
        router.add(.POST, "/stream", .work) { _, response in
            stream.response = response
            response.onDisconnect = { stream.disconnects += 1 }
            response.onWritable = { stream.becameWritable += 1 }
        }
    }
}

enum ChunkedAnswer {
    /// The events of a chunked answer, in their order.
    static func events(_ answer: String) -> [Substring] {
        let bytes = Array(answer.utf8)
        let blank = Array("\r\n\r\n".utf8)
        guard let head = bytes.indices.first(where: { bytes[$0...].starts(with: blank) }) else { return [] }
        var position = head + blank.count
        var body: [UInt8] = []
        while position < bytes.count {
            guard let end = bytes[position...].firstIndex(of: 13),
                let size = Int(String(decoding: bytes[position..<end], as: UTF8.self), radix: 16),
                end + 4 + size <= bytes.count
            else { break }
            body += bytes[(end + 2)..<(end + 2 + size)]
            position = end + 4 + size
        }
        return String(decoding: body, as: UTF8.self).split(separator: "\n")
    }
}
