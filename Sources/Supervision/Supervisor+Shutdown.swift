import Glibc
import Logging

/// The way down: what is told to whom, in which order.
extension Supervisor {
    /// Gives the frontends time to end their streams before they are stopped.
    func announceEngineDeath() {
        enter("engine lost")
        sendEngineDead()
        // vLLM's Python server ends by itself about a second after it learnt of it.
        wait(forFrontendsAtMost: frontends?.kind == .python ? .seconds(1) : .milliseconds(500))
    }

    private func wait(forFrontendsAtMost patience: Duration) {
        guard let frontends else { return }
        waitForSentinels(frontends.processes, on: loop, until: .now + patience) {
            frontends.processes.contains { $0.isAlive }
        }
    }

    /// The one way down: frontends first, so that they can end their streams while the engines still answer, then the
    /// engines. Returns the names of those that had to be killed.
    @discardableResult
    func stop(signals: SignalSource) -> [String] {
        stopProbe()
        let patience = drainTimeout ?? configuration.shutdownTimeout
        enter(patience > .zero && signals.stopRequested ? "draining" : "stopping")
        let deadline = ContinuousClock.now + patience
        let signalsBefore = max(signals.stopRequests.count, 1)
        var toldForeignFrontend = frontends?.kind == .swift
        let isInterrupted = { [unowned self] in
            guard signals.stopRequests.count > signalsBefore else { return false }
            if !toldForeignFrontend {
                toldForeignFrontend = true
                sendEngineDead()
            }
            return true
        }
        let responders = answerForForeignFrontends(patience: patience)
        defer { stopAnswering(responders) }
        let isAnswering = !responders.isEmpty || refusal != nil
        if patience > .zero, signals.stopRequested {
            finishRequests(until: deadline, isAnswering: isAnswering, isInterrupted: isInterrupted)
        }
        let courtesy = endStreamsOfForeignFrontend(until: deadline, signals: signals)
        defer { loop.cancel(courtesy) }
        // Without time to drain, what the engine still computes only keeps the processors from the frontend.
        let early =
            patience > .zero
            ? nil
            : loop.schedule(after: .milliseconds(400)) { [unowned self] in
                for engine in engines?.processes ?? [] { engine.terminate() }
            }
        defer { loop.cancel(early) }
        var killed = frontends?.shutdown(timeout: configuration.shutdownTimeout, isInterrupted: isInterrupted) ?? []
        killed += swap?.idle.shutdown(timeout: .zero, isInterrupted: isInterrupted) ?? []
        stopAnswering(responders)
        enter("stopping")
        // An engine with unsent answers waits for a frontend to take them, but there is none any more: a second signal
        // ends it at once. Behind a unix socket it knows by itself.
        let reminder = loop.schedule(after: .milliseconds(500)) { [unowned self] in
            for engine in engines?.processes ?? [] { engine.terminate() }
        }
        defer { loop.cancel(reminder) }
        killed += engines?.shutdown(timeout: max(deadline - .now, .seconds(5)), isInterrupted: isInterrupted) ?? []
        killed += coordinator?.shutdown(timeout: nil, isInterrupted: isInterrupted) ?? []
        return killed
    }

    /// Our own frontend refuses new requests while it finishes the others; vLLM's stop accepting, or answer nonsense until
    /// they do. So new connections go to a socket of ours, and what waits in the queue of theirs is answered here, too.
    /// Copies of sockets that nobody needs are closed: the port is refused as soon as the last one is gone.
    private func answerForForeignFrontends(patience: Duration) -> [UnavailableResponder] {
        let split = frontends as? SplitFrontendManager
        guard frontends?.kind != .swift, let listener, listener.isListening else {
            listener?.leave()
            split?.stopListening()
            return []
        }
        let theirs = split?.parts.filter { $0.manager.kind != .swift }.map(\.listener) ?? [listener]
        var answering = theirs
        do {
            // Not for unix sockets: there the two accept side by side until the frontend stops.
            let group = try split?.group ?? ReusePortGroup(first: listener, weights: [1])
            answering.append(try group.takeOver())
        } catch {
            logger.debug("new connections are not kept from the frontend: \(error)")
        }
        split?.stopListening(except: answering)
        if !answering.contains(where: { $0 === listener }) { listener.close() }
        guard configuration.usesTLS else {
            return answering.map { UnavailableResponder($0, .shuttingDown, loop: loop) }
        }
        refuseOverTLS(on: answering, patience: patience)
        return []
    }

