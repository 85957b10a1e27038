import ArgumentParser
import Measurement
import Supervision

/// The `vllm-engine` program.
struct VLLMEngine: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vllm-engine",
        abstract: VLLMEngineCommand.configuration.abstract,
        version: VLLMEngineCommand.configuration.version,
        subcommands: VLLMEngineCommand.configuration.subcommands + [
            ABCommand.self, BenchCommand.self, ReportCommand.self,
        ],
        defaultSubcommand: ServeCommand.self)
}

VLLMEngine.runProgram(Array(CommandLine.arguments.dropFirst()))
