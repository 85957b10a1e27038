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

    @Flag(help: "As in vLLM only for mixture-of-experts models, which the engine does not have.")
    package var dataParallelExternalLb = false

    @Option(help: ArgumentHelp("The same.", valueName: "n"))
    package var dataParallelRank: Int?

    @Flag(help: "No frontend: the engines of this machine work for the one at --data-parallel-address.")
    package var headless = false

    package init() {}

    package mutating func validate() throws {
        if dataParallelExternalLb || dataParallelRank != nil {
            let option = dataParallelRank == nil ? "--data-parallel-external-lb" : "--data-parallel-rank"
            throw ValidationError(
                "\(option): only mixture-of-experts models have ranks that depend on each other; behind a load "
                    + "balancer of yours start independent services without --data-parallel options")
        }
    }

    var description: DataParallelTopology.Description {
        var description = DataParallelTopology.Description()
        description.size = dataParallelSize
        description.localSize = dataParallelSizeLocal
        description.startRank = dataParallelStartRank
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
        if kind == .python { arguments.set("data_parallel_hybrid_lb", dataParallelHybridLb ? true : nil) }
    }
}
