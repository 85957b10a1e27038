import Glibc
import Supervision
import Testing

@Suite struct HTTPListenerTests {
    @Test func bindsWithoutListening() throws {
        let listener = try HTTPListener.bind(host: "127.0.0.1", port: 0)
        let port = try #require(listener.port)
        #expect(listener.displayAddress == "http://127.0.0.1:\(port)")
        #expect(!listener.isListening)
        #expect(listen(listener.descriptor.rawValue, 8) == 0)
        #expect(listener.isListening)
    }

    @Test func takenPortNamesItsHolder() throws {
        let holder = try HTTPListener.bind(host: "127.0.0.1", port: 0)
        let port = try #require(holder.port)
        #expect(listen(holder.descriptor.rawValue, 8) == 0)
        for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
            let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(host: host, port: port) }
            #expect(error?.code == .addressInUse)
            #expect(
                error?.message.contains("is in use: held by pid \(getpid()) (") == true, "\(String(describing: error))")
        }
    }

    /// Two sockets with SO_REUSEADDR could share a port until one listens; the second server would notice too late.
    @Test func portIsTakenBeforeAnybodyListens() throws {
        let holder = try HTTPListener.bind(host: "127.0.0.1", port: 0)
        let port = try #require(holder.port)
        let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(host: "127.0.0.1", port: port) }
        #expect(error?.code == .addressInUse)
    }

    /// As above, once the holder has noted its address and shares the port with its own past.
    @Test func portOfAStartingRunIsTaken() throws {
        let directory = try RuntimeDirectory.plan()
        try directory.create()
        defer { directory.remove() }
        let holder = try HTTPListener.bind(host: "127.0.0.1", port: 0)
        try directory.note(httpAddress: holder.displayAddress)
        holder.allowReuse()
        let port = try #require(holder.port)
        let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(host: "127.0.0.1", port: port) }
        #expect(error?.message.contains("held by pid \(getpid()) (") == true)
        #expect(error?.message.hasSuffix("which is still starting") == true)
    }

    @Test func portWithConnectionsInTimeWaitIsFree() throws {
        let first = try HTTPListener.bind(host: "127.0.0.1", port: 0)
        let port = try #require(first.port)
        first.allowReuse()
        #expect(listen(first.descriptor.rawValue, 8) == 0)
        let address = try SocketAddress.resolve(host: "127.0.0.1", port: port)
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #expect(address.withPointer { connect(client, $0, $1) } == 0)
        // The server closes first, so its end stays in TIME_WAIT.
        close(accept(first.descriptor.rawValue, nil, nil))
        close(client)
        first.close()
        let second = try HTTPListener.bind(host: "127.0.0.1", port: port)
        #expect(second.port == port)
        // And the second one has the port to itself as well.
        #expect(throws: SupervisionError.self) { try HTTPListener.bind(host: "127.0.0.1", port: port) }
    }

    @Test func bindsIPv6() throws {
        let listener = try HTTPListener.bind(host: "::1", port: 0)
        let port = try #require(listener.port)
        #expect(listener.displayAddress == "http://[::1]:\(port)")
        #expect(listen(listener.descriptor.rawValue, 8) == 0)
        let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(host: "::1", port: port) }
        #expect(error?.message.contains("pid \(getpid())") == true)
    }

    @Test func foreignAddressIsRefusedWithTheReason() {
        let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(host: "192.0.2.1", port: 0) }
        #expect(error?.message.contains("Cannot assign requested address") == true)
        #expect(error?.code == .addressInUse)
    }

    @Test func unixSocketOfADeadOwnerIsReplacedAndRemovedAtTheEnd() throws {
        let scratch = Scratch()
        let path = scratch.file("http.sock")
        let dead = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let address = try SocketAddress.unix(path: path)
        #expect(address.withPointer { bind(dead, $0, $1) } == 0)
        close(dead)
        #expect(access(path, F_OK) == 0)

        let listener = try HTTPListener.bind(path: path)
        #expect(listener.displayAddress == "unix:\(path)")
        #expect(listener.port == nil)
        listener.close()
        #expect(access(path, F_OK) != 0)
    }

    @Test(arguments: [true, false])
    func unixSocketOfALiveOwnerIsRefused(listening: Bool) throws {
        let scratch = Scratch()
        let path = scratch.file("http.sock")
        let owner = try HTTPListener.bind(path: path)
        if listening { #expect(listen(owner.descriptor.rawValue, 8) == 0) }
        let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(path: path) }
        #expect(error?.message.contains("held by pid \(getpid()) (") == true)
        #expect(access(path, F_OK) == 0)
    }

    @Test func fileThatIsNoSocketIsNotTouched() throws {
        let scratch = Scratch()
        let path = scratch.script("precious")
        let error = #expect(throws: SupervisionError.self) { try HTTPListener.bind(path: path) }
        #expect(error?.message == "\(path) exists and is not a socket")
        #expect(ProcessInfo.readFile(path)?.contains("precious") == true)
    }

    @Test func overlongUnixPathIsAUsageError() {
        let error = #expect(throws: SupervisionError.self) {
            try HTTPListener.bind(path: "/tmp/" + String(repeating: "x", count: 110))
        }
        #expect(error?.code == .usage)
    }
}

