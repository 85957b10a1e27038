import NIOSSL
import Synchronization

/// Where requests go.
package struct LoadTarget: Sendable {
    package enum Address: Sendable, Equatable {
        case tcp(host: String, port: Int)
        case unix(path: String)
        /// A TCP connection that the supervisor at this socket makes to one of its frontends and hands over.
        case door(path: String)
    }

    package var address: Address
    /// Before the API's own paths, such as `/v1`'s parent when a proxy adds one; without a slash at its end.
    package var pathPrefix: String
    /// Name and value, sent with every request.
    package var headers: [(name: String, value: String)]
    /// Nil for plain HTTP. The handshake of a new connection counts as time of its first request.
    package var tls: NIOSSLContext?

    package init(
        address: Address, pathPrefix: String = "", headers: [(name: String, value: String)] = [],
        tls: NIOSSLContext? = nil
    ) {
        self.address = address
        self.pathPrefix = pathPrefix
        self.headers = headers
        self.tls = tls
    }

    var hostHeader: String {
        switch address {
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix, .door: "localhost"
        }
    }
}

/// A complete HTTP request. Only the seed differs from one use to the next: it always has 16 digits and is written in place.
package struct RequestTemplate: Sendable {
    /// The least number with that many digits; seeds are counted from here.
    package static let firstSeed: UInt64 = 1_000_000_000_000_000

    let bytes: [UInt8]
    let seedOffset: Int?

    /// A GET.
    package init(getting path: String, target: LoadTarget) {
        bytes = Array(Self.head("GET", path, target).utf8) + Array("\r\n".utf8)
        seedOffset = nil
    }

    private static func head(_ method: String, _ path: String, _ target: LoadTarget) -> String {
        var head = "\(method) \(target.pathPrefix)\(path) HTTP/1.1\r\nHost: \(target.hostHeader)\r\nAccept: */*\r\n"
        for (name, value) in target.headers { head += "\(name): \(value)\r\n" }
        return head
    }

    /// - Parameters:
    ///   - body: JSON. Its first occurrence of `seedPlaceholder` is replaced by the seed.
    package init(path: String, body: String, target: LoadTarget) {
        var head = Self.head("POST", path, target) + "Content-Type: application/json\r\n"
        head += "Content-Length: \(body.utf8.count)\r\n\r\n"
        let bytes = Array(head.utf8) + Array(body.utf8)
        let placeholder = Array(String(Self.firstSeed).utf8)
        var found: Int?
        if let place = bytes.firstRange(of: Array("\"seed\":".utf8) + placeholder) {
            found = place.upperBound - placeholder.count
        }
        self.bytes = bytes
        seedOffset = found
    }
}

package struct PlannedRequest: Sendable, Equatable {
    /// Index into the plan's templates.
    package var item: Int
    package var seed: UInt64
    /// For reserving memory; 0 if unknown.
    package var expectedTokens: Int

    package init(item: Int, seed: UInt64, expectedTokens: Int = 0) {
        self.item = item
        self.seed = seed
        self.expectedTokens = expectedTokens
    }
}

/// How far a block is, for other threads to look at: 0 to 1, brought up to date every few milliseconds.
package final class LoadMeter: Sendable {
    private let parts = Atomic<UInt64>(0)

    package init() {}

    package var fraction: Double {
        get { Double(bitPattern: parts.load(ordering: .relaxed)) }
        set { parts.store(newValue.bitPattern, ordering: .relaxed) }
    }
}

/// One block of load.
package struct LoadPlan: Sendable {
    package var templates: [RequestTemplate]
    package var requests: [PlannedRequest]
    /// Offsets of an open loop; nil = closed loop.
    package var offsets: [Nanoseconds]?
    /// Most requests at a time; nil = as many as come. In a closed loop this is the load.
    package var concurrency: Int?
    /// A request fails when nothing has come for this long.
    package var silenceLimit: Nanoseconds
    /// Connections that are open before the block starts.
    package var openedBefore: Int

    package init(
        templates: [RequestTemplate], requests: [PlannedRequest], offsets: [Nanoseconds]?, concurrency: Int?,
        silenceLimit: Nanoseconds = 60_000_000_000, openedBefore: Int = 0
    ) {
        self.templates = templates
        self.requests = requests
        self.offsets = offsets
        self.concurrency = concurrency
        self.silenceLimit = silenceLimit
        self.openedBefore = openedBefore
    }
}
