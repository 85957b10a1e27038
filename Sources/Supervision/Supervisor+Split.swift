import EngineProtocol
import Logging

/// `--split`: different frontends at the same time.
extension Supervisor {
    func startSplit(
        _ launch: FrontendLaunch, _ listener: HTTPListener, _ transports: [FrontendTransport],
        _ directory: RuntimeDirectory, _ factory: ChildFactory
    ) throws -> SplitFrontendManager {
        let shares = configuration.split
        let launches = shares.enumerated().map { index, share in
            var launch = launch
            launch.kind = share.kind
            launch.executable = share.executable
            launch.contract = share.contract
            launch.shareIndex = index
            // One that is not ready must not take connections that it cannot answer.
            launch.environment["VLLM_ENGINE_LISTEN_PATIENCE_S"] = "86400"
            return launch
        }
        let manager = try SplitFrontendManager(
            launches, weights: shares.map(\.weight), listener: listener, transports: transports, directory: directory,
            factory: factory)
        let total = shares.reduce(0) { $0 + $1.weight }
        for part in manager.parts {
            let name = part.manager.children.first?.name ?? ""
            logger.info(
                "\(name) gets \(part.weight) of \(total) new connections; its own pages are at unix:\(part.door.path)")
        }
        return manager
    }

    /// A frontend that ended for good leaves its share to the others. Returns whether there are any.
    func leaveToOthers(_ frontend: SupervisedProcess) -> Bool {
        guard state != "starting", let split = frontends as? SplitFrontendManager,
            let index = split.part(of: frontend)?.clientIndex, split.drop(frontend)
        else { return false }
        let others = split.children.map(\.name).joined(separator: ", ")
        logger.error(
            """
            process \(frontend.name) (pid \(frontend.process.pid)) ended: \(frontend.process.exitDescription); \
            its share goes to \(others)
            """)
        sendToEngines(.disconnectFrontend(clientIndex: index))
        return true
    }
}
