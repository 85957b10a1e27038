import Glibc

extension ProcessInfo {
    /// Whether a process waits for connections on a listening socket: some epoll instance of it (or of its children)
    /// watches that socket. That is the one sign of readiness that tells processes apart which share a socket. True where
    /// nobody can see that.
    package static func acceptsConnections(_ pid: pid_t, on descriptor: Int32) -> Bool {
        guard isComplete else { return true }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return false }
        let inode = "ino:" + String(UInt64(status.st_ino), radix: 16)
        return ([pid] + descendants(of: pid)).contains { polls($0, inode: inode[...]) }
    }

    private static func polls(_ pid: pid_t, inode: Substring) -> Bool {
        directoryEntries("/proc/\(pid)/fd").contains { name in
            guard readLink("/proc/\(pid)/fd/\(name)") == "anon_inode:[eventpoll]",
                let text = readFile("/proc/\(pid)/fdinfo/\(name)")
            else { return false }
            return text.split(separator: "\n").contains { line in
                line.hasPrefix("tfd:") && line.split(separator: " ").contains(inode)
            }
        }
    }
}
