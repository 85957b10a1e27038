import EngineHandshake
import EngineProtocol
import Glibc
import Logging
import ZeroMQ

/// Engines that died and are on their way back: the port stays open, our frontend answers 503 meanwhile.
final class EngineRecovery {
    let lostAt = ContinuousClock.now
    /// Not ready yet.
    var ranks: Set<Int> = []
    /// Foreign frontends that have to be replaced with them, until they have ended.
    var endingFrontends: Set<pid_t> = []
    var timers: [EventLoop.TimerID] = []
    /// Answers while there is no frontend.
    var responder: UnavailableResponder?
}

/// `--restart on-failure`
extension Supervisor {
    /// An engine died: frontends are told, a successor starts when the policy allows it. Returns whether it does.
    func replace(engine child: SupervisedProcess) -> Bool {
        guard state != "starting", let engines, let rank = engines.rank(of: child),
            let delay = engineRestarts.delay(now: .now)
        else { return false }
        logger.error(
            """
            engine process \(child.name) (pid \(child.process.pid)) ended unexpectedly: \
            \(child.process.exitDescription); starting another after \(milliseconds(delay)) ms \
            (\(engineRestarts.count) of \(engineRestarts.limit) allowed)
            """)
        let recovery = beginRecovery(ofRank: rank)
        recovery.timers.append(
            loop.schedule(after: delay) { [unowned self] in startSuccessor(ofEngine: rank) })
        return true
    }

    /// The frontends are told that this engine is dead.
    private func beginRecovery(ofRank rank: Int) -> EngineRecovery {
        let isFirst = recovery == nil
        let recovery = recovery ?? EngineRecovery()
        self.recovery = recovery
        recovery.ranks.insert(rank)
        enter(recovery.ranks.count < configuration.dataParallel.servedRanks.count ? "degraded" : "engine lost")
        stopProbe()
        // A foreign frontend that is waiting for its first engine would take it for its own end.
        if isFirst || frontendSurvivesEngine { sendEngineDead(rank: rank) }
        if let swap, swap.phase == .starting { swap.forget(rank: rank) }
        if isFirst, !frontendSurvivesEngine { endForeignFrontend(recovery) }
        return recovery
    }

    /// The node of an engine of another machine says that it has died. Without a successor that is the end of the service,
    /// as with an engine of this machine.
    func remoteEngineLost(rank: Int, returns: Bool) -> EngineReturnAnswer {
        let name = "engine \(rank) of another machine"
        func refuse(_ reason: String) -> EngineReturnAnswer {
            lostRemoteEngine = "\(name) ended unexpectedly; \(reason)"
            return EngineReturnAnswer(refusal: reason)
        }
        guard !isStopping else { return EngineReturnAnswer(refusal: "the service is stopping") }
        guard returns else { return refuse("its node does not start another") }
        guard state != "starting" else { return refuse("the service was still starting") }
        guard configuration.engineRestarts.limit > 0 else {
            return refuse("the service was started without --restart on-failure")
        }
        guard frontendSurvivesEngine else {
            return refuse("vLLM's frontends end with their engine and take others only from this machine")
        }
        guard engineRestarts.delay(now: .now) != nil else {
            return refuse("engines were restarted \(engineRestarts.count) times already")
        }
        logger.error(
            "\(name) ended unexpectedly; another is expected (\(engineRestarts.count) of \(engineRestarts.limit) allowed)"
        )
        let recovery = beginRecovery(ofRank: rank)
        handshake?.expectAgain(rank: rank, initMessage: initMessage)
        recovery.timers.append(
            loop.schedule(after: configuration.engineReadyTimeout) { [unowned self] in
                guard self.recovery?.ranks.contains(rank) == true else { return }
                let seconds = configuration.engineReadyTimeout.components.seconds
                lostRemoteEngine = "\(name) ended unexpectedly and has not come back within \(seconds) s"
            })
        return EngineReturnAnswer()
    }

    /// vLLM's frontends take the death of an engine for their own.
    private var frontendSurvivesEngine: Bool { frontends?.kind == .swift }

    private func startSuccessor(ofEngine rank: Int) {
        guard let recovery, !isStopping, let engines, let handshake else { return }
        handshake.expectAgain(rank: rank, initMessage: initMessage)
        do {
            try engines.restart(rank: rank)
        } catch {
            logger.error("\(error); trying again")
            recovery.timers.append(
                loop.schedule(after: .seconds(1)) { [unowned self] in startSuccessor(ofEngine: rank) })
            return
        }
        let pid = engines.pid(ofRank: rank)
        recovery.timers.append(
            loop.schedule(after: configuration.engineReadyTimeout) { [unowned self] in
                guard self.recovery?.ranks.contains(rank) == true, engines.pid(ofRank: rank) == pid else { return }
                let seconds = configuration.engineReadyTimeout.components.seconds
                logger.error("engine \(rank) is not ready after \(seconds) s: ending it")
                engines.kill(rank: rank)
            })
    }

    /// A successor has loaded the model and registered with the frontends.
    func engineIsBack(rank: Int) {
        guard let recovery, recovery.ranks.remove(rank) != nil, recovery.ranks.isEmpty else { return }
        restartProbe()
    }

    /// A starting engine broke the protocol: its successor, if any, may do better.
    func engineBrokeProtocol(_ violation: String) {
        // During the start this is fatal, which is seen where the handshake is waited for.
        guard state != "starting" else { return }
        guard let recovery, !recovery.ranks.isEmpty else { return logger.error("handshake socket: \(violation)") }
        logger.error("engine restart failed: \(violation)")
        for rank in recovery.ranks { engines?.kill(rank: rank) }
    }

