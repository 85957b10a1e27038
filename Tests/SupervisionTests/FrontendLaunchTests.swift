import EngineProtocol
import Glibc
import JSONBytes
import Supervision
import Testing

@Suite struct FrontendContractTests {
    /// What `vllm-rs frontend --help` of each release shows.
    private static let options: [(release: ProtocolFamily, help: String)] = [
        (.v0_22, "--listen-fd --input-address --output-address --engine-count --args-json"),
        (.v0_25, "--listen-fd --input-address --output-address --engine-start-index --engine-count --args-json"),
        (
            .v0_28,
            "--listen-fd --input-address --output-address --engine-start-index --engine-count --data-parallel-size"
        ),
        (
            .v0_32,
            "--listen-fd --input-listener-fd --output-listener-fd --engine-start-index --engine-count --data-parallel-size"
        ),
    ]

    @Test func releaseIsRecognisedByItsOptions() {
        // 0.28 and earlier answer `--version` with an error on standard error.
        for (family, help) in Self.options.dropLast() {
            #expect(FrontendContract(versionText: "", helpText: help) == FrontendContract(family: family))
        }
    }

    @Test(arguments: [
        ("vllm-rs 0.30.0\n", 2, ProtocolFamily.v0_30), ("vllm-rs 0.32.0\n", 3, .v0_32), ("vllm-rs 0.33.0\n", 3, .v0_33),
        ("vllm-rs 0.40.2\n", 3, .v0_33), ("mine 0.1.0\n", 3, .v0_33),
        // A program of other origin: its options count, whatever its number.
        ("mine 2.0\n", 2, .v0_30), ("mine 2.0\n", 1, .v0_25),
    ])
    func versionRefinesWhatTheOptionsSay(text: String, help: Int, family: ProtocolFamily) {
        let contract = FrontendContract(versionText: text, helpText: Self.options[help].help)
        #expect(contract == FrontendContract(family: family))
    }

    @Test func otherProgramsAreNoFrontends() {
        #expect(FrontendContract(versionText: "ls 9.1", helpText: "Usage: ls") == nil)
    }
}

@Suite struct FrontendLaunchTests {
    private func launch(_ family: ProtocolFamily) -> FrontendLaunch {
        var launch = FrontendLaunch(
            kind: .rust, executable: "/vllm-rs", contract: FrontendContract(family: family),
            arguments: FrontendArguments(), environment: [:])
        (launch.engineStartIndex, launch.engineCount, launch.dataParallelSize) = (2, 3, 8)
        return launch
    }

    /// The order of words is that of vLLM's supervisor.
    @Test func commandLineIsThatOfVLLM() {
        let transport = ["--input-listener-fd", "4", "--output-listener-fd", "5"]
        let words = launch(.v0_32).commandLine(listenDescriptor: 3, transport: transport, argumentsJSON: "{}")
        let expected = """
            frontend --listen-fd 3 --input-listener-fd 4 --output-listener-fd 5 --engine-start-index 2 --engine-count 3 \
            --data-parallel-size 8 --args-json {}
            """
        #expect(words == expected.split(separator: " ").map(String.init))
    }

    @Test func oldReleasesGetNoOptionsTheyDoNotKnow() {
        func options(_ family: ProtocolFamily) -> [String] {
            launch(family).commandLine(listenDescriptor: 3, transport: [], argumentsJSON: "{}")
                .filter { $0.hasPrefix("--") }
        }
        #expect(options(.v0_22) == ["--listen-fd", "--engine-count", "--args-json"])
        #expect(options(.v0_25) == ["--listen-fd", "--engine-start-index", "--engine-count", "--args-json"])
        #expect(options(.v0_28).contains("--data-parallel-size"))
    }

    @Test func coordinatorComesBeforeTheArguments() {
        var launch = launch(.v0_33)
        launch.coordinatorAddress = "ipc:///c"
        let words = launch.commandLine(listenDescriptor: 3, transport: [], argumentsJSON: "{}")
        #expect(words.suffix(4) == ["--coordinator-address", "ipc:///c", "--args-json", "{}"])
    }

