import ArgumentParser
import Glibc
import Supervision

/// The services that `ab` and `bench` start themselves.
struct ServiceOptions: ParsableArguments {
    enum Engine: String, ExpressibleByArgument, CaseIterable {
        case mock, replay, blas
    }

    @Option(
        help: ArgumentHelp(
            "mock: tokens on a clock, the same for every arm (default); replay: a recording (--replay); blas: the real one.",
            valueName: "mock|replay|blas"))
    var engine: Engine?

    @Option(
        help: ArgumentHelp(
            "What `blas-engine --record` wrote: its tokens and times are played back.", valueName: "path"))
    var replay: String?

    @Option(
        help: ArgumentHelp(
            "Model folder; with the mock the one whose tokenizer is used. Default: the embedded model.",
            valueName: "path"))
    var model: String?

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Option of `vllm-engine serve` for every arm, such as --serve-option=--stream-interval=4; may be repeated.",
            valueName: "option"))
    var serveOption: [String] = []

    mutating func validate() throws {
        if (engine == .replay) != (replay != nil) {
            throw ValidationError("--engine replay and --replay belong together")
        }
        if let replay, access(replay, R_OK) != 0 { throw ValidationError("--replay: cannot read \(replay)") }
    }

    /// What `vllm-engine serve` and the engine are told.
    struct Resolved {
        /// Positional argument of `serve`; nil = the embedded model.
        var model: String?
        var arguments: [String]
        var engineArguments: [String]
        /// For people.
        var summary: String
        /// The name under which it is served.
        var servedName = "measured"
    }

    /// Folder of the tokenizer.
    func tokenizerFolder(_ explicit: String?) throws -> String {
        try explicit ?? model ?? Binaries.defaultModel(explicit: nil)
    }

    /// A service whose engine plays back a recording, whatever --engine is.
    func resolve(recording: String, maker: PromptMaker) throws -> Resolved {
        try mock(tokens: ["--mock-replay", recording], timing: [], summary: "replay")
    }

    /// - Parameters:
    ///   - mock: options that the workload brings; those of the command line come later and so win.
    ///   - given: the engine's options from the command line.
    func resolve(mock: [String], given: [String], maker: PromptMaker) throws -> Resolved {
        let engine = engine ?? .mock
        switch engine {
        case .blas:
            return Resolved(
                model: model, arguments: ["--served-model-name", "measured"] + serveOption, engineArguments: given,
                summary: "blas" + (given.isEmpty ? "" : "(\(given.joined(separator: " ")))"))
        case .mock, .replay:
            // Words only, so that each token is visible on its own.
            let tokens =
                try replay.map { ["--mock-replay", $0] }
                ?? ["--mock-vocab-size", "\(maker.vocabularySize)", "--mock-words", tokenizerFolder(nil)]
            let timing = (replay == nil ? mock : []) + given
            return try self.mock(
                tokens: tokens, timing: timing,
                summary: engine.rawValue + (timing.isEmpty ? "" : "(\(timing.joined(separator: " ")))"))
        }
    }

    private func mock(tokens: [String], timing: [String], summary: String) throws -> Resolved {
        // A recording says itself how long its texts may be.
        let length = tokens.contains("--mock-replay") ? [] : ["--max-model-len", "32768"]
        return Resolved(
            model: "mock",
            // Room for a thousand streams, and for prompts of any preset in one step.
            arguments: [
                "--tokenizer", try tokenizerFolder(nil), "--served-model-name", "measured", "--max-num-seqs", "4096",
                "--max-num-batched-tokens", "16384", "--num-gpu-blocks-override", "131072",
            ] + length + serveOption,
            engineArguments: tokens + timing, summary: summary)
    }
}