    /// Requests are served again.
    func finishRecovery() {
        guard let recovery else { return }
        for timer in recovery.timers { loop.cancel(timer) }
        endOwnAnswers(recovery)
        if let responder = recovery.responder {
            // Clients that it has answered may still be reading.
            loop.schedule(after: .seconds(3)) { _ = responder }
        }
        self.recovery = nil
        logger.info("The engine is back after \(milliseconds(ContinuousClock.now - recovery.lostAt)) ms")
    }

    // MARK: - vLLM's frontends

    /// It has been told that there is no engine: half a second to end its streams, then it ends itself.
    private func endForeignFrontend(_ recovery: EngineRecovery) {
        let old = frontends?.processes ?? []
        recovery.endingFrontends = Set(old.map(\.pid))
        do {
            if let directory { try frontends?.renewTransports { try makeTransport($0, directory) } }
        } catch {
            logger.error("\(error)")
        }
        // The engines that live find the new frontends where their successors will.
        let (inputs, outputs) = (initMessage.inputs, initMessage.outputs)
        for index in inputs.indices where !inputs[index].isEmpty {
            sendToEngines(.disconnectFrontend(clientIndex: index))
            sendToEngines(.connectFrontend(clientIndex: index, input: inputs[index], output: outputs[index]))
        }
        recovery.timers.append(
            loop.schedule(after: .milliseconds(500)) {
                for process in old { process.terminate() }
            })
        recovery.timers.append(
            loop.schedule(after: .seconds(6)) {
                for process in old { process.killTree() }
            })
    }

    /// A foreign frontend ended because its engine did. Returns whether this is why.
    func replaceWithEngine(_ frontend: SupervisedProcess) -> Bool {
        guard let recovery, recovery.endingFrontends.remove(frontend.process.pid) != nil else { return false }
        logger.info("\(frontend.name) cannot go on without its engine and is restarted with it")
        let isLast = frontends?.processes.contains { $0.isAlive } != true
        if isLast, let listener { answerForLostFrontend(on: listener, recovery) }
        do { try frontends?.restart(frontend) } catch { logger.error("\(error)") }
        stepAsideForFrontend(recovery)
        return true
    }

    private func answerForLostFrontend(on listener: HTTPListener, _ recovery: EngineRecovery) {
        guard configuration.usesTLS else {
            recovery.responder = UnavailableResponder(listener, .engineIsRestarted, loop: loop)
            return
        }
        guard let factory, refusal == nil else { return }
        do {
            refusal = try RefusingProcess(
                on: [listener], .engineIsRestarted, arguments: configuration.frontendArguments, factory: factory)
        } catch {
            logger.warning("clients have to wait for the frontend: \(error)")
        }
    }

    private func endOwnAnswers(_ recovery: EngineRecovery) {
        refusal?.retire { [unowned self] in
            if !isStopping { refusal = nil }
        }
        recovery.responder?.close()
    }

    /// Our own answers end when the new frontend accepts connections.
    private func stepAsideForFrontend(_ recovery: EngineRecovery) {
        guard recovery.responder != nil || refusal != nil, let listener, !isStopping else { return }
        if let pid = frontends?.processes.first?.pid,
            ProcessInfo.acceptsConnections(pid, on: listener.descriptor.rawValue)
        {
            return endOwnAnswers(recovery)
        }
        recovery.timers.append(
            loop.schedule(after: .milliseconds(30)) { [unowned self, unowned recovery] in
                stepAsideForFrontend(recovery)
            })
    }

    // MARK: - News of death

    /// Tells the frontends that an engine is dead, in its own words (a killed one cannot say it): they end its open
    /// streams with an error event at once.
    ///
    /// - Parameter rank: which engine, for our frontend; nil = all of them.
    func sendEngineDead(rank: Int? = nil) {
        let all = [frontends, swap?.idle].compactMap { $0 }
        let addressees = all.flatMap { manager in manager.transports.map { (transport: $0, kind: manager.kind) } }
        for (transport, kind) in addressees {
            guard let context, let socket = try? ZMQSocket(.push, context: context) else { return }
            // Lets the message go out after the socket is closed here.
            try? socket.setLinger(milliseconds: 1000)
            try? socket.connect(transport.outputAddress)
            if let rank, kind == .swift {
                let notice = EngineDeathNotice(rank: rank, instanceID: handshake?.state.instance(ofRank: rank))
                try? socket.send(frames: notice.frames)
            } else {
                try? socket.send(Array("\(engineCoreDeadSentinel)".utf8))
            }
        }
    }

    /// For engines that start now: every frontend under the index that the other engines know it by.
    var initMessage: EngineInitMessage {
        var transports: [Int: FrontendTransport] = [:]
        for (index, transport) in zip(clientIndices, frontends?.transports ?? []) { transports[index] = transport }
        // One of a split may be gone; the others keep their places.
        if let split = frontends as? SplitFrontendManager {
            transports = Dictionary(uniqueKeysWithValues: split.parts.map { ($0.clientIndex, $0.manager.transport) })
        }
        if let swap, swap.phase == .starting {
            for (index, transport) in zip(swap.clientIndices, swap.successor.transports) {
                transports[index] = transport
            }
        }
        let count = (transports.keys.max() ?? 0) + 1
        var inputs = Array(repeating: "", count: count)
        var outputs = inputs
        for (index, transport) in transports {
            (inputs[index], outputs[index]) = (transport.inputAddress, transport.outputAddress)
        }
        return withCoordinator(EngineInitMessage(inputs: inputs, outputs: outputs))
    }
}
