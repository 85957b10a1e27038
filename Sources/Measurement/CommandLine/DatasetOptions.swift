import ArgumentParser

/// What becomes of the prompts of data sets, under the names of `vllm bench serve`.
struct DatasetOptions: ParsableArguments {
    @Flag(help: "Keep the order of the prompts, in every block.")
    var disableShuffle = false

    @Flag(help: "Send no prompt of a data set twice: fewer requests if it has fewer than --num-prompts.")
    var noOversample = false

    @Flag(help: "Send prompts as they are. That is so anyway: templates are the server's.")
    var skipChatTemplate = false

    @Option(
        help: ArgumentHelp("Seconds that a timestamp's unit has; default: milliseconds.", valueName: "s"))
    var timedTraceSecMultiplier = 0.001

    @Option(help: ArgumentHelp("Tokens that each of a trace's hash_ids stands for.", valueName: "n"))
    var timedTraceChunkHashSize = 16

    @Option(help: ArgumentHelp("Different beginnings of made-up prompts.", valueName: "n"))
    var prefixRepetitionNumPrefixes = 10

    @Option(help: ArgumentHelp("Tokens of each beginning.", valueName: "n"))
    var prefixRepetitionPrefixLen = 256

    @Option(help: ArgumentHelp("Tokens of each end, which no two prompts share.", valueName: "n"))
    var prefixRepetitionSuffixLen = 256

    @Option(help: ArgumentHelp("Tokens of each answer.", valueName: "n"))
    var prefixRepetitionOutputLen = 128

    mutating func validate() throws {
        for (name, value) in [
            ("--prefix-repetition-num-prefixes", prefixRepetitionNumPrefixes),
            ("--prefix-repetition-prefix-len", prefixRepetitionPrefixLen),
            ("--prefix-repetition-suffix-len", prefixRepetitionSuffixLen),
            ("--prefix-repetition-output-len", prefixRepetitionOutputLen),
            ("--timed-trace-chunk-hash-size", timedTraceChunkHashSize),
        ] {
            if !(1...10_000_000).contains(value) { throw ValidationError("\(name) must be at least 1") }
        }
        if !(timedTraceSecMultiplier > 0 && timedTraceSecMultiplier <= 1e6) {
            throw ValidationError("--timed-trace-sec-multiplier must be above 0")
        }
    }

    /// - Parameters:
    ///   - count: prompts wanted; each beginning gets as many, so there may be a few less.
    ///   - outputTokens: in place of the option's.
    func prefixRepetition(
        count: Int, ids: Bool, outputTokens: Int?, maker: PromptMaker, seed: UInt64
    ) throws -> [Workload.Item] {
        let each = count / prefixRepetitionNumPrefixes
        guard each > 0 else {
            throw WorkloadError(
                "\(count) requests are too few for --prefix-repetition-num-prefixes \(prefixRepetitionNumPrefixes)")
        }
        return (0..<prefixRepetitionNumPrefixes).flatMap { beginning in
            let key = seed &* 1_000_003 &+ UInt64(beginning) &* 0x1_0000_0001 ^ 0x9EF1
            let text = ids ? "" : maker.text(tokens: prefixRepetitionPrefixLen, seed: key)
            let prefix = ids ? maker.ids(tokens: prefixRepetitionPrefixLen, seed: key) : []
            return (1...each).map { number in
                let key = key &+ UInt64(number)
                let prompt: Workload.Item.Prompt =
                    ids
                    ? .ids(prefix + maker.ids(tokens: prefixRepetitionSuffixLen, seed: key))
                    : .text(text + " " + maker.text(tokens: prefixRepetitionSuffixLen, seed: key))
                return Workload.Item(prompt: prompt, outputTokens: outputTokens ?? prefixRepetitionOutputLen)
            }
        }
    }

    func prefixRepetitionSummary(output: Int?) -> String {
        "\(prefixRepetitionNumPrefixes) beginnings of \(prefixRepetitionPrefixLen) + \(prefixRepetitionSuffixLen) in, "
            + "\(output ?? prefixRepetitionOutputLen) out"
    }
}
