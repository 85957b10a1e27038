import EngineProtocol
import Logging
import MessagePack
import NIOCore
import Synchronization
import ZMTP

/// Registration, death and restart of engines, and the data-parallel coordinator.
extension ClientCore {
    // MARK: - Registration

    func receiveRegistration(_ frames: ZMTPMessage, from peer: ZMTPConnection) {
        guard frames.count == 1,
            let index = peer.identity.withUnsafeBytes({ EngineIdentity.rank($0) })
                .flatMap({ engines.index(ofRank: $0) })
        else {
            let identity = peer.identity.prefix(8).map { String($0, radix: 16) }.joined(separator: " ")
            let problem = "unexpected registration of identity [\(identity)] with \(frames.count) frames"
            if isStartingUp { startupFailed(problem) } else { logMalformed(problem, nil) }
            return
        }
        let rank = engines[index].rank
        do throws(MessagePackError) {
            let (response, found) = try EngineCoreReadyResponse.decode(
                frames[0], family: family ?? configuration.family)
            try checkAgreement(response, index: index)
            register(response, found, index: index)
        } catch {
            let problem = "engine \(rank) sent an unusable ready response: \(error)"
            if isStartingUp { startupFailed(problem) } else { logMalformed(problem, nil) }
        }
    }

    private var isStartingUp: Bool { readyDeadline != nil }

    /// Engines of one deployment must be alike where a request may go to any of them.
    private func checkAgreement(_ response: EngineCoreReadyResponse, index: Int) throws(MessagePackError) {
        if configuration.family == nil, let family, let theirs = ProtocolFamily(vllmVersion: response.vllmVersion),
            theirs != family
        {
            throw MessagePackError(
                .invalid("version \(response.vllmVersion) speaks protocol \(theirs), others \(family)"), offset: 0)
        }
        for other in engines.indices where other != index && engines[other].isRegistered {
            if engines[other].response.supportsLoRA != response.supportsLoRA {
                throw MessagePackError(.invalid("supports_lora differs between engines"), offset: 0)
            }
        }
    }

    private func register(_ response: EngineCoreReadyResponse, _ found: ProtocolFamily, index: Int) {
        let rank = engines[index].rank
        // The queue was that of the former connection.
        engines[index].isBehind = false
        if engines[index].isRegistered {
            // A connection that broke and came back is no restart.
            if let id = response.instanceID, id == engines[index].response.instanceID { return }
            logger.warning("engine was restarted, its requests fail", metadata: ["engine": "\(rank)"])
            let failure = EngineFailure.requestFailed(reason: "engine \(rank) was restarted")
            for slot in registry.running(on: index) { finish(slot, .failed(failure)) }
            utilities.failAll(failure, engine: index)
        }
        if family == nil {
            family = found
            outputReader = EngineCoreOutputReader(family: found)
            shared.family.store(found.rawValue, ordering: .relaxed)
        }
        engines[index].reset()
        engines[index].isRegistered = true
        engines[index].response = response
        logger.info(
            "engine registered",
            metadata: [
                "engine": "\(rank)", "version": "\(response.vllmVersion)", "protocol": "\(found)",
                "max_model_len": "\(response.maxModelLength)", "num_gpu_blocks": "\(response.numGPUBlocks)",
            ])
        if coordinator == nil, configuration.coordinatorAddress == nil,
            let address = response.dataParallelStatsAddress
        {
            connectCoordinator(address)
        }
        guard engines.allRegistered, !isBroken else { return }
        let information = engines.information
        self.information = information
        readyDeadline = nil
        deathReason = nil
        setState(.ready(information))
        for waiter in readyWaiters { waiter(.success(information)) }
        readyWaiters = []
    }

    // MARK: - Death

    /// Nothing that happens later can repair it.
    func startupFailed(_ reason: String) {
        guard !isBroken else { return }
        isBroken = true
        enginesDied(reason, finally: true)
    }