    /// TLS is spoken by a process of its own, which is not worth its start when there is nothing to wait for.
    private func refuseOverTLS(on listeners: [HTTPListener], patience: Duration) {
        defer { for listener in listeners { listener.leave() } }
        guard patience > .zero, let factory else { return }
        do {
            refusal?.shutdown()
            refusal = try RefusingProcess(
                on: listeners, .shuttingDown, arguments: configuration.frontendArguments, factory: factory)
        } catch {
            logger.warning("new connections are refused while requests are finished: \(error)")
        }
    }

    private func stopAnswering(_ responders: [UnavailableResponder]) {
        for responder in responders { responder.end() }
        refusal?.shutdown()
        refusal = nil
        listener?.close()
        (frontends as? SplitFrontendManager)?.stopListening()
    }

    /// Waits for requests where a frontend's own way of stopping does not.
    ///
    /// Our own has a signal for finishing what is running, whatever its own timeout; it refuses new requests then. vLLM's
    /// Python server gives its engine up at the first signal, whatever is still running, and its Rust frontend does not
    /// know of the drain command's timeout. So they are told to stop only when their clients have gone, who get no new
    /// connections meanwhile. Of different frontends none is stopped before all have finished: the grace is for all.
    private func finishRequests(
        until deadline: ContinuousClock.Instant, isAnswering: Bool, isInterrupted: () -> Bool
    ) {
        guard let frontends else { return }
        let split = (frontends as? SplitFrontendManager)?.parts.map { $0.manager as any FrontendManager }
        let parts = split ?? [frontends]
        let isMixed = parts.count > 1 && frontends.kind != .swift
        let held = parts.filter { $0.kind == .swift && (isMixed || drainTimeout != nil) }
            .flatMap { $0.processes }
        let foreign = parts.filter {
            isAnswering && ($0.kind == .python || ($0.kind != .swift && (isMixed || drainTimeout != nil)))
        }.flatMap { $0.processes }
        for process in held { process.send(signal: SIGUSR1) }
        var timer: EventLoop.TimerID?
        var isBusy = !foreign.isEmpty
        func look() {
            guard let port = listener?.port else { return isBusy = false }
            isBusy = PortOwner.connections(of: foreign.filter(\.isAlive).map(\.pid), on: port) > 0
            timer = loop.schedule(after: .milliseconds(100)) { look() }
        }
        if isBusy { look() }
        // Theirs need a moment to be told of the end.
        let end = foreign.isEmpty ? deadline : deadline - .milliseconds(200)
        waitForSentinels(held + foreign, on: loop, until: end) {
            (isBusy || held.contains { $0.isAlive }) && !isInterrupted()
        }
        loop.cancel(timer)
    }

    /// When the time to drain is over, vLLM's Rust frontend cuts its open streams without a last event, and its Python
    /// server waits for them for ever; ours ends them. Telling those shortly before that the engine is gone makes them
    /// end their streams properly.
    private func endStreamsOfForeignFrontend(
        until deadline: ContinuousClock.Instant, signals: SignalSource
    ) -> EventLoop.TimerID? {
        guard signals.stopRequested, let kind = frontends?.kind, kind != .swift else { return nil }
        let lead = Duration.milliseconds(200)
        let left = deadline - .now
        if left > lead {
            return loop.schedule(after: left - lead) { [unowned self] in sendEngineDead() }
        }
        sendEngineDead()
        wait(forFrontendsAtMost: lead)
        return nil
    }
}
