import EngineProtocol
import Glibc
import JSONBytes
import Logging

/// One exchange of the frontend under load: the successor shares the HTTP socket, has engine sockets of its own, and
/// takes over once every engine has registered with it and it accepts connections; then its predecessor is drained.
final class FrontendSwap {
    enum Phase { case starting, draining }

    let successor: FrontendProcessManager
    let predecessor: FrontendProcessManager
    /// Of the successor, at the engines.
    let clientIndex: Int
    let exchange: ControlServer.Exchange
    let startedAt = ContinuousClock.now
    let drainTimeout: Duration
    var phase = Phase.starting
    var predecessorIndex = 0
    var registeredEngines: Set<Int> = []
    var timer: EventLoop.TimerID?

    init(
        successor: FrontendProcessManager, predecessor: FrontendProcessManager, clientIndex: Int,
        exchange: ControlServer.Exchange, drainTimeout: Duration
    ) {
        self.successor = successor
        self.predecessor = predecessor
        self.clientIndex = clientIndex
        self.exchange = exchange
        self.drainTimeout = drainTimeout
    }

    /// The one that does not serve, or no longer.
    var idle: FrontendProcessManager { phase == .starting ? successor : predecessor }
}

/// `vllm-engine swap`
extension Supervisor {
    func beginSwap(_ request: JSONObject, _ exchange: ControlServer.Exchange) {
        do {
            swap = try makeSwap(request, exchange)
        } catch {
            exchange.fail("\(error)")
        }
        pollSwap()
    }

    private func makeSwap(_ request: JSONObject, _ exchange: ControlServer.Exchange) throws -> FrontendSwap {
        guard configuration.apiServerCount == 1 else {
            throw SupervisionError(.usage, "swap works with one frontend, not with --api-server-count above 1")
        }
        guard configuration.dataParallel.isSingleNode else {
            throw SupervisionError(.usage, "swap works only if all engines run on this machine")
        }
        guard configuration.split.isEmpty else {
            throw SupervisionError(.usage, "swap works with one frontend, not with --split")
        }
        guard state == "serving", let frontends = frontends as? FrontendProcessManager,
            frontends.firstExited() == nil
        else { throw SupervisionError(.failure, "the service is \(state)") }
        guard swap == nil else { throw SupervisionError(.failure, "another swap is under way") }
        guard let name = request["frontend"]?.stringValue else {
            throw SupervisionError(.usage, "the request names no frontend")
        }
        let seconds = request["timeout"]?.numberValue?.doubleValue ?? 600
        guard (0...1e6).contains(seconds) else {
            throw SupervisionError(.usage, "timeout must be 0 to 1000000 seconds")
        }
        let kind = FrontendKind(name)
        let program = try Binaries.frontend(kind, explicit: request["binary"]?.stringValue)
        let contract = try FrontendContract(of: kind, program: program, release: nil)
        // The engine writes its messages in the form of one family of releases, chosen when it was started.
        guard contract.family == configuration.frontendContract.family else {
            throw SupervisionError(
                .usage,
                "\(name) speaks the protocol of vLLM \(contract.family), the engine was started for "
                    + "\(configuration.frontendContract.family); restart the service to change that")
        }
        let successor = try startSuccessor(kind, program: program, contract: contract)
        let index = clientIndex == 0 ? 1 : 0
        sendToEngines(
            .connectFrontend(
                clientIndex: index, input: successor.transport.inputAddress,
                output: successor.transport.outputAddress))
        exchange.send(JSONObject([("state", .string("starting"))]))
        return FrontendSwap(
            successor: successor, predecessor: frontends, clientIndex: index, exchange: exchange,
            drainTimeout: .milliseconds(Int64(seconds * 1000)))
    }

