import EngineHandshake
import EngineProtocol
import Logging
import ZeroMQ

/// The supervisor's ROUTER that engines dial first. It tells them the frontends' addresses and learns when they are
/// ready. vLLM closes it then; here engines that were started with `--control` stay connected.
package final class HandshakeServer {
    /// `ipc://path` or `tcp://host:port`, for the engines' command line.
    package var address: String { socket.address }
    private let socket: HandshakeSocket
    /// Readable once after something has changed, as libzmq does it.
    package var descriptor: Int32 { socket.descriptor }
    private let loop: EventLoop
    private let logger: Logger
    private var violation: String? {
        didSet { if let violation { onViolation?(violation) } }
    }
    private var recheck: EventLoop.TimerID?
    private var isStarting = true
    package var state: HandshakeState { socket.state }
    /// Called with what ready engines say.
    package var onEvent: ((_ rank: Int, EngineControlEvent) -> Void)?
    /// Called when an engine of another machine has died, or begins anew; `returns`: another process is to take its place.
    /// If that is fine, `expectAgain` has to be called for it.
    package var onLost: ((_ rank: Int, _ returns: Bool) -> EngineReturnAnswer)?
    /// Called when an engine has loaded the model, and when one broke the protocol. `run` looks by itself.
    package var onReady: ((_ rank: Int) -> Void)?
    package var onViolation: ((String) -> Void)?

    package init(
        address: String, initMessage: EngineInitMessage, ranks: Range<Int>, localRanks: Range<Int>,
        remoteAreHeadless: Bool = true, context: ZMQContext, loop: EventLoop, logger: Logger
    ) throws {
        self.loop = loop
        self.logger = logger
        do {
            socket = try HandshakeSocket(
                address: address, initMessage: initMessage,
                state: HandshakeState(ranks: ranks, localRanks: localRanks, remoteAreHeadless: remoteAreHeadless),
                context: context)
        } catch {
            throw SupervisionError(.failure, "handshake socket: \(error)")
        }
        loop.watch(descriptor) { [unowned self] in drain() }
        drain()
    }

    deinit { close() }

    /// Idempotent.
    package func close() {
        guard !socket.isClosed else { return }
        loop.unwatch(descriptor)
        loop.cancel(recheck)
        socket.close()
    }

    private func drain() {
        do {
            while !socket.isClosed, let frames = try socket.receive() { try handle(frames) }
        } catch {
            violation = violation ?? "handshake socket: \(error)"
        }
    }

    /// Tells a ready engine something. An engine that is gone does not hear it.
    package func send(_ command: EngineControlCommand, toRank rank: Int) throws(ZMQError) {
        try socket.socket.send(frames: [EngineIdentity.encode(rank: rank), command.encode()])
        // libzmq's descriptor announces a change once, and sending takes that announcement: without another look, what
        // has just arrived would stay unread for ever.
        loop.cancel(recheck)
        recheck = loop.schedule(after: .zero) { [unowned self] in drain() }
    }

    /// Another process with this rank will connect, and gets this INIT.
    package func expectAgain(rank: Int, initMessage: EngineInitMessage) {
        violation = nil
        socket.expectAgain(rank: rank, initMessage: initMessage)
    }

    /// Whether the message was one.
    private func handleEvent(_ frames: [[UInt8]]) -> Bool {
        guard frames.count == 2, let rank = EngineIdentity.rank(frames[0]), state.phase(ofRank: rank) == .ready,
            let event = frames[1].withUnsafeBytes({ try? EngineControlEvent(decoding: $0) })
        else { return false }
        onEvent?(rank, event)
        return true
    }

    private func handle(_ frames: [[UInt8]]) throws(ZMQError) {
        if handleEvent(frames) { return }
        guard violation == nil else { return }
        switch try socket.handle(frames) {
        case .hello(let rank): logger.debug("HELLO from engine \(rank)")
        case .ready(let rank):
            logger.debug("READY from engine \(rank)")
            onReady?(rank)
        case .lost(let rank, let returns):
            try socket.answer(answerToLoss(ofRank: rank, returns: returns), toRank: rank)
        case .returned(let rank):
            if let refusal = answerToLoss(ofRank: rank, returns: true).refusal {
                logger.error("engine \(rank) of another machine connected a second time: \(refusal)")
            } else {
                try handle(frames)
            }
        case .violation(let text): violation = text
        }
    }

    private func answerToLoss(ofRank rank: Int, returns: Bool) -> EngineReturnAnswer {
        guard !isStarting, let onLost else {
            violation = "engine \(rank) of another machine died or came a second time while others were starting"
            return EngineReturnAnswer(refusal: "the service is still starting")
        }
        return onLost(rank, returns)
    }

    /// Waits until every engine is READY.
    ///
    /// - Returns: false when a stop signal arrived first.
    /// - Throws: what went wrong: a process ended, a protocol violation, the timeout.
    package func run(
        engines: EngineProcessManager?, frontends: (any FrontendManager)?, coordinator: SupervisedProcess? = nil,
        signals: SignalSource?, timeout: Duration
    ) throws -> Bool {
        let start = ContinuousClock.now
        var nextReport = start + .seconds(10)
        var processes = (engines?.processes ?? []) + (frontends?.processes ?? [])
        if let coordinator { processes.append(coordinator.process) }
        while !state.isComplete {
            let until = min(start + timeout, nextReport)
            waitForSentinels(processes, on: loop, until: until) {
                !state.isComplete && violation == nil && signals?.stopRequested != true
                    && processes.allSatisfy(\.isAlive)
            }
            if signals?.stopRequested == true { return false }
            if let violation { throw SupervisionError(.startupFailure, "engine start-up failed: \(violation)") }
            if let engine = engines?.firstExited() {
                throw SupervisionError(
                    .startupFailure,
                    "engine process \(engine.name) (pid \(engine.process.pid)) ended during start-up, "
                        + "\(phaseOfExited(engine, among: engines)): \(engine.process.exitDescription)")
            }
            if let frontend = frontends?.firstExited() {
                throw SupervisionError(
                    .startupFailure,
                    "frontend process \(frontend.name) (pid \(frontend.process.pid)) ended during start-up of the "
                        + "engine: \(frontend.process.exitDescription)")
            }
            if let coordinator, !coordinator.process.isAlive {
                throw SupervisionError(
                    .startupFailure,
                    "process \(coordinator.name) (pid \(coordinator.process.pid)) ended during start-up of the engine: "
                        + coordinator.process.exitDescription)
            }
            let now = ContinuousClock.now
            if !state.isComplete, now >= start + timeout {
                throw SupervisionError(
                    .startupFailure, "engine not ready after \(timeout.components.seconds) s: \(waitingDescription)")
            }
            if !state.isComplete, now >= nextReport {
                logger.info("Waiting for the engine: \(waitingDescription)")
                nextReport = now + .seconds(10)
            }
        }
        isStarting = false
        return true
    }

    private func phaseOfExited(_ engine: SupervisedProcess, among engines: EngineProcessManager?) -> String {
        guard let index = engines?.children.firstIndex(where: { $0 === engine }), let engines else { return "" }
        return switch state.phase(ofRank: engines.firstRank + index) {
        case .awaitingHello, nil: "before it connected"
        case .awaitingReady: "while it loaded the model"
        case .ready: "after it was ready"
        }
    }

    private var waitingDescription: String {
        state.waitingFor.map { rank, phase in
            "rank \(rank) \(phase == .awaitingHello ? "has not connected" : "is loading the model")"
        }.joined(separator: ", ")
    }
}