    /// All requests fail; unless `finally`, the client is usable again when every engine has registered anew.
    func enginesDied(_ reason: String, finally: Bool = false) {
        guard deathReason == nil || finally else { return }
        logger.error("engine is dead", metadata: ["reason": "\(reason)"])
        deathReason = reason
        information = nil
        readyDeadline = nil
        let failure = EngineFailure.engineDead(reason: reason)
        // The sentinel does not say whose it is: engines that still live are told to stop.
        for slot in registry.running() { failAndAbort(slot, failure) }
        sendAborts()
        utilities.failAll(failure)
        for index in engines.indices { engines[index].reset() }
        wavesAreRunning = false
        setState(.dead(reason: reason))
        guard isBroken else { return }
        for waiter in readyWaiters { waiter(.failure(failure)) }
        readyWaiters = []
    }

    /// One engine died, which is all of them if there is no other.
    ///
    /// - Parameter instance: of the process that died; its successor may have registered before the news came.
    func engineDied(_ index: Int, instance: String?) {
        let rank = engines[index].rank
        guard engines[index].isRegistered else {
            logger.debug("death of an engine that is not registered", metadata: ["engine": "\(rank)"])
            return
        }
        if let instance, let known = engines[index].response.instanceID, known != instance { return }
        if information == nil, deathReason == nil {
            // Still starting: its successor is waited for like the engine itself.
            return engines[index].reset()
        }
        guard engines.indices.contains(where: { $0 != index && engines[$0].isRegistered }) else {
            return enginesDied("engine \(rank) died")
        }
        logger.error("engine died, its requests fail; the others go on", metadata: ["engine": "\(rank)"])
        let failure = EngineFailure.engineDead(reason: "engine \(rank) died")
        for slot in registry.running(on: index) { finish(slot, .failed(failure)) }
        utilities.failAll(failure, engine: index)
        engines[index].reset()
    }

    // MARK: - Connections

    /// A connection has ended. Its engine may come back at once.
    func expectReconnection() {
        guard reconnectDeadline == nil else { return }
        reconnectDeadline = .now() + TimeAmount(configuration.reconnectTime)
        eventLoop.scheduleTask(in: TimeAmount(configuration.reconnectTime)) { self.finishStep() }
    }

    /// Engines that nothing can be sent to any more are dead. What is sent asks for nothing.
    func checkConnections() {
        guard let deadline = reconnectDeadline, NIODeadline.now() >= deadline else { return }
        reconnectDeadline = nil
        for index in engines.indices where engines[index].isRegistered {
            scratch.removeAll(keepingCapacity: true)
            AbortRequest.encode([][...], into: &scratch)
            if send(.abort, to: index, always: true) == nil { continue }
            logger.error("engine has hung up", metadata: ["engine": "\(engines[index].rank)"])
            engineDied(index, instance: nil)
        }
    }

    // MARK: - Coordinator

    func connectCoordinator(_ address: String) {
        let socket = ZMTPSocket(.xsub, on: eventLoop)
        watch(socket)
        socket.onOpen = { [unowned socket] in
            socket.send(CoordinatorFrame.subscribe, to: $0)
            socket.flush()
        }
        socket.onMessage = { message, _ in self.receiveCoordinatorState(message) }
        do throws(ZMTPError) {
            try socket.connect(to: address)
            coordinator = socket
            engines.hasCoordinator = true
        } catch {
            startupFailed("coordinator \(address): \(error)")
        }
    }

    private func receiveCoordinatorState(_ frames: ZMTPMessage) {
        do throws(MessagePackError) {
            let state = try CoordinatorState(decoding: frames[0])
            if let loads = state.loads { engines.update(loads) }
            currentWave = state.wave
            wavesAreRunning = state.isRunning
        } catch {
            logMalformed("unreadable message from the coordinator", error)
        }
    }

    /// Up to 0.32 the frontend wakes idle engines through the coordinator; later engines do it themselves.
    func announceFirstRequest(engine: Int, family: ProtocolFamily) {
        guard family.frontendStartsWaves, !wavesAreRunning, let coordinator else { return }
        let message = FrontendToCoordinatorMessage.firstRequest(engine: engine, wave: currentWave).encode()
        if coordinator.sendToAll(message) {
            coordinator.flush()
            wavesAreRunning = true
        } else {
            logger.warning("coordinator cannot be reached")
        }
    }
}
