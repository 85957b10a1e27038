import Glibc
import ZeroMQ

/// A bound and listening stream socket that a frontend adopts for its ROUTER or PULL (vLLM: `make_zmq_listener`).
///
/// Engines get the address string in the INIT message and may connect before the frontend exists: the kernel's backlog
/// holds them.
package final class ZMQListener {
    /// `ipc://path` or `tcp://host:port`.
    package let address: String
    package let descriptor: FileDescriptor

    /// - Parameter address: `ipc://path` or `tcp://host:port`, port 0 = any; see `engineClientZMQAddress`.
    /// - Parameter sends: the frontend also sends through it (ROUTER), so its send buffer matters too.
    package init(address: String, sends: Bool) throws {
        let socketAddress: SocketAddress
        if address.hasPrefix("ipc://") {
            socketAddress = try .unix(path: String(address.dropFirst(6)))
        } else if address.hasPrefix("tcp://"), let colon = address.lastIndex(of: ":"),
            let port = UInt16(address[address.index(after: colon)...])
        {
            let host = address[address.index(address.startIndex, offsetBy: 6)..<colon]
            socketAddress = try .resolve(host: String(host), port: port)
        } else {
            throw SupervisionError(.usage, "not an ipc:// or tcp:// address: \(address)")
        }
        let descriptor = try makeStreamSocket(socketAddress.family)
        self.descriptor = descriptor
        // Must be set before listen: accepted connections inherit it.
        if let size = Self.bufferSize {
            var value = size
            setsockopt(descriptor.rawValue, SOL_SOCKET, SO_RCVBUF, &value, socklen_t(MemoryLayout<Int32>.size))
            if sends {
                setsockopt(descriptor.rawValue, SOL_SOCKET, SO_SNDBUF, &value, socklen_t(MemoryLayout<Int32>.size))
            }
        }
        guard socketAddress.withPointer({ bind(descriptor.rawValue, $0, $1) }) == 0,
            listen(descriptor.rawValue, 1024) == 0
        else {
            throw SupervisionError(.failure, "cannot listen on \(address): \(describeErrno(errno))")
        }
        do {
            self.address = try ZMQEndpoint.ofListener(descriptor.rawValue)
        } catch {
            throw SupervisionError(.failure, "\(error)")
        }
    }

    /// vLLM's rule: 512 MiB of socket buffer on machines with more than 32 GiB of memory of which 16 GiB are free.
    private static let bufferSize: Int32? = {
        var total = 0
        var available = 0
        for line in (ProcessInfo.readFile("/proc/meminfo") ?? "").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 1, let kibibytes = Int(words[1]) else { continue }
            if words[0] == "MemTotal:" { total = kibibytes }
            if words[0] == "MemAvailable:" { available = kibibytes }
        }
        return total > 32 << 20 && available > 16 << 20 ? 512 << 20 : nil
    }()

    /// Closes our copy; the path stays until the runtime directory goes.
    package func close() { descriptor.close() }
}

/// Where a frontend's sockets for engines live (vLLM: `get_engine_client_zmq_addr`): a fresh unix path when everything
/// is on this machine, else `tcp://host:port` with port 0 meaning that the kernel chooses at bind time.
package func engineClientZMQAddress(
    localOnly: Bool, host: String, port: UInt16 = 0, directory: RuntimeDirectory
) -> String {
    if localOnly {
        let suffix = UInt64.random(in: 0 ... .max)
        return "ipc://" + directory.file(String(suffix, radix: 36) + ".sock")
    }
    return "tcp://\(host.contains(":") && !host.hasPrefix("[") ? "[\(host)]" : host):\(port)"
}
