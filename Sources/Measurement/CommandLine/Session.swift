import ArgumentParser
import Glibc
import Supervision
import Tokenization

/// Everything that a measuring command starts and must not leave behind.
final class Session {
    let interruption: Interruption
    let folder: RuntimeDirectory
    let generator: LoadGenerator
    let progress: Progress
    private var processes: [SubprocessWrapper] = []

    private init(quiet: Bool) throws {
        // First of all: threads that are made later inherit the blocked signals.
        interruption = try Interruption()
        RuntimeDirectory.sweepStale()
        folder = try RuntimeDirectory.plan()
        try folder.create()
        generator = LoadGenerator()
        progress = Progress(quiet: quiet)
    }

    /// Runs a command and cleans up after it, whatever happens. Errors go to standard error; the result is the exit code.
    static func run(quiet: Bool, _ body: (Session) throws -> Void) throws {
        var session: Session?
        do {
            defer { session?.end() }
            let made = try Session(quiet: quiet)
            session = made
            raiseDescriptorLimit()
            try body(made)
        } catch let error as Interrupted {
            LogOutput.standardError.write(line: "vllm-engine: stopped by \(signalName(error.signal))")
            throw ArgumentParser.ExitCode(128 + error.signal)
        } catch let error as SupervisionError {
            try fail(error.message, error.code)
        } catch let error as WorkloadError {
            try fail(error.description, .usage)
        } catch let error as TokenizerError {
            try fail("\(error)", .usage)
        } catch let error as ArgumentParser.ExitCode {
            throw error
        } catch {
            try fail("\(error)", .failure)
        }
    }

    private static func fail(_ message: String, _ code: Supervision.ExitCode) throws {
        LogOutput.standardError.write(line: "vllm-engine: \(message)")
        throw ArgumentParser.ExitCode(code.rawValue)
    }

    private func end() {
        progress.finish()
        Arm.stop(processes)
        generator.shutdown()
        folder.remove()
    }

    /// A thousand streams need as many descriptors, here and in the arms.
    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = min(limit.rlim_max, 1 << 16)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// One after the other, so that the times to start can be compared.
    func startArm(
        _ specification: ArmSpecification, _ service: ServiceOptions.Resolved
    ) throws -> Arm {
        progress.note("starting \(specification.name) ...")
        let starting = try Arm.start(
            specification, model: service.model, service: service.arguments, engine: service.engineArguments,
            folder: folder.path)
        processes.append(starting.process)
        return try Arm(starting, patience: .seconds(600), headers: [], interruption)
    }

    /// Ends a service that is not needed any more.
    private func stop(_ arm: Arm) {
        processes.removeAll { $0.pid == arm.pid }
        arm.stop()
    }

    /// Answers of one arm to the features, one request after the other.
    /// - Parameter scripted: the engine plays the check's own answers.
    func answers(to check: FeatureCheck, from target: LoadTarget, arm: Int, scripted: Bool) throws -> [RequestRecord] {
        var templates = check.features.map { RequestTemplate(path: $0.path, body: $0.body, target: target) }
        let filler = templates.count
        templates.append(RequestTemplate(path: check.filler.path, body: check.filler.body, target: target))
        func ask(_ item: Int) throws -> [RequestRecord] {
            let plan = LoadPlan(
                templates: templates, requests: [PlannedRequest(item: item, seed: 0)], offsets: nil, concurrency: 1)
            let result = try interruption.result(of: plan, for: target, from: generator)
            return BlockOfAnswers(result, arm: arm, block: 0, keepsText: true).requests
        }
        return try check.features.enumerated().flatMap { item, feature in
            let answer = try ask(item)
            // What was meant for a request that the engine never got must not go to the next one.
            if scripted, answer.first?.status != 200 { for _ in feature.answers { _ = try ask(filler) } }
            return answer
        }
    }

    /// Starts a service with scripted answers for each frontend, one after the other, and asks it everything.
    /// - Returns: by arm; frontends that are the same are asked once.
    func answers(
        to check: FeatureCheck, from specifications: [ArmSpecification], _ options: ServiceOptions, maker: PromptMaker
    ) throws -> [[RequestRecord]] {
        let recording = folder.file("features")
        try writeFile(recording) { try $0(Array(check.recording(maker.tokenizer).utf8)) }
        var service = try options.resolve(recording: recording, maker: maker)
        service.arguments += check.serveOptions
        var known: [String: [RequestRecord]] = [:]
        return try specifications.enumerated().map { index, specification in
            let key = "\(specification.frontend) \(specification.binary ?? "")"
            if let answers = known[key] {
                return answers.map { answer in
                    var answer = answer
                    answer.arm = index
                    return answer
                }
            }
            var specification = specification
            specification.name += "-features"
            let arm = try startArm(specification, service)
            defer { stop(arm) }
            let answers = try self.answers(to: check, from: arm.target, arm: index, scripted: true)
            known[key] = answers
            return answers
        }
    }

    func description(of arm: Arm, program: String) -> ArmDescription {
        let size = ProcessTree(of: arm.frontendPids).size
        return ArmDescription(
            name: arm.specification.name,
            // Python's would take half a minute.
            version: arm.specification.frontend == "python" ? nil : version(of: program), program: program,
            startSeconds: arm.startSeconds, idleResidentBytes: size.resident, idleProportionalBytes: size.proportional)
    }

    /// First line of a program's `--version`; nil if it does not say.
    func version(of program: String) -> String? {
        let path = folder.file("version")
        let output = FileDescriptor(owning: open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600))
        guard output.isOpen,
            let process = try? SubprocessWrapper(
                SpawnRequest(
                    name: "version", executable: program, arguments: ["--version"], standardOutput: output.rawValue))
        else { return nil }
        defer { process.close() }
        guard process.join(timeout: .seconds(5)), process.exitCode == 0 else { return nil }
        return ProcessInfo.readFile(path)?.split(separator: "\n").first.map { String($0.prefix(200)) }
    }
}

/// Writes a whole file, or adds to one; `-` is standard output.
func writeFile(_ path: String, append: Bool = false, _ body: (([UInt8]) throws -> Void) throws -> Void) throws {
    if path == "-" { return try body { LogOutput(descriptor: STDOUT_FILENO).write($0) } }
    let mode = append ? O_APPEND : O_TRUNC
    let file = FileDescriptor(owning: open(path, O_WRONLY | O_CREAT | mode | O_CLOEXEC, 0o644))
    guard file.isOpen else { throw SupervisionError(.failure, "cannot write \(path): \(describeErrno(errno))") }
    try body { bytes in
        var done = 0
        while done < bytes.count {
            let start = done
            let count = bytes.withUnsafeBytes { raw in
                write(file.rawValue, raw.baseAddress.map { $0 + start }, raw.count - start)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SupervisionError(.failure, "cannot write \(path): \(describeErrno(errno))") }
            done += count
        }
    }
}
