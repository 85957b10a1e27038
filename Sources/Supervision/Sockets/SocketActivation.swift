import Glibc

/// The HTTP socket as a service manager passes it (systemd's `LISTEN_FDS` protocol). The manager keeps it, so clients that
/// come while no service runs wait in its queue instead of being refused.
extension HTTPListener {
    /// Where passed descriptors begin, `SD_LISTEN_FDS_START`.
    private static let firstPassed: Int32 = 3

    /// The socket that was passed to this process; nil if none was. Children do not see the variables any more.
    /// - Throws: `SupervisionError(.usage)` if it is not one listening stream socket, or not the one that the options name.
    static func passed(for configuration: ServeConfiguration) throws -> HTTPListener? {
        let names = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
        let variables = ProcessInfo.environment()
        guard let pid = variables["LISTEN_PID"], pid_t(pid) == getpid(), let count = variables["LISTEN_FDS"],
            count != "0"
        else { return nil }
        for name in names { unsetenv(name) }
        guard count == "1" else {
            throw SupervisionError(
                .usage, "LISTEN_FDS=\(count): one socket is served, so the unit needs one ListenStream=")
        }
        guard configuration.split.isEmpty else {
            throw SupervisionError(
                .usage, "--split needs sockets of its own, and a service manager has passed one (LISTEN_FDS)")
        }
        let descriptor = FileDescriptor(owning: firstPassed)
        guard fcntl(firstPassed, F_SETFD, FD_CLOEXEC) == 0, isListening(firstPassed),
            let address = SocketAddress.ofSocket(firstPassed)
        else {
            throw SupervisionError(
                .usage,
                "LISTEN_FDS=1, but descriptor 3 is no listening stream socket: ListenStream= with Accept=no is needed")
        }
        try configuration.check(isServedAt: address)
        let scheme = configuration.usesTLS ? "https" : "http"
        return HTTPListener(
            descriptor: descriptor,
            displayAddress: address.path.map { "unix:\($0)" } ?? "\(scheme)://\(address.hostAndPort)",
            port: address.port, probeAddress: address.reachable, unixPath: nil)
    }
}

extension ServeConfiguration {
    /// An option that names another address than the passed socket has would be ignored.
    fileprivate func check(isServedAt address: SocketAddress) throws {
        let isOther: Bool
        if let unixSocketPath {
            isOther = address.path != unixSocketPath
        } else {
            let hostDiffers =
                try host != Self.defaultHost
                && SocketAddress.resolve(host: host, port: 0).addressBytes != address.addressBytes
            isOther = hostDiffers || port != Self.defaultPort && port != address.port
        }
        guard isOther else { return }
        throw SupervisionError(
            .usage,
            "a service manager has passed a socket at \(address.path ?? address.hostAndPort) (LISTEN_FDS): "
                + "leave --host, --port and --uds out, or let them name that address")
    }
}
