import Supervision

VLLMEngineCommand.runMain(Array(CommandLine.arguments.dropFirst()))
