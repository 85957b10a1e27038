import EngineProtocol
import Glibc
import Logging
import MessagePack
import Synchronization
import ZeroMQ

extension ZMQFrames: FrameSource {}

/// Everything that runs on the client thread: its loop here, messages and commands in the extensions.
final class ClientThread {
    let configuration: EngineClientConfiguration
    let sockets: ClientSockets
    let shared: ClientShared
    let logger: Logger

    var engines: EngineTable
    var registry: RequestRegistry
    var utilities = UtilityCalls()
    var family: ProtocolFamily?
    var outputReader = EngineCoreOutputReader(family: .newest)
    /// Set while engines are registered.
    var information: EngineInformation?
    /// Start-up failed, or the sockets did: there is no way back.
    var isBroken = false
    var deathReason: String?

    var coordinator: ZMQSocket?
    /// Tells of engines' connections that ended; nil = that is not looked at.
    var disconnects: ZMQSocket?
    /// When engines are looked for after one has hung up.
    var reconnectDeadline: ContinuousClock.Instant?
    var currentWave = 0
    var wavesAreRunning = false

    var statsObserver: StatsObserver?
    var iterationObserver: IterationObserver?
    var stateObserver: StateObserver?
    var readyWaiters: [ReadyWaiter] = []

    /// When the engines must have registered; nil once they have.
    var readyDeadline: ContinuousClock.Instant?
    /// When a drain ends; nil while not shutting down.
    var shutdownDeadline: ContinuousClock.Instant?
    var shutdownCompletions: [@Sendable () -> Void] = []

    let poller = ZMQPoller()
    let frames = ZMQFrames()
    private var commands: [Command] = []
    /// Encoded request, reused.
    var scratch: [UInt8] = []
    /// Reused.
    var brokenOutputs: [BrokenOutput] = []
    private var malformedMessages = 0

    init(configuration: EngineClientConfiguration, sockets: ClientSockets, shared: ClientShared, logger: Logger) {
        self.configuration = configuration
        self.sockets = sockets
        self.shared = shared
        self.logger = logger
        engines = EngineTable(
            ranks: configuration.ranks, clientIndex: configuration.clientIndex, clientCount: configuration.clientCount)
        registry = RequestRegistry(ids: WireRequestID(key: .random(in: .min ... .max)))
        readyDeadline = .now + configuration.readyTimeout
    }

    /// Starts the thread, which owns this object from here on.
    func spawn() throws(ZMQError) {
        try startDetachedThread(named: "engine-client", owning: self) { $0.run() }
    }

    // MARK: - Loop

    private func run() {
        if let address = configuration.coordinatorAddress { connectCoordinator(address) }
        do throws(ZMQError) {
            let mailboxItem = poller.add(descriptor: shared.mailbox.descriptor)
            let inputItem = try poller.add(sockets.input)
            let outputItem = try poller.add(sockets.output)
            var coordinatorItem: Int?
            let disconnectItem = try watchConnections()
            while !isFinished {
                if coordinatorItem == nil, let coordinator { coordinatorItem = try poller.add(coordinator) }
                try poller.wait(milliseconds: waitTime)
                if poller.isReadable(inputItem) { receiveRegistrations() }
                if poller.isReadable(outputItem) { receiveOutputs() }
                if let item = coordinatorItem, poller.isReadable(item) { receiveCoordinatorState() }
                if poller.isReadable(mailboxItem) { runCommands() }
                if let item = disconnectItem, poller.isReadable(item) { receiveDisconnects() }
                checkReadyDeadline()
                checkConnections()
                finishStep()
            }
        } catch {
            logger.critical("engine sockets failed", metadata: ["error": "\(error)"])
            startupFailed("engine sockets failed: \(error)")
        }
        close()
    }

    private var isFinished: Bool {
        guard let shutdownDeadline else { return false }
        return registry.count == 0 || ContinuousClock.now >= shutdownDeadline
    }

    /// Milliseconds until the next deadline, -1 = none.
    private var waitTime: Int {
        let deadlines = [readyDeadline, shutdownDeadline, reconnectDeadline]
        guard let next = deadlines.compactMap({ $0 }).min() else { return -1 }
        let (seconds, attoseconds) = (next - .now).components
        // Rounded up: waking just before the deadline would spin.
        return max(0, min(Int(seconds), 86_400) * 1000 + Int(attoseconds / 1_000_000_000_000_000) + 1)
    }

    private func runCommands() {
        shared.mailbox.drain(into: &commands)
        for command in commands { execute(command) }
        commands.removeAll(keepingCapacity: true)
        sendAborts()
    }

    /// Hands out what the last messages and commands produced.
    func finishStep() {
        registry.flush()
        guard !registry.released.isEmpty else { return }
        shared.inFlight.subtract(registry.released.count, ordering: .relaxed)
        shared.mailbox.release(registry.released)
        registry.released.removeAll(keepingCapacity: true)
    }

    private func checkReadyDeadline() {
        guard let deadline = readyDeadline, ContinuousClock.now >= deadline else { return }
        let missing = engines.missingRanks.map { "\($0)" }.joined(separator: ", ")
        startupFailed("no registration from engine \(missing) within \(configuration.readyTimeout)")
    }

    /// The last step of the thread: nothing may be left that waits for it.
    private func close() {
        let aborted = registry.running()
        for slot in aborted { failAndAbort(slot, .shuttingDown) }
        sendAborts()
        // The aborts are worth a moment: engines do not notice that a frontend is gone.
        if !aborted.isEmpty { try? sockets.input.setLinger(milliseconds: 200) }
        for command in shared.mailbox.close() { refuse(command) }
        utilities.failAll(.shuttingDown)
        finishStep()
        for waiter in readyWaiters { waiter(.failure(.shuttingDown)) }
        readyWaiters = []
        poller.removeAll()
        coordinator?.close()
        disconnects?.close()
        sockets.input.close()
        sockets.output.close()
        setState(.closed)
        for completion in shutdownCompletions { completion() }
    }

    private func refuse(_ command: Command) {
        switch command {
        case .add(let handle, let pending):
            registry.enqueue(.failed(.shuttingDown), for: pending)
            registry.released.append(handle.slot)
        case .utility(_, _, _, let completion): completion(.failure(.shuttingDown))
        case .awaitReady(let waiter): waiter(.failure(.shuttingDown))
        case .observeState(let observer): stateObserver = observer
        case .shutdown(_, let completion): shutdownCompletions.append(completion)
        case .abort, .engineDied, .observeStats, .observeIterations, .markHung, .failRequests: break
        }
    }

    func setState(_ state: EngineClientState) {
        let changed = shared.state.withLock { current in
            if current == state { return false }
            current = state
            return true
        }
        if changed { stateObserver?(state) }
    }

    /// Logs damaged messages: all of the first ones, then every power of two, so that a mad engine cannot fill a disk.
    func logMalformed(_ what: String, _ error: MessagePackError?, affected: Int = 0) {
        malformedMessages += 1
        guard malformedMessages <= 16 || malformedMessages & (malformedMessages - 1) == 0 else { return }
        var metadata: Logger.Metadata = ["total": "\(malformedMessages)"]
        if let error { metadata["error"] = "\(error)" }
        if affected > 0 { metadata["failed_requests"] = "\(affected)" }
        logger.error("\(what)", metadata: metadata)
    }
}
