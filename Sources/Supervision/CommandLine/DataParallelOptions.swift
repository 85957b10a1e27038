import ArgumentParser
import JSONBytes

/// Several engines, on this machine or on several, under vLLM's names.
package struct DataParallelOptions: ParsableArguments {
    @Option(help: "Number of engines, each with the whole model; requests are spread over them.")
    package var dataParallelSize: Int = 1

    @Option(help: ArgumentHelp("How many of them run on this machine; default: all.", valueName: "n"))
    package var dataParallelSizeLocal: Int?

    @Option(
        help: ArgumentHelp("Address of the machine of rank 0, as the others reach it.", valueName: "host"))
    package var dataParallelAddress: String?

    @Option(help: ArgumentHelp("Port there that engines dial first. (default: 29550)", valueName: "port"))
    package var dataParallelRpcPort: UInt16?

    @Option(help: ArgumentHelp("Rank of the first engine of this machine.", valueName: "n"))
    package var dataParallelStartRank: Int?

    @Flag(
        help: """
            Every machine has a frontend for its own engines, and a load balancer of yours spreads requests over the \
            machines.
            """)
    package var dataParallelHybridLb = false

    @Flag(
        help: """
            The same with one engine per machine, for mixture-of-experts models; engines of other models need nothing of \
            each other.
            """)
    package var dataParallelExternalLb = false

    @Option(help: ArgumentHelp("Rank of that engine; implies --data-parallel-external-lb.", valueName: "n"))
    package var dataParallelRank: Int?

    @Flag(help: "No frontend: the engines of this machine work for the one at --data-parallel-address.")
    package var headless = false

    package init() {}

    package mutating func validate() throws {
        guard wantsExternal else { return }
        func fail(_ text: String) -> ValidationError { ValidationError(text) }
        guard !dataParallelHybridLb, dataParallelStartRank == nil else {
            throw fail(
                "--data-parallel-external-lb (or --data-parallel-rank) and --data-parallel-hybrid-lb (or "
                    + "--data-parallel-start-rank) exclude each other")
        }
        guard dataParallelSize > 1 else { throw fail("--data-parallel-external-lb needs --data-parallel-size above 1") }
        guard dataParallelRank != nil else { throw fail("--data-parallel-external-lb needs --data-parallel-rank") }
        guard dataParallelSizeLocal ?? 1 == 1 else {
            throw fail("--data-parallel-rank is about one engine: --data-parallel-size-local can only be 1")
        }
        guard !headless else { throw fail("--headless and --data-parallel-external-lb exclude each other") }
    }

    /// One engine per node and a load balancer outside (vLLM: external load balancing).
    var wantsExternal: Bool { dataParallelExternalLb || dataParallelRank != nil }

    var description: DataParallelTopology.Description {
        var description = DataParallelTopology.Description()
        description.size = dataParallelSize
        description.localSize = wantsExternal ? 1 : dataParallelSizeLocal
        description.startRank = dataParallelRank ?? dataParallelStartRank
        description.address = dataParallelAddress
        description.rpcPort = dataParallelRpcPort
        description.isHeadless = headless
        description.wantsHybrid = dataParallelHybridLb
        return description
    }

    /// Attributes of vLLM's namespace. vLLM keeps those of the load balancing mode from its Rust frontend, which gets
    /// its range of engines on the command line; the Python server derives the range from them.
    func add(to arguments: inout FrontendArguments, _ kind: FrontendKind) {
        guard dataParallelSize > 1 else { return }
        arguments.set("data_parallel_size", dataParallelSize)
        arguments.set("data_parallel_size_local", dataParallelSizeLocal)
        arguments.set("data_parallel_address", dataParallelAddress)
        arguments.set("data_parallel_rpc_port", dataParallelRpcPort.map { Int($0) })
        arguments.set("data_parallel_start_rank", dataParallelStartRank)
        guard kind == .python else { return }
        arguments.set("data_parallel_rank", dataParallelRank)
        arguments.set("data_parallel_hybrid_lb", dataParallelHybridLb ? true : nil)
    }
}