    /// What an engine said about a frontend.
    func handle(_ event: EngineControlEvent, rank: Int) {
        if event.status == .refused {
            logger.error("engine \(rank): \(event.error ?? "a command was refused")")
        }
        guard let swap, swap.phase == .starting, event.clientIndex == swap.clientIndex else { return }
        switch event.status {
        case .registered: swap.registeredEngines.insert(rank)
        case .lost: swap.registeredEngines.remove(rank)
        case .refused: giveUpSwap(event.error ?? "the engine refuses another frontend")
        case .closed: break
        }
    }

    /// Looks every few milliseconds whether the successor can take over.
    private func pollSwap() {
        guard let swap, swap.phase == .starting else { return }
        guard state == "serving", frontends?.firstExited() == nil else {
            return giveUpSwap("the service is \(state)")
        }
        if let child = swap.successor.firstExited() {
            return giveUpSwap("\(child.name) (pid \(child.process.pid)) failed: \(child.process.exitDescription)")
        }
        let isKnown = swap.registeredEngines.count == configuration.dataParallel.size
        if isKnown, let listener, let process = swap.successor.processes.first,
            ProcessInfo.acceptsConnections(process.pid, on: listener.descriptor.rawValue)
        {
            return switchOver(swap)
        }
        if ContinuousClock.now - swap.startedAt > Self.swapPatience {
            let why =
                isKnown
                ? ""
                : ": no engine has registered with it; vLLM's own engines register once, with the frontends of their start"
            return giveUpSwap(
                "the new frontend was not ready after \(Self.swapPatience.components.seconds) s\(why)")
        }
        swap.timer = loop.schedule(after: .milliseconds(15)) { [unowned self] in pollSwap() }
    }

    private static let swapPatience = Duration.seconds(60)

    private func giveUpSwap(_ reason: String) {
        guard let swap else { return }
        logger.error("The frontend stays as it is: \(reason)")
        self.swap = nil
        loop.cancel(swap.timer)
        retire(swap.successor, clientIndex: swap.clientIndex)
        swap.exchange.fail(reason)
    }

    private func switchOver(_ swap: FrontendSwap) {
        swap.phase = .draining
        serveWith(swap.successor)
        let old = swap.predecessor
        let oldIndex = clientIndex
        clientIndex = swap.clientIndex
        let took = milliseconds(ContinuousClock.now - swap.startedAt)
        logger.info("The new frontend serves after \(took) ms, the old one finishes its requests")
        swap.exchange.send(JSONObject([("state", .string("switched")), ("after_ms", .number(Int(took)))]))
        for process in old.processes { process.send(signal: old.kind == .swift ? SIGUSR2 : SIGTERM) }
        swap.timer = loop.schedule(after: swap.drainTimeout) { [unowned self] in
            logger.warning("The old frontend has not finished in time: ending its requests")
            for process in old.processes { process.terminate() }
            swap.timer = loop.schedule(after: .seconds(5)) { for process in old.processes { process.killTree() } }
        }
        swap.predecessorIndex = oldIndex
        childEndedDuringSwap()
    }

    /// To be called when some child has ended.
    func childEndedDuringSwap() {
        guard let swap, swap.phase == .draining, swap.predecessor.firstExited() != nil else { return }
        finishSwap(swap, swap.predecessorIndex)
    }

    private func finishSwap(_ swap: FrontendSwap, _ oldIndex: Int) {
        self.swap = nil
        loop.cancel(swap.timer)
        let exit = swap.predecessor.processes.first?.exitDescription ?? ""
        retire(swap.predecessor, clientIndex: oldIndex)
        logger.info("The old frontend has ended: \(exit)")
        swap.exchange.finish(JSONObject([("state", .string("done"))]))
    }

    /// The engines forget it, and nothing of it stays.
    private func retire(_ frontend: FrontendProcessManager, clientIndex: Int) {
        frontend.shutdown(timeout: .zero)
        sendToEngines(.disconnectFrontend(clientIndex: clientIndex))
        for address in [frontend.transport.inputAddress, frontend.transport.outputAddress]
        where address.hasPrefix("ipc://") { unlink(String(address.dropFirst(6))) }
    }
}
