import ArgumentParser
import NIOSSL
import Supervision

/// `http[s]://host[:port][/prefix]`; a `/v1` at its end is the API's own.
struct ServerURL {
    private let host: String
    private let port: Int
    private let prefix: String
    private let isEncrypted: Bool

    init(_ url: String) throws {
        let schemes = [("http://", 80, false), ("https://", 443, true)]
        guard let (scheme, usualPort, isEncrypted) = schemes.first(where: { url.hasPrefix($0.0) }),
            url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { throw ValidationError("--base-url: \(url) is not an http:// or https:// URL") }
        self.isEncrypted = isEncrypted
        let rest = url.dropFirst(scheme.count)
        var authority = rest.prefix { $0 != "/" }
        var prefix = String(rest.dropFirst(authority.count))
        while prefix.hasSuffix("/") { prefix.removeLast() }
        if prefix.hasSuffix("/v1") { prefix.removeLast(3) }
        self.prefix = prefix
        var port = usualPort
        if let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") {
            guard let number = Int(authority[authority.index(after: colon)...]), (1...65535).contains(number) else {
                throw ValidationError("--base-url: \(url) has no valid port")
            }
            port = number
            authority = authority[..<colon]
        }
        self.port = port
        let host = authority.hasPrefix("[") && authority.hasSuffix("]") ? authority.dropFirst().dropLast() : authority
        guard !host.isEmpty else { throw ValidationError("--base-url: \(url) has no host") }
        self.host = String(host)
    }

    /// - Parameters:
    ///   - insecure: take any certificate.
    ///   - authorities: PEM file; nil = the system's.
    func target(
        headers: [(name: String, value: String)], insecure: Bool, authorities: String?
    ) throws -> LoadTarget {
        var target = LoadTarget(address: .tcp(host: host, port: port), pathPrefix: prefix, headers: headers)
        guard isEncrypted else { return target }
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = ["http/1.1"]
        if insecure { configuration.certificateVerification = .none }
        if let authorities { configuration.trustRoots = .file(authorities) }
        do { target.tls = try NIOSSLContext(configuration: configuration) } catch {
            throw SupervisionError(
                .usage, "--cacert: \(authorities ?? "the system's authorities") cannot be used: \(error)")
        }
        return target
    }
}