@Suite struct RuntimeDirectoryTests {
    @Test func isPrivateAndNamesItsOwner() throws {
        let scratch = Scratch()
        let directory = try RuntimeDirectory.plan(in: [scratch.path])
        try directory.create()
        var status = stat()
        #expect(stat(directory.path, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o700)
        #expect(directory.path.hasPrefix("\(scratch.path)/vllm-engine-\(getpid())-"))
        #expect(RuntimeDirectory.sweepStale(in: [scratch.path]).isEmpty, "its owner is alive")
        directory.remove()
        #expect(access(directory.path, F_OK) != 0)
    }

    @Test func directoriesOfDeadOwnersAreSwept() throws {
        let scratch = Scratch()
        let ended = try shell("exit 0")
        ended.join()
        ended.close()
        let start = try #require(ProcessInfo.startTime(of: getpid()))
        let stale = [
            scratch.file("vllm-engine-\(ended.pid)-123"),
            // The pid lives, but it is another process now.
            scratch.file("vllm-engine-\(getpid())-\(start + 1)"),
        ]
        let kept = [
            scratch.file("vllm-engine-notes"), scratch.file("vllm-engine-1x-2"), scratch.file("other"),
        ]
        for path in stale + kept { #expect(mkdir(path, 0o700) == 0) }
        _ = scratch.script("", name: "vllm-engine-\(ended.pid)-123/left.sock")
        // A link planted by somebody else must not lead us out of the directory.
        symlink(scratch.file("other"), scratch.file("vllm-engine-\(ended.pid)-124"))

        #expect(Set(RuntimeDirectory.sweepStale(in: [scratch.path])) == Set(stale))
        for path in stale { #expect(access(path, F_OK) != 0) }
        for path in kept { #expect(access(path, F_OK) == 0) }
    }

    /// Containers that share a folder have their own pids.
    @Test func lockedDirectoriesOfUnknownPidsAreKept() throws {
        let scratch = Scratch()
        let path = scratch.file("vllm-engine-1-1")
        #expect(mkdir(path, 0o700) == 0)
        let owner = FileDescriptor(owning: open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        #expect(flock(owner.rawValue, LOCK_EX) == 0)
        #expect(RuntimeDirectory.sweepStale(in: [scratch.path]).isEmpty)
        owner.close()
        #expect(RuntimeDirectory.sweepStale(in: [scratch.path]) == [path])
    }

    @Test func placesThatCannotHoldSocketsAreSkippedOrExplained() throws {
        let scratch = Scratch()
        let long = scratch.file(String(repeating: "d", count: 80))
        mkdir(long, 0o700)
        let chosen = try RuntimeDirectory.plan(in: ["/no/such/base", long, scratch.path])
        #expect(chosen.path.hasPrefix(scratch.path + "/vllm-engine-"))
        let error = #expect(throws: SupervisionError.self) { try RuntimeDirectory.plan(in: ["/no/such/base", long]) }
        #expect(error?.message.contains("/no/such/base: No such file or directory") == true)
        #expect(error?.message.contains("too long for unix sockets") == true)
    }

    @Test func supervisorThatHoldsAPortIsFoundBeforeItListens() throws {
        let scratch = Scratch()
        let directory = try RuntimeDirectory.plan(in: [scratch.path])
        try directory.create()
        try directory.note(httpAddress: "http://127.0.0.1:4711")
        #expect(RuntimeDirectory.ownerOfPort(4711, in: [scratch.path]) == getpid())
        #expect(RuntimeDirectory.ownerOfPort(711, in: [scratch.path]) == nil)
    }
}

@Suite struct ServiceNotifierTests {
    @Test func watchdogIsFedTwicePerInterval() {
        #expect(ServiceNotifier.watchdogInterval(microseconds: "3000000", pid: nil) == .milliseconds(1500))
        #expect(ServiceNotifier.watchdogInterval(microseconds: "3000000", pid: "\(getpid())") == .milliseconds(1500))
        #expect(ServiceNotifier.watchdogInterval(microseconds: "3000000", pid: "1") == nil)
        #expect(ServiceNotifier.watchdogInterval(microseconds: nil, pid: nil) == nil)
        #expect(ServiceNotifier.watchdogInterval(microseconds: "x", pid: nil) == nil)
        #expect(ServiceNotifier.watchdogInterval(microseconds: "0", pid: nil) == nil)
    }

    private func receive(_ address: SocketAddress, path: String) -> [String] {
        let manager = FileDescriptor(owning: socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0))
        #expect(address.withPointer { bind(manager.rawValue, $0, $1) } == 0)
        let notifier = ServiceNotifier(path: path)
        notifier.status("loading")
        notifier.ready("serving")
        notifier.stopping()
        return (0..<3).map { _ in
            var chunk = [UInt8](repeating: 0, count: 256)
            let count = recv(manager.rawValue, &chunk, chunk.count, 0)
            return String(decoding: chunk[..<max(count, 0)], as: UTF8.self)
        }
    }

    @Test func managerIsToldOverAPathOrAnAbstractName() throws {
        let expected = ["STATUS=loading", "READY=1\nSTATUS=serving", "STOPPING=1"]
        let scratch = Scratch()
        #expect(receive(try .unix(path: scratch.file("notify")), path: scratch.file("notify")) == expected)
        let name = "supervision-test-\(getpid())"
        #expect(receive(try .abstract(name: name), path: "@" + name) == expected)
    }

    @Test func absentManagerIsNoProblem() {
        for path in [nil, "", "relative", "/no/such/socket", "@" + String(repeating: "x", count: 200)] {
            ServiceNotifier(path: path).ready("x")
        }
    }
}
