import CProcessShims
import Glibc
import Logging
import OpenAIServer

cps_open_standard_descriptors()
let words = Array(CommandLine.arguments.dropFirst())
exit(VLLMSwift.run(words))

enum VLLMSwift {
    static let help = """
        usage: vllm-swift <command> [options]

        commands
          frontend    answer the OpenAI API for vLLM engines; started by a supervisor
                      (`vllm-swift frontend --help`)
          serve       the same for engines that others start, here or on other machines
          refuse      answer 503 while another frontend finishes; started by `vllm-engine`
          render      turn requests into what an engine would get, without an engine

          --version   print the version
          --help      print this text

        To serve a model with everything around it, run `vllm-engine serve MODEL`.

        """

    static func run(_ words: [String]) -> Int32 {
        switch words.first {
        case "frontend": return runAPIServerWorker(Array(words.dropFirst()))
        case "serve": return serve(.serve, Array(words.dropFirst()))
        case "refuse": return refuse(Array(words.dropFirst()))
        case "render": return serve(.render, Array(words.dropFirst()))
        case "--version", "-V": return output("vllm-swift \(ProductVersion.text)\n")
        case "--help", "-h", "help": return output(help)
        case nil: return fail("a command is needed", help: "vllm-swift --help")
        case let word?:
            let hint =
                SpellingHint.nearest(to: word, in: ["frontend", "serve", "refuse", "render"]).map {
                    "; did you mean \($0)?"
                }
                ?? ""
            return fail("unknown command '\(word)'\(hint)", help: "vllm-swift --help")
        }
    }

    /// One frontend process of a supervisor, the only one or one of `--api-server-count` (vLLM:
    /// `run_api_server_worker_proc`). It inherits the HTTP socket and those for engines, or binds the latter and tells their
    /// addresses; which of several it is shows in the title that `ps` has of it
    /// and in its log lines, both of the supervisor's choice.
    private static func runAPIServerWorker(_ words: [String]) -> Int32 {
        do throws(UsageError) {
            switch try FrontendCommandLine.parse(words) {
            case .help: return output(FrontendCommandLine.help)
            case .version: return output("vllm-swift \(ProductVersion.text)\n")
            case .run(let commandLine):
                let environment = try prepare()
                let program = try FrontendProgram(
                    commandLine, environment: environment, logger: Logger(label: "frontend"))
                return program.run { router, context, pool in
                    try GenerationAPI(configuration: context.configuration, pool: pool)
                        .register(in: &router, server: context)
                }
            }
        } catch {
            return fail(error.description, help: "vllm-swift frontend --help")
        }
    }

    private static func refuse(_ words: [String]) -> Int32 {
        do throws(UsageError) {
            switch try RefusalProgram.parse(words) {
            case .help: return output(RefusalProgram.help)
            case .run(let program): return program.run(environment: try prepare(), logger: Logger(label: "refusal"))
            }
        } catch {
            return fail(error.description, help: "vllm-swift refuse --help")
        }
    }

    private static func serve(_ command: ServeCommandLine.Command, _ words: [String]) -> Int32 {
        do throws(UsageError) {
            switch try ServeCommandLine.parse(command, words) {
            case .help: return output(ServeCommandLine.help(command))
            case .run(let commandLine):
                let environment = try prepare()
                let program = try FrontendProgram(
                    commandLine, environment: environment, logger: Logger(label: "frontend"))
                return program.run { router, context, pool in
                    let api = try GenerationAPI(configuration: context.configuration, pool: pool)
                    switch command {
                    case .serve: api.register(in: &router, server: context)
                    case .render: try api.registerRendering(in: &router, server: context)
                    }
                }
            }
        } catch {
            return fail(error.description, help: "vllm-swift \(command.rawValue) --help")
        }
    }

    /// Reads the environment and starts the log.
    private static func prepare() throws(UsageError) -> ServerEnvironment {
        let environment = try ServerEnvironment(ProcessEnvironment.variables())
        let handler = FrontendLogHandler(
            name: environment.processName, level: FrontendLogHandler.level(named: environment.logLevel),
            useColors: getenv("NO_COLOR") == nil && isatty(STDERR_FILENO) == 1)
        LoggingSystem.bootstrap { _ in handler }
        return environment
    }

    private static func output(_ text: String) -> Int32 {
        TextOutput.write(text, to: STDOUT_FILENO)
        return 0
    }

    private static func fail(_ message: String, help: String) -> Int32 {
        TextOutput.write("vllm-swift: error: \(message)\nSee `\(help)`.\n", to: STDERR_FILENO)
        return 2
    }
}
