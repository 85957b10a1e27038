import ArgumentParser
import FoundationEssentials
import Supervision

/// `vllm-engine report`
package struct ReportCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "report", abstract: "Compute the report of an earlier run again, from its raw records.")

    @Argument(help: ArgumentHelp("File that --records wrote.", valueName: "records"))
    var input: String

    @OptionGroup(title: "Results") var output: OutputOptions

    package init() {}

    package mutating func run() throws {
        do {
            let bytes: [UInt8]
            do { bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: input))) } catch {
                throw SupervisionError(.usage, "\(input) cannot be read")
            }
            let run: MeasurementRun
            do { run = try RawRecords.read(bytes) } catch { throw SupervisionError(.usage, "\(input), \(error)") }
            try output.deliver(run)
        } catch let error as SupervisionError {
            LogOutput.standardError.write(line: "vllm-engine: \(error.message)")
            throw ArgumentParser.ExitCode(error.code.rawValue)
        }
    }
}
