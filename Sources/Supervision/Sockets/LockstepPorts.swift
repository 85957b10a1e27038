import EngineProtocol
import Glibc

/// TCP ports of rank 0 through which engines that run in lockstep find each other (vLLM: the `data_parallel_master_port`
/// and its list). They are bound here, but nobody listens yet: so nobody else gets them before rank 0 listens, and again
/// while it is restarted.
final class LockstepPorts {
    /// As many as vLLM's launcher looks for.
    private static let count = 5

    private let host: String
    private let sockets: [FileDescriptor]
    private let ports: [Int]

    /// - Parameter host: of rank 0, as the other ranks reach it.
    /// - Throws: `SupervisionError(.usage)` if that is no address of this machine.
    init(host: String) throws {
        self.host = host
        let address = try SocketAddress.resolve(host: host, port: 0)
        let sockets = try (0..<Self.count).map { _ in
            let socket = try makeStreamSocket(address.family)
            // Rank 0 may bind and listen where this one is only bound.
            setSocketFlag(socket.rawValue, SOL_SOCKET, SO_REUSEADDR, true)
            guard address.withPointer({ bind(socket.rawValue, $0, $1) }) == 0 else {
                throw SupervisionError(
                    .usage,
                    "--data-parallel-address \(host): the engine of rank 0 cannot listen there: \(describeErrno(errno))"
                )
            }
            return socket
        }
        self.sockets = sockets
        ports = sockets.compactMap { SocketAddress.ofSocket($0.rawValue)?.port.map { Int($0) } }
    }

    /// What the engines are told. vLLM's own launcher also runs a store for engines on its machine, from which they get a
    /// port of rank 0's choice; without one (port 0) they take the ports of the list.
    func parallelConfig(size: Int, family: ProtocolFamily) -> EngineInitMessage.ParallelConfig {
        var config = EngineInitMessage.ParallelConfig()
        config.dataParallelMasterIP = host
        config.dataParallelMasterPort = ports.last
        config.dataParallelMasterPortList = ports.dropLast()
        config.dataParallelSize = size
        if family >= .v0_32 { config.coordStorePort = 0 }
        return config
    }
}
