import Glibc

/// The HTTP socket: bound here first of all (or passed by a service manager), handed to the frontend which calls `listen`
/// on it, kept for its successors.
package final class HTTPListener {
    package let descriptor: FileDescriptor
    /// `http://127.0.0.1:8000` or `unix:/path`.
    package let displayAddress: String
    /// Nil for a unix socket.
    package let port: UInt16?
    /// Where a health probe connects.
    let probeAddress: SocketAddress
    private var unixPath: String?

    init(
        descriptor: FileDescriptor, displayAddress: String, port: UInt16?, probeAddress: SocketAddress,
        unixPath: String?
    ) {
        self.descriptor = descriptor
        self.displayAddress = displayAddress
        self.port = port
        self.probeAddress = probeAddress
        self.unixPath = unixPath
    }

    deinit { close() }

    /// Gives the address up; a unix socket's path is removed. Idempotent.
    package func close() {
        if let unixPath { unlink(unixPath) }
        unixPath = nil
        descriptor.close()
    }

    /// Leaves the socket to the frontends that have it: the address lives as long as they do, or until `close`.
    func leave() { descriptor.close() }

    /// Whether the frontend has called `listen`.
    package var isListening: Bool { Self.isListening(descriptor.rawValue) }

    static func isListening(_ descriptor: Int32) -> Bool {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
    }

    /// To be called once this run has noted its address where other runs look (`RuntimeDirectory.note`), and before
    /// anybody listens: connections inherit the option, and without it those in TIME_WAIT would block the port for a
    /// minute after we are gone.
    package func allowReuse() {
        setSocketFlag(descriptor.rawValue, SOL_SOCKET, SO_REUSEADDR, true)
    }

    // MARK: - TCP

    /// Binds host and port. Port 0 lets the kernel choose.
    /// - Throws: `SupervisionError(.addressInUse)` naming the process that holds the port.
    package static func bind(host: String, port: UInt16, scheme: String = "http") throws -> HTTPListener {
        let address = try SocketAddress.resolve(host: host, port: port)
        let descriptor = try makeStreamSocket(address.family)
        // Two sockets with SO_REUSEADDR may be bound to one port as long as neither listens, and ours does not listen
        // until the frontend is up. So it is tried without first. That also fails on a port that is free except for
        // connections in TIME_WAIT; only if nobody is found to hold it, it is tried again.
        var code = attempt(descriptor, address)
        if code == EADDRINUSE, let holder = holder(of: address) {
            throw SupervisionError(.addressInUse, "\(address.hostAndPort) is in use: held by \(holder)")
        }
        if code == EADDRINUSE {
            setSocketFlag(descriptor.rawValue, SOL_SOCKET, SO_REUSEADDR, true)
            code = attempt(descriptor, address)
            setSocketFlag(descriptor.rawValue, SOL_SOCKET, SO_REUSEADDR, false)
        }
        guard code == 0 else { throw bindError(code, address) }
        guard let bound = SocketAddress.ofSocket(descriptor.rawValue) else {
            throw SupervisionError(.addressInUse, "cannot read the address of the HTTP socket")
        }
        return HTTPListener(
            descriptor: descriptor, displayAddress: "\(scheme)://\(bound.hostAndPort)", port: bound.port,
            probeAddress: bound.reachable, unixPath: nil)
    }

    /// Another socket on the same TCP address. Both need `SO_REUSEPORT`, this one's must be set already.
    func sibling() throws -> HTTPListener {
        guard let address = SocketAddress.ofSocket(descriptor.rawValue) else {
            throw SupervisionError(.addressInUse, "cannot read the address of the HTTP socket")
        }
        let other = try makeStreamSocket(address.family)
        setSocketFlag(other.rawValue, SOL_SOCKET, SO_REUSEPORT, true)
        setSocketFlag(other.rawValue, SOL_SOCKET, SO_REUSEADDR, true)
        let code = Self.attempt(other, address)
        guard code == 0 else { throw Self.bindError(code, address) }
        return HTTPListener(
            descriptor: other, displayAddress: displayAddress, port: port, probeAddress: probeAddress, unixPath: nil)
    }

    private static func attempt(_ descriptor: FileDescriptor, _ address: SocketAddress) -> Int32 {
        address.withPointer { Glibc.bind(descriptor.rawValue, $0, $1) } == 0 ? 0 : errno
    }

    /// Who listens on the address, or holds it without listening yet and is one of us.
    private static func holder(of address: SocketAddress) -> String? {
        if let pid = PortOwner.ofListener(at: address) { return PortOwner.describe(pid) }
        guard let port = address.port, let pid = RuntimeDirectory.ownerOfPort(port) else { return nil }
        return PortOwner.describe(pid) + ", which is still starting"
    }

    private static func bindError(_ code: Int32, _ address: SocketAddress) -> SupervisionError {
        guard code == EADDRINUSE else {
            return SupervisionError(.addressInUse, "cannot bind \(address.hostAndPort): \(describeErrno(code))")
        }
        return SupervisionError(
            .addressInUse, "\(address.hostAndPort) is in use by a process that is not visible to this user")
    }

    // MARK: - Unix socket

    /// Binds a unix socket. The file of a dead owner is replaced; a live owner is named in the error.
    package static func bind(path: String) throws -> HTTPListener {
        let address = try SocketAddress.unix(path: path)
        var descriptor = try makeStreamSocket(AF_UNIX)
        var code = attempt(descriptor, address)
        if code == EADDRINUSE {
            if let pid = PortOwner.ofUnixSocket(at: path) {
                throw SupervisionError(.addressInUse, "\(path) is in use: held by \(PortOwner.describe(pid))")
            }
            var status = stat()
            guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else {
                throw SupervisionError(.addressInUse, "\(path) exists and is not a socket")
            }
            guard !answers(address) else {
                throw SupervisionError(.addressInUse, "\(path) is in use by a process that is not visible to this user")
            }
            unlink(path)
            descriptor = try makeStreamSocket(AF_UNIX)
            code = attempt(descriptor, address)
        }
        guard code == 0 else {
            throw SupervisionError(.addressInUse, "cannot bind \(path): \(describeErrno(code))")
        }
        return HTTPListener(
            descriptor: descriptor, displayAddress: "unix:\(path)", port: nil, probeAddress: address, unixPath: path)
    }

    private static func answers(_ address: SocketAddress) -> Bool {
        guard let probe = try? makeStreamSocket(AF_UNIX) else { return true }
        return address.withPointer { connect(probe.rawValue, $0, $1) } == 0
    }
}
