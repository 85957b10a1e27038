/// Which engines of a data-parallel deployment are where, and who spreads requests over which (vLLM: `ParallelConfig`).
package struct DataParallelTopology: Equatable, Sendable {
    package enum LoadBalancing: Equatable, Sendable {
        /// One frontend node serves the engines of all nodes; the other nodes are headless.
        case `internal`
        /// Every node has frontends for its own engines; something outside spreads requests over the nodes.
        case hybrid
    }

    /// Engines of the whole deployment.
    package var size = 1
    /// Engines that are started here.
    package var localSize = 1
    /// Rank of the first of them.
    package var startRank = 0
    package var loadBalancing = LoadBalancing.internal
    /// No frontend here: the engines dial the node that has one.
    package var isHeadless = false
    /// The node of rank 0.
    package var address = "127.0.0.1"
    /// Its handshake port.
    package var rpcPort: UInt16 = 29550

    package init() {}

    package var localRanks: Range<Int> { startRank..<startRank + localSize }

    /// Engines that the frontends of this node send requests to.
    package var servedRanks: Range<Int> { loadBalancing == .internal ? 0..<size : localRanks }

    /// Engines that shake hands with this node.
    package var handshakeRanks: Range<Int> { isFirstNode ? 0..<size : localRanks }

    /// The node of rank 0 has the handshake that everybody knows, and the coordinator.
    package var isFirstNode: Bool { startRank == 0 && !isHeadless }

    /// Everything is on this machine, so unix sockets will do.
    package var isSingleNode: Bool { localSize == size }

    package var needsCoordinator: Bool { size > 1 && isFirstNode }

    /// Where engines of other nodes dial.
    package var handshakeAddress: String {
        "tcp://\(address.contains(":") && !address.hasPrefix("[") ? "[\(address)]" : address):\(rpcPort)"
    }

    /// Frontends' sockets are dialled by engines of other nodes only with internal load balancing.
    package var frontendsAreLocal: Bool { isSingleNode || loadBalancing == .hybrid }

    /// The deployment as a command line describes it; nil = not given.
    package struct Description {
        package var size = 1
        package var localSize: Int?
        package var startRank: Int?
        package var address: String?
        package var rpcPort: UInt16?
        package var isHeadless = false
        package var wantsHybrid = false

        package init() {}
    }

    /// - Throws: `SupervisionError(.usage)` that says which options do not go together.
    package init(_ given: Description) throws {
        func fail(_ text: String) -> SupervisionError { SupervisionError(.usage, text) }
        size = given.size
        localSize = given.localSize ?? given.size
        startRank = given.startRank ?? 0
        address = given.address ?? address
        rpcPort = given.rpcPort ?? rpcPort
        isHeadless = given.isHeadless
        guard (1...65_536).contains(size) else { throw fail("--data-parallel-size must be from 1 to 65536") }
        guard (0...64).contains(localSize) else {
            throw fail("\(localSize) engines on one machine: --data-parallel-size-local must be from 0 to 64")
        }
        guard startRank >= 0, startRank + localSize <= size else {
            throw fail(
                "--data-parallel-start-rank \(startRank) plus \(localSize) local engines is more than "
                    + "--data-parallel-size \(size)")
        }
        if isHeadless {
            guard given.address != nil else {
                throw fail("--headless needs --data-parallel-address: where the node with the frontend is")
            }
            guard !given.wantsHybrid else { throw fail("--headless and --data-parallel-hybrid-lb exclude each other") }
            guard localSize > 0 else { throw fail("--headless with --data-parallel-size-local 0 would start nothing") }
            return
        }
        // As in vLLM: a node with frontends and a start rank is one of several such nodes.
        if given.wantsHybrid || given.startRank != nil {
            guard given.localSize != nil else {
                throw fail("--data-parallel-hybrid-lb and --data-parallel-start-rank need --data-parallel-size-local")
            }
            guard localSize > 0 else {
                throw fail("with --data-parallel-hybrid-lb every node needs an engine of its own")
            }
            if localSize < size { loadBalancing = .hybrid }
        }
        guard isSingleNode || given.address != nil else {
            throw fail(
                "engines on other machines (--data-parallel-size-local below --data-parallel-size) need "
                    + "--data-parallel-address: an address of the node of rank 0 that they can reach")
        }
    }
}
