import Glibc
import Metrics
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import OpenAIServer
import Synchronization
import Testing

/// A server on an inherited socket, and blocking clients for it.
final class TestServer {
    enum Family { case tcp, unix }

    let descriptor: Int32
    let context: ServerContext
    private let group: MultiThreadedEventLoopGroup
    private let listener: HTTPListener
    private let address: SocketAddress
    private var directory: String?

    init(
        _ family: Family, tls: TLSSettings? = nil, configure: (inout ServerConfiguration) -> Void = { _ in },
        routes: (inout Router) -> Void = { _ in }
    ) throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        switch family {
        case .tcp: address = try SocketAddress(ipAddress: "127.0.0.1", port: 0)
        case .unix:
            let directory = try Self.temporaryDirectory()
            self.directory = directory
            address = try SocketAddress(unixDomainSocketPath: directory + "/http")
        }
        descriptor = socket(family == .tcp ? AF_INET : AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let descriptor = descriptor
        let bound = address.withSockAddr { bind(descriptor, $0, socklen_t($1)) }
        #expect(bound == 0)
        context = try Self.makeContext(group: group, configure: configure)
        var router = Router()
        TestRoutes.install(&router)
        routes(&router)
        listener = try HTTPListener.start(
            on: .descriptor(descriptor), service: HTTPService(context: context, router: router), group: group,
            tls: try tls.map { TLSContextBox(try $0.makeContext()) })
    }

    static func makeContext(
        group: MultiThreadedEventLoopGroup, configure: (inout ServerConfiguration) -> Void = { _ in }
    ) throws -> ServerContext {
        var configuration = ServerConfiguration(modelTag: "models/tiny", servedModelNames: ["tiny"])
        configuration.disableAccessLog = true
        configuration.limits.lingerTimeout = .milliseconds(300)
        configure(&configuration)
        return ServerContext(
            configuration: configuration, engine: ScriptedEngine(),
            metrics: FrontendMetrics(modelName: "tiny", startTime: 1), group: group, startTime: 1)
    }

    func connect(receiveBuffer: Int32? = nil) throws -> TestClient {
        let target = try #require(listener.localAddress)
        return try TestClient(target, receiveBuffer: receiveBuffer)
    }

    /// Sends a request and reads until the server closes.
    func ask(_ request: String) throws -> String {
        let client = try connect()
        defer { client.close() }
        client.send(request)
        return client.receive(until: nil)
    }

    func askTLS(_ request: String) async throws -> String {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification = .none
        let context = try NIOSSLContext(configuration: configuration)
        let target = try #require(listener.localAddress)
        return try await ClientBootstrap(group: group)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        NIOSSLClientHandler(context: context, serverHostname: nil))
                }
            }
            .connect(to: target)
            .flatMap { channel in
                let done = channel.eventLoop.makePromise(of: String.self)
                return channel.pipeline.addHandler(ResponseCollector(done)).flatMap {
                    channel.writeAndFlush(ByteBuffer(string: request))
                }.flatMap { done.futureResult }
            }.get()
    }

    func stop() async throws {
        try await listener.close().get()
        try await group.shutdownGracefully()
        if let directory {
            unlink(directory + "/http")
            rmdir(directory)
        }
    }

    static func temporaryDirectory() throws -> String {
        var template = Array("/tmp/vllm-http-test-XXXXXX".utf8CString)
        let path = try #require(mkdtemp(&template))
        return String(cString: path)
    }

    static func write(_ text: String, to path: String) throws {
        let file = try #require(fopen(path, "w"))
        fputs(text, file)
        fclose(file)
    }

    static func readInteger(_ path: String) -> Int? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 64)
        guard fgets(&line, Int32(line.count), file) != nil else { return nil }
        return atol(line)
    }
}

/// A blocking socket.
final class TestClient {
    private let descriptor: Int32

    init(_ target: SocketAddress, receiveBuffer: Int32?) throws {
        descriptor = socket(target.protocol == .unix ? AF_UNIX : AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBuffer {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        let result = target.withSockAddr { Glibc.connect(descriptor, $0, socklen_t($1)) }
        #expect(result == 0)
    }

    func send(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }

    /// Everything until `mark` has come, or until the end.
    func receive(until mark: String?) -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { break }
            bytes += buffer[..<count]
            if let mark, String(decoding: bytes, as: UTF8.self).contains(mark) { break }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    func shutdownWrites() { shutdown(descriptor, Int32(SHUT_WR)) }

    func closeWithReset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        Glibc.close(descriptor)
    }

    func close() { Glibc.close(descriptor) }
}

/// Collects everything until the server closes.
private final class ResponseCollector: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private let done: EventLoopPromise<String>
    private let text = Mutex("")

    init(_ done: EventLoopPromise<String>) { self.done = done }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = String(buffer: unwrapInboundIn(data))
        text.withLock { $0 += part }
    }

    func channelInactive(context: ChannelHandlerContext) { done.succeed(text.withLock { $0 }) }
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}

/// Self-signed, for `localhost`; made for this test, protects nothing.
enum TestCertificate {
    static let pem = """
        -----BEGIN CERTIFICATE-----
        MIIBfzCCASWgAwIBAgIUDIfwwKgumTXSCE+TvAndf73872kwCgYIKoZIzj0EAwIw
        FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTAzMjI0M1oYDzIxMjYxMDI4
        MDMyMjQzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
        PQMBBwNCAATFQZfg9coxoyy0t1wMuRN9Q/+SH5Dk31HOizB7TZQz/J8fQECQ9ykA
        +opX8oX8PO9AJcDEBVJghbcrwlba+IAzo1MwUTAdBgNVHQ4EFgQUcvyR/MVpD527
        Yak9kl3JSEujV94wHwYDVR0jBBgwFoAUcvyR/MVpD527Yak9kl3JSEujV94wDwYD
        VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEArgrknrYZkyeXY3ZdB1l7
        4X8c1Ybhyt5q66nlckd9hGMCICnvEwzW0lEZZG2lHXlzPtir2wKsKSbsUQ671bsa
        8eE+
        -----END CERTIFICATE-----
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBGewCMfwXbRjv84d
        W5cTBDRb0lFwA84v0Ds5usFtxnmhRANCAATFQZfg9coxoyy0t1wMuRN9Q/+SH5Dk
        31HOizB7TZQz/J8fQECQ9ykA+opX8oX8PO9AJcDEBVJghbcrwlba+IAz
        -----END PRIVATE KEY-----
        """
}
