import EngineProtocol

/// What the data-parallel coordinator knows and decides (vLLM: `DPCoordinatorProc`). No I/O, no clock of its own.
///
/// Engines report their queues; frontends get the counts of all of them, at most every 100 ms and at least every 5 s.
/// Engines of a mixture-of-experts model run in lockstep: they leave and enter the running state together, once per
/// wave, and are told so through here. Engines of a dense model have no waves.
package struct CoordinatorLogic {
    package enum Action: Equatable, Sendable {
        case publish(CoordinatorState)
        case startWave(StartDataParallelWave)
        /// A message that makes no sense; it changes nothing.
        case warn(String)
    }

    static let changedInterval = Duration.milliseconds(100)
    static let idleInterval = Duration.seconds(5)
    /// In lockstep the counts of a step arrive one after the other.
    static let settlingTime = Duration.milliseconds(50)
    private static let mostEngines = 65_536

    private let coordinatesWaves: Bool
    private var loads: [CoordinatorState.Load]
    private var loadsChanged = false
    /// The counts at the end of the last complete step.
    private var lastStepLoads: [CoordinatorState.Load]?
    private var lastStep = (wave: -1, step: -1)
    private(set) var wave = 0
    private(set) var isRunning = false

    package init(engineCount: Int, coordinatesWaves: Bool) {
        self.coordinatesWaves = coordinatesWaves
        loads = Array(
            repeating: CoordinatorState.Load(waiting: 0, running: 0, kvCacheUsage: 0), count: engineCount)
    }

    /// When the counts are due, given when they were published last and when something last arrived.
    package func nextPublication(
        after last: ContinuousClock.Instant, lastArrival: ContinuousClock.Instant
    ) -> ContinuousClock.Instant {
        let due = last + (loadsChanged ? Self.changedInterval : Self.idleInterval)
        guard coordinatesWaves, lastStepLoads == nil, loadsChanged else { return due }
        return max(due, lastArrival + Self.settlingTime)
    }

    /// The counts to publish now.
    package mutating func takePublication() -> CoordinatorState {
        if let snapshot = lastStepLoads {
            lastStepLoads = nil
            return CoordinatorState(loads: snapshot, wave: wave, isRunning: isRunning)
        }
        loadsChanged = false
        return CoordinatorState(loads: loads, wave: wave, isRunning: isRunning)
    }

    /// A message of an engine.
    package mutating func receive(_ outputs: EngineCoreOutputsView) -> [Action] {
        let engine = outputs.engineIndex
        var actions: [Action] = []
        if outputs.outputCount > 0 || outputs.utilityOutput != nil {
            return [.warn("engine \(engine) sent outputs that are for a frontend")]
        }
        if let stats = outputs.schedulerStats {
            guard loads.indices.contains(engine) else { return [.warn("statistics of the unknown engine \(engine)")] }
            if coordinatesWaves { actions += noteStep(stats, engine) }
            loads[engine] = CoordinatorState.Load(
                waiting: max(0, stats.numWaitingReqs), running: max(0, stats.numRunningReqs),
                kvCacheUsage: stats.kvCacheUsage)
            loadsChanged = true
        }
        guard coordinatesWaves else { return actions }
        if let completed = outputs.waveComplete {
            // Wave numbers come from the wire: the largest one has no successor.
            guard completed >= wave, completed < Int.max else { return actions }
            wave = completed + 1
            isRunning = false
            actions.append(.publish(waveState))
        } else if let started = outputs.startWave, started > wave || (started == wave && !isRunning) {
            wave = started
            isRunning = true
            actions.append(.publish(waveState))
            actions.append(.startWave(StartDataParallelWave(wave: started, excludedEngine: engine)))
        }
        return actions
    }

    /// Steps are the same for all engines: with the first count of a new one, those of the last one are complete.
    private mutating func noteStep(_ stats: SchedulerStats, _ engine: Int) -> [Action] {
        let step = (wave: stats.currentWave, step: stats.stepCounter)
        if step > lastStep {
            if loadsChanged { lastStepLoads = loads }
            lastStep = step
        } else if step != lastStep {
            return [
                .warn(
                    "statistics of engine \(engine) for wave \(step.wave), step \(step.step) after those for "
                        + "\(lastStep.wave), \(lastStep.step)")
            ]
        }
        return []
    }

    /// A message of a frontend.
    package mutating func receive(_ message: FrontendToCoordinatorMessage) -> [Action] {
        switch message {
        case .subscribe, .unsubscribe: return []
        case .firstRequest(let engine, let itsWave):
            // Whether engines run is only ever learnt from engines: one that is pausing ignores the message.
            guard coordinatesWaves, !isRunning else { return [] }
            // To an engine the frontend's stale wave says nothing: all must be told.
            let excluded = itsWave < wave ? nil : engine
            return [.startWave(StartDataParallelWave(wave: wave, excludedEngine: excluded))]
        case .scaleElasticEP(let engines):
            guard (1...Self.mostEngines).contains(engines) else {
                return [.warn("a frontend wants to scale to \(engines) engines")]
            }
            while loads.count < engines {
                loads.append(CoordinatorState.Load(waiting: 0, running: 0, kvCacheUsage: 0))
            }
            loads.removeLast(loads.count - engines)
            lastStepLoads = nil
            return []
        }
    }

    private var waveState: CoordinatorState { CoordinatorState(loads: nil, wave: wave, isRunning: isRunning) }
}
