import CProcessShims
import Glibc

/// A private directory (0700) for the unix sockets of one run: `vllm-engine-<pid>-<start time>`.
///
/// Pid and start time of the owner are in the name, so that a later run can tell a stale one and remove it.
package struct RuntimeDirectory {
    package let path: String

    private static let prefix = "vllm-engine-"
    private static let addressFile = "http-address"
    /// Longest file name that is put into the directory.
    private static let longestName = 32

    /// Chooses the place without creating anything: the first base directory that is writable and short enough for
    /// unix socket paths.
    package static func plan(in bases: [String] = standardBases()) throws -> RuntimeDirectory {
        let pid = getpid()
        let name = "\(prefix)\(pid)-\(ProcessInfo.startTime(of: pid) ?? 0)"
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

    package func create() throws {
        guard mkdir(path, 0o700) == 0 else {
            throw SupervisionError(.usage, "cannot create \(path): \(describeErrno(errno))")
        }
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
    }

    /// Removes directories whose owners are dead. Returns their paths.
    @discardableResult
    package static func sweepStale(in bases: [String] = standardBases()) -> [String] {
        var removed: [String] = []
        for (path, owner) in others(in: bases) where !owner.isAlive {
            if cps_remove_directory(path) == 0 { removed.append(path) }
        }
        return removed
    }

    /// The supervisor that has this port bound, also when nobody listens yet.
    package static func ownerOfPort(_ port: UInt16, in bases: [String] = standardBases()) -> pid_t? {
        others(in: bases).first { path, owner in
            owner.isAlive && ProcessInfo.readFile("\(path)/\(addressFile)")?.hasSuffix(":\(port)") == true
        }?.owner.pid
    }

    /// A supervisor of this user that is alive.
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
            guard owner.isAlive, seen.insert(path).inserted,
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
