import EngineProtocol
import Glibc

/// Asks a program what kind of `vllm-rs frontend` it is, without waiting for the answer: it may be slow, or no frontend.
final class ContractProbe {
    private static let patience = Duration.seconds(5)
    private static let longestAnswer = 256 << 10

    /// Standard output of one of its commands, up to its end.
    private final class Question {
        let process: SubprocessWrapper
        let output: FileDescriptor
        var bytes: [UInt8] = []
        var isOver = false

        init(_ program: String, _ arguments: [String]) throws {
            let (read, write) = try FileDescriptor.pipe(readsWithoutBlocking: true)
            process = try SubprocessWrapper(
                SpawnRequest(name: program, executable: program, arguments: arguments, standardOutput: write.rawValue))
            output = read
        }

        var text: String { String(decoding: bytes, as: UTF8.self) }
    }

    private let program: String
    private let loop: EventLoop
    private let help: Question
    private let version: Question
    private var timer: EventLoop.TimerID?
    private var completion: ((Result<FrontendContract, SupervisionError>) -> Void)?

    /// - Parameter completion: called once, from the loop; the error is a usage error.
    init(
        _ program: String, loop: EventLoop,
        completion: @escaping (Result<FrontendContract, SupervisionError>) -> Void
    ) throws {
        self.program = program
        self.loop = loop
        self.completion = completion
        help = try Question(program, ["frontend", "--help"])
        version = try Question(program, ["--version"])
        for question in [help, version] {
            loop.watch(question.output.rawValue) { [unowned self, unowned question] in read(question) }
        }
        timer = loop.schedule(after: Self.patience) { [unowned self] in
            finish(.failure(SupervisionError(.usage, "\(program) frontend --help does not answer")))
        }
    }

    deinit { close() }

    /// Somebody who reaps strangers must leave these.
    var pids: [pid_t] { [help.process.pid, version.process.pid] }

    /// Waits for the answer.
    static func ask(_ program: String) throws -> FrontendContract {
        let loop = EventLoop()
        var result: Result<FrontendContract, SupervisionError>?
        let probe = try ContractProbe(program, loop: loop) { result = $0 }
        loop.run { result == nil }
        probe.close()
        return try (result ?? .failure(SupervisionError(.usage, "\(program) does not answer"))).get()
    }

    private func read(_ question: Question) {
        var chunk = [UInt8](repeating: 0, count: 16384)
        while !question.isOver {
            let count = retryingInterrupts { Glibc.read(question.output.rawValue, &chunk, chunk.count) }
            if count < 0, errno == EAGAIN { return }
            if count > 0 { question.bytes += chunk[..<count] }
            question.isOver = count <= 0 || question.bytes.count >= Self.longestAnswer
        }
        loop.unwatch(question.output.rawValue)
        guard help.isOver, version.isOver else { return }
        guard let contract = FrontendContract(versionText: version.text, helpText: help.text) else {
            return finish(
                .failure(
                    SupervisionError(
                        .usage, "\(program) does not look like a frontend: `frontend --help` shows no --listen-fd")))
        }
        finish(.success(contract))
    }

    private func finish(_ result: Result<FrontendContract, SupervisionError>) {
        close()
        let completion = completion
        self.completion = nil
        completion?(result)
    }

    /// Idempotent.
    private func close() {
        loop.cancel(timer)
        for question in [help, version] {
            if question.output.isOpen { loop.unwatch(question.output.rawValue) }
            question.output.close()
            question.process.close()
        }
    }
}
