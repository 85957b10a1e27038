import EngineProtocol
import Glibc
import JSONBytes
import Logging

/// One exchange of the frontends under load: the successors share the HTTP socket, have engine sockets of their own, and
/// take over once every engine has registered with each and all accept connections; then their predecessors are drained.
final class FrontendSwap {
    enum Phase { case starting, draining }

    let successor: any FrontendManager
    let predecessor: any FrontendManager
    /// Of the successors, at the engines.
    let clientIndices: Range<Int>
    let predecessorIndices: Range<Int>
    let exchange: ControlServer.Exchange
    let startedAt = ContinuousClock.now
    let drainTimeout: Duration
    var phase = Phase.starting
    /// Engines by the successor they have registered with.
    private var registrations: [Int: Set<Int>] = [:]
    var timer: EventLoop.TimerID?

    init(
        successor: any FrontendManager, at clientIndices: Range<Int>, predecessor: any FrontendManager,
        at predecessorIndices: Range<Int>, exchange: ControlServer.Exchange, drainTimeout: Duration
    ) {
        self.successor = successor
        self.clientIndices = clientIndices
        self.predecessor = predecessor
        self.predecessorIndices = predecessorIndices
        self.exchange = exchange
        self.drainTimeout = drainTimeout
    }

    /// Those that do not serve, or no longer.
    var idle: any FrontendManager { phase == .starting ? successor : predecessor }

    func note(_ status: EngineControlEvent.Status, of rank: Int, with clientIndex: Int) {
        switch status {
        case .registered: registrations[clientIndex, default: []].insert(rank)
        case .lost: registrations[clientIndex]?.remove(rank)
        case .refused, .closed: break
        }
    }

    /// The engine died.
    func forget(rank: Int) {
        for index in registrations.keys { registrations[index]?.remove(rank) }
    }

    func isKnown(to engines: Int) -> Bool { clientIndices.allSatisfy { registrations[$0]?.count == engines } }
}

/// `vllm-engine swap`
extension Supervisor {
    /// Places for frontends in our engine.
    private static let mostClients = 64

    func beginSwap(_ request: JSONObject, _ exchange: ControlServer.Exchange) {
        do {
            try checkSwap()
            guard let name = request["frontend"]?.stringValue else {
                throw SupervisionError(.usage, "the request names no frontend")
            }
            let seconds = request["timeout"]?.numberValue?.doubleValue ?? 600
            guard (0...1e6).contains(seconds) else {
                throw SupervisionError(.usage, "timeout must be 0 to 1000000 seconds")
            }
            let kind = FrontendKind(name)
            let program = try Binaries.frontend(kind, explicit: request["binary"]?.stringValue)
            let start = { [unowned self] (contract: FrontendContract) in
                try checkSwap()
                swap = try startSwap(
                    kind, program: program, contract: contract, drainTimeout: .milliseconds(Int64(seconds * 1000)),
                    exchange)
                pollSwap()
            }
            switch kind {
            case .swift, .python: try start(FrontendContract(of: kind, program: program, release: nil))
            case .rust, .program:
                // The program may be slow to answer, and children and clients do not wait.
                contractProbe = try ContractProbe(program, loop: loop) { [unowned self] result in
                    contractProbe = nil
                    do { try start(result.get()) } catch { exchange.fail("\(error)") }
                }
            }
        } catch {
            exchange.fail("\(error)")
        }
    }

    /// - Throws: why there can be no swap now.
    private func checkSwap() throws {
        guard configuration.split.isEmpty else {
            throw SupervisionError(.usage, "swap works with one kind of frontend, not with --split")
        }
        guard state == "serving", frontends?.firstExited() == nil else {
            throw SupervisionError(.failure, "the service is \(state)")
        }
        guard swap == nil, contractProbe == nil else {
            throw SupervisionError(.failure, "another swap is under way")
        }
        guard foreignEngines.isEmpty else {
            let list = foreignEngines.map(String.init).joined(separator: ", ")
            throw SupervisionError(
                .usage,
                "vLLM's own engines (\(list)) register once, with the frontends of their start: there can be no swap")
        }
    }

