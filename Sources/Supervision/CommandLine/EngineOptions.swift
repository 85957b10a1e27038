import ArgumentParser

/// What the engine is told. The frontend gets those that vLLM hands to it as well.
package struct EngineOptions: ParsableArguments {
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Longest prompt plus answer in tokens (4k = 4000, 4K = 4096); -1 or auto: what fits.", valueName: "n"))
    package var maxModelLen: HumanInteger?

    @Option(help: ArgumentHelp("Most requests in one step.", valueName: "n"))
    package var maxNumSeqs: Int?

    @Option(help: ArgumentHelp("Most tokens in one step; longer prompts are computed in chunks.", valueName: "n"))
    package var maxNumBatchedTokens: HumanInteger?

    @Option(help: "Number format of weights and cache.")
    package var dtype: EngineDataType?

    @Option(help: ArgumentHelp("Compute threads; default: the CPUs that this process may use.", valueName: "n"))
    package var threads: Int?

    @Option(help: ArgumentHelp("Tokens per block of the key-value cache.", valueName: "n"))
    package var blockSize: Int?

    @Option(help: ArgumentHelp("Memory for keys and values, such as 2G.", valueName: "bytes"))
    package var kvCacheMemoryBytes: HumanInteger?

    @Option(help: ArgumentHelp("Exact number of cache blocks instead of a memory size.", valueName: "n"))
    package var numGpuBlocksOverride: Int?

    @Flag(inversion: .prefixedNo, help: "Reuse what was computed for common beginnings of prompts.")
    package var enablePrefixCaching: Bool?

    @Option(help: "Order of requests.")
    package var schedulingPolicy: SchedulingPolicy?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Seed of requests that bring none.", valueName: "n"))
    package var seed: Int?

    @Flag(help: "Make-up of every step in the engine's statistics.")
    package var enableLoggingIterationDetails = false

    package init() {}

    package mutating func validate() throws {
        if maxModelLen?.value == -1 { maxModelLen = nil }
        for (name, value) in [
            ("--max-num-seqs", maxNumSeqs), ("--block-size", blockSize), ("--threads", threads),
            ("--num-gpu-blocks-override", numGpuBlocksOverride), ("--max-model-len", maxModelLen?.value),
            ("--max-num-batched-tokens", maxNumBatchedTokens?.value),
            ("--kv-cache-memory-bytes", kvCacheMemoryBytes?.value),
        ] {
            if let value, value < 1 { throw ValidationError("\(name) must be at least 1") }
        }
    }

    /// The engine knows vLLM's names for data types only by their long forms.
    private var dataType: String? {
        switch dtype {
        case .half: "float16"
        case .float: "float32"
        case let other: other?.rawValue
        }
    }

    /// The engine's own command line.
    var words: [String] {
        var words: [String] = []
        func add(_ name: String, _ value: (some CustomStringConvertible)?) {
            if let value { words += [name, "\(value)"] }
        }
        add("--max-model-len", maxModelLen?.value)
        add("--max-num-seqs", maxNumSeqs)
        add("--max-num-batched-tokens", maxNumBatchedTokens?.value)
        add("--dtype", dataType)
        add("--threads", threads)
        add("--block-size", blockSize)
        add("--kv-cache-memory-bytes", kvCacheMemoryBytes?.value)
        add("--num-gpu-blocks-override", numGpuBlocksOverride)
        if let enablePrefixCaching {
            words.append(enablePrefixCaching ? "--enable-prefix-caching" : "--no-enable-prefix-caching")
        }
        add("--scheduling-policy", schedulingPolicy?.rawValue)
        add("--seed", seed)
        if enableLoggingIterationDetails { words.append("--enable-logging-iteration-details") }
        return words
    }

    /// `threads` is ours alone; the others are attributes of vLLM's namespace, which travels to the frontend whole.
    func add(to arguments: inout FrontendArguments) {
        arguments.set("max_model_len", maxModelLen)
        arguments.set("max_num_seqs", maxNumSeqs)
        arguments.set("max_num_batched_tokens", maxNumBatchedTokens)
        arguments.set("dtype", dtype.flatMap { $0 == .auto ? nil : $0.rawValue })
        arguments.set("block_size", blockSize)
        arguments.set("kv_cache_memory_bytes", kvCacheMemoryBytes)
        arguments.set("num_gpu_blocks_override", numGpuBlocksOverride)
        arguments.set("enable_prefix_caching", enablePrefixCaching)
        arguments.set("scheduling_policy", schedulingPolicy.flatMap { $0 == .fcfs ? nil : $0.rawValue })
        arguments.set("seed", seed)
    }
}
