import Logging
import Metrics
import NIOCore
import NIOHTTP1

/// What all connections of a listener share.
package final class HTTPService: Sendable {
    let context: ServerContext
    let router: Router
    let limits: HTTPLimits
    let keys: APIKeyGuard
    let cors: CORSPolicy
    let rootPath: String
    let logger: Logger
    /// The answer to everything when there is no route at all.
    let refusal: String

    package init(
        context: ServerContext, router: Router, logger: Logger = Logger(label: "http"),
        refusal: String = "The server is shutting down."
    ) {
        self.refusal = refusal
        self.context = context
        self.router = router
        self.logger = logger
        let configuration = context.configuration
        limits = configuration.limits
        keys = APIKeyGuard(keys: configuration.apiKeys)
        cors = CORSPolicy(configuration.cors)
        var root = configuration.rootPath[...]
        while root.last == "/" { root.removeLast() }
        rootPath = String(root)
    }

    /// The path that routes are matched with: `rootPath` is cut off where a proxy left it on.
    func routePath(of uri: Substring) -> String {
        guard !rootPath.isEmpty, uri.hasPrefix(rootPath) else { return String(uri) }
        let rest = uri.dropFirst(rootPath.count)
        guard rest.isEmpty || rest.first == "/" else { return String(uri) }
        return rest.isEmpty ? "/" : String(rest)
    }

    /// Records a finished exchange in the metrics and the log.
    func finished(_ record: ExchangeRecord) {
        if !record.isProbe {
            context.metrics.recordHTTP(
                HTTPSample(
                    handler: record.template ?? "none", method: record.methodLabel, status: record.status,
                    duration: record.seconds, requestBytes: record.requestBytes, responseBytes: record.responseBytes))
        }
        guard !context.configuration.disableAccessLog else { return }
        let quiet = record.template.map { context.configuration.quietEndpoints.contains($0) } ?? false
        if quiet { return }
        logger.info("\(record.line)")
    }
}

/// The facts about one finished exchange.
struct ExchangeRecord {
    var peer: String
    var method: HTTPMethod
    var uri: String
    var version: HTTPVersion
    /// nil for unknown paths.
    var template: String?
    var isProbe: Bool
    /// 499 if the client went before there was any answer, as in common proxies' logs.
    var status: Int
    var seconds: Double
    var requestBytes: Int
    var responseBytes: Int
    var requestID: String?
    var endCause: String?

    /// Bounded: a client may invent methods.
    var methodLabel: String {
        switch method {
        case .GET, .POST, .PUT, .DELETE, .HEAD, .OPTIONS, .PATCH: method.rawValue
        default: "OTHER"
        }
    }

    var line: String {
        var line = ""
        line.reserveCapacity(192)
        line += peer
        line += " - \""
        line += Self.printable(method.rawValue)
        line += " "
        line += Self.printable(uri)
        line += " HTTP/\(version.major).\(version.minor)\" \(status) time="
        line += Self.milliseconds(seconds)
        line += "ms"
        if let endCause { line += " end=\(endCause)" }
        if let requestID {
            line += " id="
            line += Self.printable(requestID)
        }
        return line
    }

    /// Client text in a log: short and without control characters.
    static func printable(_ text: String) -> String {
        if text.utf8.count <= 200, text.utf8.allSatisfy({ (0x20..<0x7F).contains($0) }) { return text }
        var out = ""
        for scalar in text.unicodeScalars.prefix(200) {
            if scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar == "\u{2028}" {
                out += "?"
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
        return out
    }

    private static func milliseconds(_ seconds: Double) -> String {
        let tenths = Int(min(max(seconds, 0), 1e9) * 10_000)
        return "\(tenths / 10).\(tenths % 10)"
    }
}
