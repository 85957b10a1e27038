import CProcessShims
import Glibc

/// A private directory (0700) for the unix sockets of one run: `vllm-engine-<pid>-<start time>`.
///
/// Pid and start time of the owner are in the name, so that a later run can tell a stale one and remove it. The owner also
/// holds a lock on it: a run in another container, with which only the folder above is shared, sees no such pid.
package final class RuntimeDirectory {
    package let path: String
    private var lock = FileDescriptor(owning: -1)

    private static let prefix = "vllm-engine-"
    private static let addressFile = "http-address"
    /// Longest file name that is put into the directory.
    private static let longestName = 32

    private init(path: String) { self.path = path }

    /// Chooses the place without creating anything: the first base directory that is writable and short enough for
    /// unix socket paths.
    package static func plan(in bases: [String] = standardBases()) throws -> RuntimeDirectory {
        let pid = getpid()
        // Where /proc says nothing about us, every process 1 would have the same name.
        let start = ProcessInfo.isComplete ? ProcessInfo.startTime(of: pid) : nil
        let name = "\(prefix)\(pid)-\(start ?? UInt64(UInt32.random(in: 0 ... .max)))"
        var problems: [String] = []
        for base in bases {
            let path = "\(base)/\(name)"
            if access(base, W_OK | X_OK) != 0 {
                problems.append("\(base): \(describeErrno(errno))")
            } else if path.utf8.count + 1 + longestName > SocketAddress.longestPath {
                problems.append("\(base): too long for unix sockets")
            } else {
                return RuntimeDirectory(path: path)
            }
        }
        throw SupervisionError(
            .usage,
            "no directory for internal sockets (\(problems.joined(separator: "; "))); set VLLM_RPC_BASE_PATH to one")
    }

    /// `VLLM_RPC_BASE_PATH` as in vLLM, then the user's runtime directory, then /tmp.
    package static func standardBases() -> [String] {
        ["VLLM_RPC_BASE_PATH", "XDG_RUNTIME_DIR"].compactMap { ProcessInfo.environmentVariable($0) } + ["/tmp"]
    }

    /// Makes and locks it. The lock is held as long as this object lives, or until `remove`.
    package func create() throws {
        for _ in 0..<3 {
            guard mkdir(path, 0o700) == 0 else { break }
            lock = Self.openFolder(path)
            _ = retryingInterrupts { flock(lock.rawValue, LOCK_EX) }
            // Somebody who swept before it was locked has removed it.
            if access(path, F_OK) == 0 { return }
        }
        throw SupervisionError(.usage, "cannot create \(path): \(describeErrno(errno))")
    }

    private static func openFolder(_ path: String) -> FileDescriptor {
        FileDescriptor(owning: open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC))
    }

    package func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Writes a small file and returns its path.
    @discardableResult
    package func write(_ text: String, to name: String) throws -> String {
        let path = file(name)
        let descriptor = FileDescriptor(owning: open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600))
        let bytes = Array(text.utf8)
        guard descriptor.isOpen,
            retryingInterrupts({ Glibc.write(descriptor.rawValue, bytes, bytes.count) }) == bytes.count
        else { throw SupervisionError(.failure, "cannot write \(path): \(describeErrno(errno))") }
        return path
    }

    /// Makes a folder inside and returns its path.
    package func createFolder(_ name: String) throws -> String {
        let path = file(name)
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
            throw SupervisionError(.failure, "cannot create \(path): \(describeErrno(errno))")
        }
        return path
    }

    /// Notes which HTTP address this run holds, for others that find the port taken before anybody listens on it.
    package func note(httpAddress: String) throws {
        try write(httpAddress, to: Self.addressFile)
    }

    /// Removes the directory and what is in it.
    package func remove() {
        _ = cps_remove_directory(path)
        lock.close()
    }

    /// Removes directories whose owners are dead. Returns their paths.
    @discardableResult
    package static func sweepStale(in bases: [String] = standardBases()) -> [String] {
        var removed: [String] = []
        for (path, owner) in others(in: bases) {
            let folder = openFolder(path)
            defer { folder.close() }
            if isInUse(folder, by: owner) { continue }
            if cps_remove_directory(path) == 0 { removed.append(path) }
        }
        return removed
    }

    /// Whether somebody holds the lock; otherwise we do from now on, as long as the descriptor is open. Only where a file
    /// system knows no locks the pid counts, which may be that of a process in another container.
    private static func isInUse(_ folder: FileDescriptor, by owner: Owner) -> Bool {
        guard folder.isOpen else { return true }
        if flock(folder.rawValue, LOCK_EX | LOCK_NB) == 0 { return false }
        return errno == EWOULDBLOCK || owner.isAlive
    }

    private static func isInUse(_ path: String, by owner: Owner) -> Bool {
        let folder = openFolder(path)
        defer { folder.close() }
        return isInUse(folder, by: owner)
    }

    /// The supervisor that has this port bound, also when nobody listens yet.
    package static func ownerOfPort(_ port: UInt16, in bases: [String] = standardBases()) -> pid_t? {
        others(in: bases).first { path, owner in
            isInUse(path, by: owner) && ProcessInfo.readFile("\(path)/\(addressFile)")?.hasSuffix(":\(port)") == true
        }?.owner.pid
    }

    /// A supervisor of this user that is alive; one in a container has the pid that it sees itself.
    package struct Run: CustomStringConvertible {
        package let path: String
        package let pid: pid_t
        /// As noted: `http://host:port` or `unix:path`.
        package let address: String

        package var description: String { "pid \(pid) (\(address))" }
    }

    package static func runs(in bases: [String] = standardBases()) -> [Run] {
        var seen: Set<String> = []
        return others(in: bases).compactMap { path, owner in
            // Two of the bases may be the same folder.
            guard isInUse(path, by: owner), seen.insert(path).inserted,
                let address = ProcessInfo.readFile("\(path)/\(addressFile)")
            else { return nil }
            return Run(path: path, pid: owner.pid, address: address)
        }
    }

    struct Owner {
        var pid: pid_t
        var startTime: UInt64

        var isAlive: Bool { ProcessInfo.startTime(of: pid) == startTime }
    }

    /// Pid and start time out of a directory's name.
    static func owner(fromName name: String) -> Owner? {
        guard name.hasPrefix(prefix) else { return nil }
        let parts = name.dropFirst(prefix.count).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let pid = pid_t(parts[0]), pid > 0, let start = UInt64(parts[1]) else { return nil }
        return Owner(pid: pid, startTime: start)
    }

    private static func others(in bases: [String]) -> [(path: String, owner: Owner)] {
        bases.flatMap { base in
            ProcessInfo.directoryEntries(base).compactMap { name in
                guard let owner = owner(fromName: name) else { return nil }
                let path = "\(base)/\(name)"
                var status = stat()
                // Somebody else's directory, or a link planted in /tmp, is none of our business.
                guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid() else {
                    return nil
                }
                return (path, owner)
            }
        }
    }
}