    private func startSwap(
        _ kind: FrontendKind, program: String, contract: FrontendContract, drainTimeout: Duration,
        _ exchange: ControlServer.Exchange
    ) throws -> FrontendSwap {
        guard let frontends else { throw SupervisionError(.failure, "not started yet") }
        // The engine writes its messages in the form of one family of releases, chosen when it was started.
        guard contract.family == configuration.frontendContract.family else {
            throw SupervisionError(
                .usage,
                "\(kind.processName) speaks the protocol of vLLM \(contract.family), the engine was started for "
                    + "\(configuration.frontendContract.family); restart the service to change that")
        }
        let count = kind == .swift || kind == .python ? configuration.apiServerCount : 1
        let first = clientIndices.lowerBound >= count ? 0 : clientIndices.upperBound
        guard first + count <= Self.mostClients else {
            throw SupervisionError(
                .usage, "the engines have places for \(Self.mostClients) frontends, too few for \(count) more")
        }
        let successor = try startSuccessors(kind, program: program, contract: contract, count: count)
        for (index, transport) in zip(first..., successor.transports) {
            sendToEngines(
                .connectFrontend(clientIndex: index, input: transport.inputAddress, output: transport.outputAddress))
        }
        exchange.send(JSONObject([("state", .string("starting"))]))
        return FrontendSwap(
            successor: successor, at: first..<first + count, predecessor: frontends, at: clientIndices,
            exchange: exchange, drainTimeout: drainTimeout)
    }

    /// What an engine said about a frontend.
    func handle(_ event: EngineControlEvent, rank: Int) {
        if event.status == .refused {
            logger.error("engine \(rank): \(event.error ?? "a command was refused")")
        }
        guard let swap, swap.phase == .starting, swap.clientIndices.contains(event.clientIndex) else { return }
        swap.note(event.status, of: rank, with: event.clientIndex)
        if event.status == .refused { giveUpSwap(event.error ?? "the engine refuses another frontend") }
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
        let isKnown = swap.isKnown(to: configuration.dataParallel.servedRanks.count)
        if isKnown, let listener,
            swap.successor.processes.allSatisfy({
                ProcessInfo.acceptsConnections($0.pid, on: listener.descriptor.rawValue)
            })
        {
            return switchOver(swap)
        }
        if ContinuousClock.now - swap.startedAt > Self.swapPatience {
            let why = isKnown ? "" : ": not every engine has registered with it"
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
        retire(swap.successor, swap.clientIndices)
        swap.exchange.fail(reason)
    }

    private func switchOver(_ swap: FrontendSwap) {
        swap.phase = .draining
        serveWith(swap.successor)
        let old = swap.predecessor
        clientIndices = swap.clientIndices
        let took = milliseconds(ContinuousClock.now - swap.startedAt)
        logger.info("The new frontend serves after \(took) ms, the old one finishes its requests")
        swap.exchange.send(JSONObject([("state", .string("switched")), ("after_ms", .number(Int(took)))]))
        for process in old.processes { process.send(signal: old.kind == .swift ? SIGUSR2 : SIGTERM) }
        swap.timer = loop.schedule(after: swap.drainTimeout) { [unowned self] in
            logger.warning("The old frontend has not finished in time: ending its requests")
            for process in old.processes { process.terminate() }
            swap.timer = loop.schedule(after: .seconds(5)) { for process in old.processes { process.killTree() } }
        }
        childEndedDuringSwap()
    }

    /// To be called when some child has ended.
    func childEndedDuringSwap() {
        guard let swap, swap.phase == .draining, swap.predecessor.processes.allSatisfy({ !$0.isAlive }) else { return }
        finishSwap(swap)
    }

    private func finishSwap(_ swap: FrontendSwap) {
        self.swap = nil
        loop.cancel(swap.timer)
        let exit = swap.predecessor.processes.map(\.exitDescription).joined(separator: ", ")
        retire(swap.predecessor, swap.predecessorIndices)
        logger.info("The old frontend has ended: \(exit)")
        swap.exchange.finish(JSONObject([("state", .string("done"))]))
    }

    /// The engines forget them, and nothing of them stays.
    private func retire(_ frontends: any FrontendManager, _ clientIndices: Range<Int>) {
        frontends.shutdown(timeout: .zero)
        for index in clientIndices { sendToEngines(.disconnectFrontend(clientIndex: index)) }
        for address in frontends.transports.flatMap({ [$0.inputAddress, $0.outputAddress] })
        where address.hasPrefix("ipc://") { unlink(String(address.dropFirst(6))) }
    }
}
