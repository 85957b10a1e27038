import Glibc

/// Who holds an address, for the error that says so.
package enum PortOwner {
    /// The process that listens on a TCP address which collides with `address`, if we may see it.
    package static func ofListener(at address: SocketAddress) -> pid_t? {
        guard let port = address.port else { return nil }
        var inodes: Set<UInt64> = []
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            for line in (ProcessInfo.readFile(table, limit: 64 << 20) ?? "").split(separator: "\n").dropFirst() {
                guard let entry = parse(line), entry.port == port else { continue }
                let anyone = address.isWildcard || entry.bytes.allSatisfy { $0 == 0 }
                if anyone || sameHost(entry.bytes, address.addressBytes) { inodes.insert(entry.inode) }
            }
        }
        return ProcessInfo.owner(ofSocketInodes: inodes)
    }

    /// The process that has a unix socket bound to `path`.
    package static func ofUnixSocket(at path: String) -> pid_t? {
        var inodes: Set<UInt64> = []
        for line in (ProcessInfo.readFile("/proc/net/unix", limit: 64 << 20) ?? "").split(separator: "\n").dropFirst() {
            let fields = line.split(separator: " ", maxSplits: 7, omittingEmptySubsequences: true)
            guard fields.count == 8, fields[7] == path, let inode = UInt64(fields[6]) else { continue }
            inodes.insert(inode)
        }
        return ProcessInfo.owner(ofSocketInodes: inodes)
    }

    /// `pid 812 (python3 -m http.server)`.
    package static func describe(_ pid: pid_t) -> String {
        let command = ProcessInfo.commandLine(of: pid) ?? "unknown command"
        return "pid \(pid) (\(command.count > 160 ? command.prefix(157) + "..." : command[...]))"
    }

    /// Connections with clients on a TCP port that one of these processes, or of their children, has open.
    package static func connections(of pids: [pid_t], on port: UInt16) -> Int {
        var own: Set<UInt64> = []
        for pid in pids.flatMap({ [$0] + ProcessInfo.descendants(of: $0) }) {
            own.formUnion(ProcessInfo.socketInodes(of: pid))
        }
        return ["/proc/net/tcp", "/proc/net/tcp6"].reduce(0) { count, table in
            let lines = (ProcessInfo.readFile(table, limit: 64 << 20) ?? "").split(separator: "\n").dropFirst()
            return count
                + lines.count { line in
                    parse(line, state: "01").map { $0.port == port && own.contains($0.inode) } ?? false
                }
        }
    }

    /// One line of /proc/net/tcp: address as hexadecimal words in host order.
    ///
    /// - Parameter state: of the socket; other lines are nil. Listening unless said otherwise.
    static func parse(_ line: Substring, state: String = "0A") -> (bytes: [UInt8], port: UInt16, inode: UInt64)? {
        let fields = line.split(separator: " ", omittingEmptySubsequences: true)
        guard fields.count > 9, fields[3] == state, let inode = UInt64(fields[9]) else { return nil }
        let parts = fields[1].split(separator: ":")
        guard parts.count == 2, let port = UInt16(parts[1], radix: 16) else { return nil }
        let digits = Array(parts[0])
        guard digits.count == 8 || digits.count == 32 else { return nil }
        var bytes: [UInt8] = []
        for word in stride(from: 0, to: digits.count, by: 8) {
            guard let value = UInt32(String(digits[word..<word + 8]), radix: 16) else { return nil }
            withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
        }
        return (bytes, port, inode)
    }

    /// Equal, or one is the IPv4-mapped form of the other.
    private static func sameHost(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        func mapped(_ bytes: [UInt8]) -> [UInt8] {
            bytes.count == 4 ? [UInt8](repeating: 0, count: 10) + [255, 255] + bytes : bytes
        }
        return mapped(left) == mapped(right)
    }
}
