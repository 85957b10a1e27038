import Glibc
import NIOCore

/// `tcp://host:port` or `ipc://path`, as ZeroMQ writes addresses.
enum ZMTPEndpoint: Equatable {
    case tcp(host: String, port: Int)
    case unix(path: String)

    init(_ text: String) throws(ZMTPError) {
        if let path = Self.tail(of: text, after: "ipc://"), !path.isEmpty {
            guard !path.hasPrefix("@") else { throw ZMTPError("\(text): names without a path are not supported") }
            self = .unix(path: path)
            return
        }
        guard let rest = Self.tail(of: text, after: "tcp://"), let colon = rest.lastIndex(of: ":") else {
            throw ZMTPError("'\(text)' is no address: tcp://HOST:PORT or ipc://PATH")
        }
        var host = String(rest[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        let port = rest[rest.index(after: colon)...]
        guard !host.isEmpty, let number = port == "*" ? 0 : UInt16(port) else {
            throw ZMTPError("'\(text)' has no host or no port")
        }
        self = .tcp(host: host == "*" ? "0.0.0.0" : host, port: Int(number))
    }

    private static func tail(of text: String, after prefix: String) -> String? {
        text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : nil
    }

    func socketAddress() throws(ZMTPError) -> SocketAddress {
        do {
            switch self {
            case .tcp(let host, let port): return try .makeAddressResolvingHost(host, port: port)
            case .unix(let path): return try .init(unixDomainSocketPath: path)
            }
        } catch {
            throw ZMTPError("\(self): \(error)")
        }
    }

    /// How peers would write the address of a listening channel.
    static func text(of address: SocketAddress?) -> String? {
        switch address {
        case .v4?, .v6?:
            guard let host = address?.ipAddress, let port = address?.port else { return nil }
            return host.contains(":") ? "tcp://[\(host)]:\(port)" : "tcp://\(host):\(port)"
        case .unixDomainSocket?:
            guard let path = address?.pathname, !path.isEmpty else { return nil }
            return "ipc://\(path)"
        case nil: return nil
        }
    }
}

/// A socket that cannot be opened.
package struct ZMTPError: Error, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
