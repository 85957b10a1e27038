import ArgumentParser
import JSONBytes
import Supervision

/// What requests ask of the sampler, and everything else that goes into their bodies.
struct SamplingOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Sampling temperature.", valueName: "t"))
    var temperature: Double?

    @Option(help: ArgumentHelp("As in the API; so are the next ones.", valueName: "p"))
    var topP: Double?

    @Option(help: ArgumentHelp(valueName: "k"))
    var topK: Int?

    @Option(help: ArgumentHelp(valueName: "p"))
    var minP: Double?

    @Option(help: ArgumentHelp(valueName: "x"))
    var frequencyPenalty: Double?

    @Option(help: ArgumentHelp(valueName: "x"))
    var presencePenalty: Double?

    @Option(help: ArgumentHelp(valueName: "x"))
    var repetitionPenalty: Double?

    @Option(help: ArgumentHelp("Ask for log-probabilities with so many alternatives.", valueName: "n"))
    var logprobs: Int?

    @Option(help: ArgumentHelp("Members to add to every request body.", valueName: "json"))
    var extraBody: JSONOption?

    mutating func validate() throws {
        if let logprobs, !(0...1000).contains(logprobs) { throw ValidationError("--logprobs must be from 0 to 1000") }
    }

    /// What the server checks is left to the server; temperature aside, which has a default of its own.
    func members(_ endpoint: Workload.Endpoint) -> JSONObject {
        var members = JSONObject()
        for (name, value) in [
            ("top_p", topP), ("min_p", minP), ("frequency_penalty", frequencyPenalty),
            ("presence_penalty", presencePenalty), ("repetition_penalty", repetitionPenalty),
        ] {
            if let value { members[name] = .finite(value) }
        }
        if let topK { members["top_k"] = .number(topK) }
        if let logprobs {
            switch endpoint {
            case .chat:
                members["logprobs"] = .bool(true)
                members["top_logprobs"] = .number(logprobs)
            case .completions: members["logprobs"] = .number(logprobs)
            }
        }
        for (key, value) in extraBody?.value.objectValue?.pairs ?? [] { members[key] = value }
        return members
    }
}