    @Test func argumentsAreSortedAndSecretsStayOutOfTheLog() throws {
        var arguments = FrontendArguments()
        arguments["model_tag"] = .string("m\"x")
        arguments["api_key"] = .array([.string("sesame")])
        arguments["max_model_len"] = .number(2048)
        arguments["allow_credentials"] = .bool(true)
        arguments["revision"] = nil
        #expect(
            arguments.json
                == #"{"allow_credentials":true,"api_key":["sesame"],"max_model_len":2048,"model_tag":"m\"x"}"#)
        #expect(!arguments.redactedJSON.contains("sesame"))
        #expect(arguments.redactedJSON.contains(#""model_tag":"m\"x""#))
    }
}

/// A shell script stands in for the frontend: what it was given is what counts.
@Suite struct FrontendProcessManagerTests {
    private let scratch = Scratch()
    private let loop = EventLoop()

    private func start(_ family: ProtocolFamily, kind: FrontendKind = .rust, script: String) throws -> (
        manager: FrontendProcessManager, guardian: OrphanGuard
    ) {
        let directory = try RuntimeDirectory.plan(in: [scratch.path])
        try directory.create()
        let guardian = try OrphanGuard(directory: scratch.file("runtime"))
        let null = LogOutput(descriptor: open("/dev/null", O_WRONLY | O_CLOEXEC))
        let factory = ChildFactory(loop: loop, orphanGuard: guardian, logger: quiet, output: null)
        var arguments = FrontendArguments()
        arguments["model_tag"] = .string("m")
        let launch = FrontendLaunch(
            kind: kind, executable: scratch.script(script), contract: FrontendContract(family: family),
            arguments: arguments, environment: ProcessInfo.environment())
        func address() -> String { engineClientZMQAddress(localOnly: true, host: "", directory: directory) }
        let transport: FrontendTransport =
            family >= .v0_32
            ? .listeners(
                input: try ZMQListener(address: address(), sends: true),
                output: try ZMQListener(address: address(), sends: false))
            : .addresses(input: "ipc:///in", output: "ipc:///out")
        let manager = try FrontendProcessManager(
            launch, listener: try HTTPListener.bind(host: "127.0.0.1", port: 0), transport: transport,
            directory: directory, factory: factory)
        return (manager, guardian)
    }

    private func output(_ manager: FrontendProcessManager) -> [String] {
        manager.processes[0].join()
        manager.children[0].log.drain()
        return manager.children[0].log.lastLines
    }

    @Test func listenersAreInheritedUnderTheNumbersGiven() throws {
        let (manager, guardian) = try start(
            .v0_33,
            script:
                "echo $VLLM_ENGINE_DEATH_FD \"$@\"; for i in 3 4 5 6; do readlink /proc/$$/fd/$i; done | cut -d: -f1")
        defer { guardian.finish() }
        let lines = output(manager)
        #expect(
            lines == [
                "3 frontend --listen-fd 4 --input-listener-fd 5 --output-listener-fd 6 --engine-start-index 0 "
                    + #"--engine-count 1 --data-parallel-size 1 --args-json {"model_tag":"m"}"#,
                "pipe", "socket", "socket", "socket",
            ])
        #expect(manager.children[0].name == "RustFrontend")
    }

    @Test func oldFrontendsGetAddresses() throws {
        let (manager, guardian) = try start(.v0_30, script: "echo \"$@\"")
        defer { guardian.finish() }
        #expect(output(manager)[0].contains("--input-address ipc:///in --output-address ipc:///out --engine-start"))
    }

    @Test func pythonGetsTheLauncherScript() throws {
        let (manager, guardian) = try start(
            .v0_32, kind: .python, script: "head -c 40 \"$1\"; echo; shift; echo \"$@\"")
        defer { guardian.finish() }
        let lines = output(manager)
        #expect(lines[0].hasPrefix("import argparse"))
        #expect(lines.last?.contains(#"{"model_tag":"m"} --listen-fd 4 --listen-address"#) == true)
    }

    @Test func shutdownEndsItOnce() throws {
        let (manager, guardian) = try start(.v0_33, script: "exec sleep 100")
        defer { guardian.finish() }
        #expect(manager.firstExited() == nil)
        #expect(manager.shutdown(timeout: nil).isEmpty)
        #expect(manager.processes[0].exitCode == -SIGTERM)
        #expect(manager.shutdown(timeout: nil).isEmpty)
    }
}
