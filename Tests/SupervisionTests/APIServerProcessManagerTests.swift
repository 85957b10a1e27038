import EngineProtocol
import Glibc
import Supervision
import Testing

/// Shell scripts stand in for frontends that bind their sockets themselves and tell where.
@Suite struct APIServerProcessManagerTests {
    private let scratch = Scratch()
    private let loop = EventLoop()

    private func start(
        _ script: String, count: Int = 3, kind: FrontendKind = .swift, family: ProtocolFamily = .v0_30,
        address: String = "tcp://127.0.0.1:0"
    ) throws -> (manager: APIServerProcessManager, guardian: OrphanGuard) {
        let directory = try RuntimeDirectory.plan(in: [scratch.path])
        try directory.create()
        let guardian = try OrphanGuard(directory: scratch.file("runtime"))
        let null = LogOutput(descriptor: open("/dev/null", O_WRONLY | O_CLOEXEC))
        let factory = ChildFactory(loop: loop, orphanGuard: guardian, logger: quiet, output: null)
        var launch = FrontendLaunch(
            kind: kind, executable: scratch.script(script), contract: FrontendContract(family: family),
            arguments: FrontendArguments(), environment: ProcessInfo.environment())
        launch.metricsDirectory = "/metrics"
        func local() -> String { engineClientZMQAddress(localOnly: true, host: "", directory: directory) }
        let transports = try (0..<count).map { _ -> FrontendTransport in
            guard family >= .v0_32 else { return .addresses(input: address, output: address) }
            return .listeners(
                input: try ZMQListener(address: local(), sends: true),
                output: try ZMQListener(address: local(), sends: false))
        }
        let manager = try APIServerProcessManager(
            launch, listener: try HTTPListener.bind(host: "127.0.0.1", port: 0), transports: transports,
            directory: directory, factory: factory)
        return (manager, guardian)
    }

    /// Sets `fd` and `index` from the command line.
    private static let options = """
        while [ $# -gt 0 ]; do
          case $1 in --address-fd) fd=$2;; --client-index) index=$2;; esac
          shift
        done
        """

    private static func tell(_ json: String) -> String {
        "\(options)\neval \"exec 9>&$fd $fd>&-\"\necho '\(json)' | sed \"s/INDEX/$index/g\" >&9\nexec 9>&-\n"
    }

    private static let addresses =
        #"{"input_address": "tcp://127.0.0.1:500INDEX", "output_address": "tcp://127.0.0.1:600INDEX"}"#

    private func message(_ body: () throws -> Void) -> String {
        #expect(throws: SupervisionError.self, performing: body)?.message ?? ""
    }

    @Test func everyProcessHasItsOwnListenersAndIndex() throws {
        let (manager, guardian) = try start("echo \"$@\"", family: .v0_33)
        defer { guardian.finish() }
        #expect(manager.children.map(\.name) == ["SwiftFrontend_0", "SwiftFrontend_1", "SwiftFrontend_2"])
        #expect(Set(manager.transports.map(\.inputAddress) + manager.transports.map(\.outputAddress)).count == 6)
        for (index, child) in manager.children.enumerated() {
            child.process.join()
            child.log.drain()
            let line = child.log.lastLines.first ?? ""
            #expect(line.contains("--client-index \(index) --client-count 3 --metrics-directory /metrics --args-json"))
        }
    }

    @Test func pythonWorkersGetTheirIndexAndTheFolderOfTheirMetrics() throws {
        let (manager, guardian) = try start(
            "shift; echo \"$@\" $PROMETHEUS_MULTIPROC_DIR", kind: .python, family: .v0_32)
        defer { guardian.finish() }
        for (index, child) in manager.children.enumerated() {
            child.process.join()
            child.log.drain()
            #expect(child.name == "ApiServer_\(index)")
            #expect(child.log.lastLines.first?.hasSuffix("--client-index \(index) --client-count 3 /metrics") == true)
        }
    }

    @Test func addressesAreGatheredByClientIndex() throws {
        let (manager, guardian) = try start(Self.tell(Self.addresses) + "exec sleep 100")
        defer { guardian.finish() }
        let found = try manager.gatherActualAddresses(timeout: .seconds(30))
        #expect(found.map(\.input) == (0..<3).map { "tcp://127.0.0.1:500\($0)" })
        #expect(found.map(\.output) == (0..<3).map { "tcp://127.0.0.1:600\($0)" })
        #expect(manager.transports.map(\.inputAddress) == found.map(\.input))
        #expect(manager.shutdown(timeout: nil).isEmpty)
        #expect(manager.processes.allSatisfy { $0.exitCode == -SIGTERM })
    }

    /// The child's end is not noticed before what it has told.
    @Test func whatAChildToldBeforeItEndedCounts() throws {
        let (manager, guardian) = try start(Self.tell(Self.addresses))
        defer { guardian.finish() }
        for process in manager.processes { process.join() }
        #expect(try manager.gatherActualAddresses(timeout: .seconds(30)).count == 3)
    }

    @Test func aChildThatEndsBeforeItToldIsNamed() throws {
        let (manager, guardian) = try start(
            Self.options + "\n[ $index = 1 ] && exit 3\n" + "exec sleep 100")
        defer { guardian.finish() }
        let text = message { try manager.gatherActualAddresses(timeout: .seconds(30)) }
        let pid = manager.processes[1].pid
        #expect(text == "SwiftFrontend_1 (pid \(pid)) ended before it told its addresses: exit status 3")
    }

    @Test func aChildThatHangsUpIsNamed() throws {
        let (manager, guardian) = try start(
            Self.options + "\n[ $index = 2 ] && eval \"exec $fd>&-\"\n" + "exec sleep 100")
        defer { guardian.finish() }
        let text = message { try manager.gatherActualAddresses(timeout: .seconds(30)) }
        let pid = manager.processes[2].pid
        #expect(text == "SwiftFrontend_2 (pid \(pid)) closed its address pipe without telling its addresses")
    }

    @Test func aSilentChildIsNamedWhenTheTimeIsOver() throws {
        let (manager, guardian) = try start("exec sleep 100", count: 1)
        defer { guardian.finish() }
        let text = message { try manager.gatherActualAddresses(timeout: .milliseconds(50)) }
        #expect(text.hasPrefix("SwiftFrontend (pid") && text.hasSuffix("has not told its addresses within 0.05 s"))
    }

    @Test(arguments: ["nonsense", "{}", "[1]", #"{"input_address": 3, "output_address": "x"}"#])
    func nonsenseIsRefused(text: String) throws {
        let (manager, guardian) = try start(Self.tell(text) + "exec sleep 100", count: 1)
        defer { guardian.finish() }
        #expect(
            message { try manager.gatherActualAddresses(timeout: .seconds(30)) }.contains("told no usable addresses"))
    }

    @Test func oneIsReplacedWhileTheOthersGoOn() throws {
        let (manager, guardian) = try start("exec sleep 100", family: .v0_33)
        defer { guardian.finish() }
        let before = manager.processes.map(\.pid)
        manager.processes[1].kill()
        manager.processes[1].join()
        let lost = try #require(manager.firstExited())
        try manager.restart(lost)
        let after = manager.processes.map(\.pid)
        #expect(after[0] == before[0] && after[2] == before[2] && after[1] != before[1])
        #expect(manager.restarts == 1 && manager.firstExited() == nil)
    }
}
