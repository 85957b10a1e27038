import ArgumentParser
import JSONBytes

/// Which programs run and how they are watched.
package struct SupervisorOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Which process answers HTTP: swift, rust (vLLM's vllm-rs), python (vLLM's API server), or a program with "
                + "the command line of `vllm-rs frontend`. Several, separated by commas, with --split.",
            valueName: "swift|rust|python|PATH"))
    package var frontend: String = "swift"

    @Option(
        help: ArgumentHelp(
            "Shares of several frontends that serve at the same time, such as 70/30 with --frontend swift,rust. They hold "
                + "on average and per connection. Needs this project's engine: vLLM's takes all frontends for one.",
            valueName: "n/n"))
    package var split: String?

    @Option(help: ArgumentHelp("The frontend's program, if it is not beside this one or on PATH.", valueName: "path"))
    package var frontendBinary: String?

    @Option(
        help: ArgumentHelp(
            "vLLM release whose frontend this is, such as 0.30; default: the program is asked.", valueName: "release"))
    package var frontendVersion: String?

    @Option(help: ArgumentHelp("Interpreter of an environment with vLLM, for --frontend python.", valueName: "path"))
    package var python: String?

    @Option(help: ArgumentHelp("The engine's program, if it is not beside this one.", valueName: "path"))
    package var engineBinary: String?

    @Option(
        help: ArgumentHelp(
            "Restart what died. `never`: the service ends with the reason, as in vLLM. `on-failure`: an engine that died "
                + "is replaced, too; the port stays open. Default: a frontend is replaced, an engine is not.",
            valueName: "never|on-failure"))
    package var restart: RestartChoice?

    @Option(
        help: ArgumentHelp(
            "How often engines may be restarted, such as 5/10m: five times in ten minutes (the default).",
            valueName: "n/time"))
    package var restartMax: RestartLimit?

    @Option(help: "Replace a frontend that crashed; the engine keeps the model. (default: on-failure)")
    package var restartFrontend: RestartChoice?

    @Option(help: ArgumentHelp("How often, such as 5/10m: five times in ten minutes.", valueName: "n/time"))
    package var restartFrontendMax: RestartLimit?

    @Option(
        help: ArgumentHelp(
            "Seconds without a sign of life after which the engine counts as hung: /health/ready and new requests get "
                + "503; 0 = never (default: 10; swift frontend).",
            valueName: "s"))
    package var engineHangTimeout: SecondsOption?

    @Option(
        help: ArgumentHelp(
            "Seconds without a sign of life after which the requests that wait for a hung engine end with an error; "
                + "0 = they wait until it goes on or the client leaves (default: 0; swift frontend).",
            valueName: "s"))
    package var engineHangRequestDeadline: SecondsOption?

    @Option(help: ArgumentHelp("Seconds that open requests may take to finish after a stop signal.", valueName: "s"))
    package var shutdownTimeout: SecondsOption?

    @Flag(
        help: ArgumentHelp(
            "Note what was served on which machine, in usage_stats.json of vLLM's configuration folder. Nothing is sent; "
                + "VLLM_NO_USAGE_STATS=1 and DO_NOT_TRACK=1 forbid it."))
    package var reportUsageStats = false

    @Option(help: "Number of frontend processes on the one port; swift and python.")
    package var apiServerCount: Int = 1

    package init() {}

    package mutating func validate() throws {
        guard (1...64).contains(apiServerCount) else {
            throw ValidationError("--api-server-count must be from 1 to 64")
        }
        for (name, option) in [
            ("--engine-hang-timeout", engineHangTimeout), ("--engine-hang-request-deadline", engineHangRequestDeadline),
        ] {
            if let seconds = option?.value, seconds != 0, !(0.1...86_400).contains(seconds) {
                throw ValidationError("\(name) must be 0 (off) or 0.1 to 86400 seconds")
            }
        }
        if engineHangTimeout?.value == 0, engineHangRequestDeadline?.value ?? 0 > 0 {
            throw ValidationError("--engine-hang-request-deadline needs an --engine-hang-timeout above 0")
        }
        guard restartMax == nil || restart == .onFailure else {
            throw ValidationError("--restart-max needs --restart on-failure")
        }
    }

    var frontendRestarts: RestartPolicy {
        guard (restartFrontend ?? restart) != .never else { return .never }
        guard let restartFrontendMax else { return .standard }
        return RestartPolicy(limit: restartFrontendMax.count, window: restartFrontendMax.window)
    }

    var engineRestarts: RestartPolicy {
        guard restart == .onFailure else { return .never }
        guard let restartMax else { return .standard }
        return RestartPolicy(limit: restartMax.count, window: restartMax.window)
    }

    func add(to arguments: inout FrontendArguments) {
        if let shutdownTimeout { arguments["shutdown_timeout"] = shutdownTimeout.json }
    }
}
