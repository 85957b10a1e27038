import Glibc

/// A resolved address of a stream socket.
package struct SocketAddress {
    fileprivate var storage: sockaddr_storage
    package private(set) var length: socklen_t

    package var family: Int32 { Int32(storage.ss_family) }

    fileprivate init(storage: sockaddr_storage, length: socklen_t) {
        self.storage = storage
        self.length = length
    }

    /// Resolves a host name or a literal of either family. An empty host is the wildcard.
    package static func resolve(host: String, port: UInt16) throws -> SocketAddress {
        var hints = addrinfo()
        hints.ai_family = host.isEmpty ? AF_INET : AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host.isEmpty ? nil : bare(host), String(port), &hints, &list)
        defer { if let list { freeaddrinfo(list) } }
        guard status == 0, let first = list?.pointee, let address = first.ai_addr else {
            throw SupervisionError(.addressInUse, "--host \(host): \(String(cString: gai_strerror(status)))")
        }
        var storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) {
            $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(first.ai_addrlen)))
        }
        return SocketAddress(storage: storage, length: first.ai_addrlen)
    }

    private static func bare(_ host: String) -> String {
        host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
    }

    /// Longest path of a unix socket, without the terminator.
    package static let longestPath = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

    package static func unix(path: String) throws -> SocketAddress {
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, !bytes.contains(0), bytes.count <= longestPath else {
            throw SupervisionError(.usage, "unix socket path must have 1 to \(longestPath) bytes: \(path)")
        }
        var storage = sockaddr_storage()
        storage.ss_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &storage) { raw in
            for (index, byte) in bytes.enumerated() { raw[2 + index] = byte }
        }
        return SocketAddress(storage: storage, length: socklen_t(2 + bytes.count + 1))
    }

    /// A unix socket name outside the file system.
    package static func abstract(name: String) throws -> SocketAddress {
        let address = try unix(path: "@" + name)
        var storage = address.storage
        withUnsafeMutableBytes(of: &storage) { $0[2] = 0 }
        // No terminator: every byte counts.
        return SocketAddress(storage: storage, length: address.length - 1)
    }

    /// The address a descriptor is bound to.
    package static func ofSocket(_ descriptor: Int32) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let status = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        return status == 0 ? SocketAddress(storage: storage, length: length) : nil
    }

    package func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        var copy = storage
        return withUnsafePointer(to: &copy) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    package var port: UInt16? {
        guard family == AF_INET || family == AF_INET6 else { return nil }
        return withUnsafeBytes(of: storage) { UInt16(bigEndian: $0.loadUnaligned(fromByteOffset: 2, as: UInt16.self)) }
    }

    /// Address bytes in network order: 4 or 16 of them, none for unix sockets.
    package var addressBytes: [UInt8] {
        switch family {
        case AF_INET: withUnsafeBytes(of: storage) { Array($0[4..<8]) }
        case AF_INET6: withUnsafeBytes(of: storage) { Array($0[8..<24]) }
        default: []
        }
    }

    /// Of a unix socket in the file system; nil for all others.
    var path: String? {
        guard family == AF_UNIX, length > 2 else { return nil }
        let bytes = withUnsafeBytes(of: storage) { $0[2..<Int(length)].prefix { $0 != 0 }.map { $0 } }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }

    package var isWildcard: Bool { !addressBytes.isEmpty && addressBytes.allSatisfy { $0 == 0 } }

    /// Numeric host, IPv6 without brackets.
    package var host: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { buffer in
            guard let base = buffer.baseAddress else { return "?" }
            let status = withPointer {
                getnameinfo($0, $1, base, socklen_t(buffer.count), nil, 0, NI_NUMERICHOST)
            }
            return status == 0 ? String(cString: base) : "?"
        }
    }

    /// `127.0.0.1:8000`, `[::1]:8000`.
    package var hostAndPort: String {
        let host = host
        return "\(host.contains(":") ? "[\(host)]" : host):\(port ?? 0)"
    }

    /// What a client on this machine connects to: the wildcard becomes loopback.
    package var reachable: SocketAddress {
        guard isWildcard else { return self }
        var copy = self
        withUnsafeMutableBytes(of: &copy.storage) { raw in
            if family == AF_INET {
                raw[4] = 127
                raw[7] = 1
            } else {
                raw[23] = 1
            }
        }
        return copy
    }
}

/// A close-on-exec stream socket.
func makeStreamSocket(_ family: Int32, nonBlocking: Bool = false) throws -> FileDescriptor {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let flags = nonBlocking ? Int32(SOCK_NONBLOCK.rawValue) : 0
    let descriptor = FileDescriptor(owning: socket(family, kind | flags, 0))
    guard descriptor.isOpen else {
        throw SupervisionError(.failure, "cannot create a socket: \(describeErrno(errno))")
    }
    return descriptor
}

/// Listens at a unix socket that only its owner may connect to. Non-blocking.
func makePrivateListener(path: String) throws -> FileDescriptor {
    let address = try SocketAddress.unix(path: path)
    let listener = try makeStreamSocket(AF_UNIX, nonBlocking: true)
    // Nobody can connect between bind and chmod: there is no listening yet.
    guard address.withPointer({ bind(listener.rawValue, $0, $1) }) == 0, chmod(path, 0o600) == 0,
        listen(listener.rawValue, 512) == 0
    else { throw SupervisionError(.failure, "socket \(path): \(describeErrno(errno))") }
    return listener
}

/// Takes a waiting connection of a non-blocking listener; nil when there is none.
func acceptConnection(_ listener: FileDescriptor) -> FileDescriptor? {
    let socket = FileDescriptor(owning: accept(listener.rawValue, nil, nil))
    guard socket.isOpen else { return nil }
    _ = fcntl(socket.rawValue, F_SETFD, FD_CLOEXEC)
    _ = fcntl(socket.rawValue, F_SETFL, O_NONBLOCK)
    return socket
}

func setSocketFlag(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ on: Bool) {
    var value: Int32 = on ? 1 : 0
    setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
}
