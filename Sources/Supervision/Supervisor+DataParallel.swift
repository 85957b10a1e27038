import EngineProtocol
import Logging
import ZeroMQ

/// What a data-parallel deployment needs beside engines and frontends.
extension Supervisor {
    /// Where one more frontend is reached by engines: unix sockets if all of them are here.
    func engineSideAddress(_ directory: RuntimeDirectory) -> String {
        engineClientZMQAddress(
            localOnly: configuration.dataParallel.frontendsAreLocal, host: configuration.dataParallel.address,
            directory: directory)
    }

    /// The process that tells every frontend how busy every engine is, and engines of a mixture-of-experts model when to
    /// step; nil where another node has it, or there is one engine.
    func startCoordinator(
        _ directory: RuntimeDirectory, _ factory: ChildFactory, isInterrupted: () -> Bool
    ) throws -> DPCoordinator? {
        let topology = configuration.dataParallel
        guard topology.needsCoordinator else { return nil }
        func address(isLocal: Bool) -> String {
            engineClientZMQAddress(localOnly: isLocal, host: topology.address, directory: directory)
        }
        var settings = CoordinatorProcess.Configuration(
            engineCount: topology.size,
            statsPublish: address(isLocal: topology.loadBalancing == .internal || topology.isSingleNode),
            engineOutput: address(isLocal: topology.isSingleNode),
            enginePublish: address(isLocal: topology.isSingleNode))
        settings.family = configuration.frontendContract.family
        settings.coordinatesWaves = configuration.modelIsMixtureOfExperts
        if configuration.modelIsMixtureOfExperts { lockstepPorts = try LockstepPorts(host: topology.address) }
        do {
            return try DPCoordinator(settings, factory: factory, isInterrupted: isInterrupted)
        } catch {
            if isInterrupted() { return nil }
            throw error
        }
    }

    /// What the frontends say that bind their sockets themselves; empty when interrupted.
    func gatherFrontendAddresses(timeout: Duration, isInterrupted: () -> Bool) throws -> [FrontendTransport] {
        guard let frontends else { return [] }
        do {
            try frontends.gatherActualAddresses(timeout: timeout, isInterrupted: isInterrupted)
        } catch {
            if isInterrupted() { return [] }
            throw error
        }
        return frontends.transports
    }

    /// What engines are told beside the frontends' addresses.
    func withCoordinator(_ message: EngineInitMessage) -> EngineInitMessage {
        var message = message
        message.coordinatorInput = coordinator?.enginePublishAddress ?? firstNode?.coordinatorInput
        message.coordinatorOutput = coordinator?.engineOutputAddress ?? firstNode?.coordinatorOutput
        message.frontendStatsPublishAddress = statsPublishAddress
        if let firstNode { message.parallelConfig = firstNode.parallelConfig }
        if let lockstepPorts {
            message.parallelConfig = lockstepPorts.parallelConfig(
                size: configuration.dataParallel.size, family: configuration.frontendContract.family)
        }
        return message
    }

    /// Of the coordinator, for frontends, wherever it runs.
    var statsPublishAddress: String? {
        coordinator?.statsPublishAddress ?? firstNode?.frontendStatsPublishAddress
    }

    func makeHandshake(
        _ directory: RuntimeDirectory, _ context: ZMQContext, _ message: EngineInitMessage
    ) throws -> HandshakeServer {
        let topology = configuration.dataParallel
        let isLocal = topology.isSingleNode || !topology.isFirstNode
        return try HandshakeServer(
            address: isLocal
                ? engineClientZMQAddress(localOnly: true, host: "", directory: directory)
                : topology.handshakeAddress,
            initMessage: withCoordinator(message), ranks: topology.handshakeRanks, localRanks: topology.localRanks,
            remoteAreHeadless: topology.loadBalancing == .internal, context: context, loop: loop, logger: logger)
    }

    /// Asks the node of rank 0 for the coordinator's addresses.
    func shakeHandsWithFirstNode(_ context: ZMQContext) throws -> RemoteHandshake? {
        let topology = configuration.dataParallel
        guard topology.loadBalancing == .hybrid, !topology.isFirstNode else { return nil }
        return try RemoteHandshake(
            address: topology.handshakeAddress, ranks: topology.localRanks, context: context, loop: loop,
            logger: logger)
    }
}
