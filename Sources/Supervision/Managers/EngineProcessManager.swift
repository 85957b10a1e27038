import Glibc
import Logging

/// How to start the engines of this machine.
package struct EngineLaunch {
    package var executable: String
    /// Model folder, or `mock`.
    package var model: String
    package var handshakeAddress: String
    package var startIndex = 0
    package var count = 1
    /// The handshake is another machine's.
    package var isHeadless = false
    /// Further options, passed on as they are.
    package var arguments: [String]
    package var environment: [String: String]
    /// Where they note how far they are with loading.
    package var progress: LoadProgress?

    package init(
        executable: String, model: String, handshakeAddress: String, arguments: [String],
        environment: [String: String]
    ) {
        self.executable = executable
        self.model = model
        self.handshakeAddress = handshakeAddress
        self.arguments = arguments
        self.environment = environment
    }
}

/// The engine processes of this machine (vLLM: `CoreEngineProcManager`).
package final class EngineProcessManager {
    package private(set) var children: [SupervisedProcess] = []
    /// The first engine whose end was noticed, if that end was a failure.
    package private(set) var failedProcessName: String?
    /// How often an engine that died was replaced, all engines together.
    package private(set) var restarts = 0
    let firstRank: Int
    private let launch: EngineLaunch
    private let factory: ChildFactory
    private var loop: EventLoop { factory.loop }
    private var logger: Logger { factory.logger }

    package init(_ launch: EngineLaunch, factory: ChildFactory) throws {
        firstRank = launch.startIndex
        self.launch = launch
        self.factory = factory
        for rank in launch.startIndex..<launch.startIndex + launch.count {
            do {
                children.append(try start(rank: rank))
            } catch {
                shutdown(timeout: .zero)
                throw error
            }
        }
    }

    private func start(rank: Int) throws -> SupervisedProcess {
        var request = SpawnRequest(
            name: launch.count == 1 && rank == 0 ? "EngineCore" : "EngineCore_DP\(rank)",
            executable: launch.executable,
            arguments: [
                "--model", launch.model, "--handshake-address", launch.handshakeAddress,
                "--engine-index", String(rank), launch.isHeadless ? "--headless" : "--local",
            ] + launch.arguments,
            environment: launch.environment)
        request.title = "VLLM::\(request.name)"
        let death = request.inherit(factory.deathDescriptor)
        request.arguments += ["--death-fd", String(death)]
        if let progress = launch.progress {
            progress.reset(rank: rank)
            request.arguments += ["--progress-fd", String(request.inherit(progress.descriptor.rawValue))]
        }
        let child = try factory.start(request)
        logger.info(
            "Started \(child.name)",
            metadata: ["pid": "\(child.process.pid)", "command": "\(shellQuoted(request))"])
        return child
    }

    package func rank(of child: SupervisedProcess) -> Int? {
        children.firstIndex { $0 === child }.map { firstRank + $0 }
    }

    package func pid(ofRank rank: Int) -> pid_t? {
        children.indices.contains(rank - firstRank) ? children[rank - firstRank].process.pid : nil
    }

    /// Ends an engine that is of no use; its end is noticed like any other.
    func kill(rank: Int) {
        if children.indices.contains(rank - firstRank) { children[rank - firstRank].process.killTree() }
    }

    /// Starts a successor of an engine that has ended.
    package func restart(rank: Int) throws {
        guard children.indices.contains(rank - firstRank), !children[rank - firstRank].process.isAlive else { return }
        children[rank - firstRank].log.close()
        children[rank - firstRank] = try start(rank: rank)
        restarts += 1
    }

    deinit { shutdown(timeout: .zero) }

    package var processes: [SubprocessWrapper] { children.map(\.process) }

    /// The first engine that has ended, with any exit status: one is enough to end the service.
    ///
    /// - Parameter replaced: pids of those that are not counted, because they are being replaced.
    package func firstExited(except replaced: Set<pid_t> = []) -> SupervisedProcess? {
        guard let child = children.first(where: { !$0.process.isAlive && !replaced.contains($0.process.pid) })
        else { return nil }
        if failedProcessName == nil, child.process.exitCode != 0 { failedProcessName = child.name }
        return child
    }

    /// Blocks (pumping the loop) until an engine has ended or the condition fails (vLLM: `monitor_engine_liveness`).
    ///
    /// - Parameter replaced: pids of those that are not counted, because they are being replaced.
    package func monitorEngineLiveness(
        except replaced: Set<pid_t> = [], while condition: () -> Bool
    ) -> SupervisedProcess? {
        let watched = processes.filter { !replaced.contains($0.pid) }
        waitForSentinels(watched, on: loop) { firstExited(except: replaced) == nil && condition() }
        return firstExited(except: replaced)
    }

    /// SIGTERM, grace (nil = 5 s), then SIGKILL of the trees. Idempotent. Returns the names of those killed.
    @discardableResult
    package func shutdown(timeout: Duration?, isInterrupted: () -> Bool = { false }) -> [String] {
        let killed = Supervision.shutdown(
            processes, timeout: timeout, on: loop, logger: logger, isInterrupted: isInterrupted)
        for child in children { child.log.close() }
        return killed
    }
}

/// The command line of a request as one could type it.
func shellQuoted(_ request: SpawnRequest) -> String {
    ([request.executable] + request.arguments).map { word in
        let plain =
            !word.isEmpty
            && word.utf8.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
                    || "-_./:=@,+".utf8.contains(byte)
            }
        return plain
            ? word : "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }.joined(separator: " ")
}
