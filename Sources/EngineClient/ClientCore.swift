import EngineProtocol
import Logging
import MessagePack
import NIOCore
import Synchronization
import ZMTP

extension ZMTPMessage: FrameSource {}

/// Everything that runs on the client's event loop: its life here, messages and commands in the extensions.
///
/// Used on that loop only, which is what makes it safe to share.
final class ClientCore: @unchecked Sendable {
    let configuration: EngineClientConfiguration
    let sockets: ClientSockets
    let shared: ClientShared
    let eventLoop: any EventLoop
    let logger: Logger

    var engines: EngineTable
    var registry: RequestRegistry
    var utilities = UtilityCalls()
    var family: ProtocolFamily?
    var outputReader = EngineCoreOutputReader(family: .newest)
    /// Set while engines are registered.
    var information: EngineInformation?
    /// Start-up failed: there is no way back.
    var isBroken = false
    var deathReason: String?

    var coordinator: ZMTPSocket?
    /// When engines are looked for after one has hung up.
    var reconnectDeadline: NIODeadline?
    var currentWave = 0
    var wavesAreRunning = false

    var statsObserver: StatsObserver?
    var iterationObserver: IterationObserver?
    var stateObserver: StateObserver?
    var readyWaiters: [ReadyWaiter] = []

    /// When the engines must have registered; nil once they have.
    var readyDeadline: NIODeadline?
    /// When a drain ends; nil while not shutting down.
    var shutdownDeadline: NIODeadline?
    var shutdownCompletions: [@Sendable () -> Void] = []

    private var isClosed = false
    private var timers: [Scheduled<Void>] = []
    private var commands: [Command] = []
    /// Encoded request, reused.
    var scratch: [UInt8] = []
    /// Reused.
    var brokenOutputs: [BrokenOutput] = []
    private var malformedMessages = 0
    private var violations = 0

    init(
        configuration: EngineClientConfiguration, sockets: ClientSockets, shared: ClientShared,
        eventLoop: any EventLoop, logger: Logger
    ) {
        self.configuration = configuration
        self.sockets = sockets
        self.shared = shared
        self.eventLoop = eventLoop
        self.logger = logger
        engines = EngineTable(
            ranks: configuration.ranks, clientIndex: configuration.clientIndex, clientCount: configuration.clientCount)
        registry = RequestRegistry(ids: WireRequestID(key: .random(in: .min ... .max)))
    }

    // MARK: - Life

    /// The first step on the loop. The sockets, the mailbox and the timer keep the object alive until ``close()``.
    func start() {
        sockets.input.onMessage = { self.receiveRegistration($0, from: $1) }
        sockets.input.onReadComplete = { self.finishStep() }
        sockets.input.onCaughtUp = { self.caughtUp($0) }
        sockets.output.onMessage = { message, _ in self.receiveOutput(message) }
        sockets.output.onReadComplete = { self.finishOutputs() }
        for socket in [sockets.input, sockets.output] { watch(socket) }
        if configuration.watchesConnections { sockets.input.onClose = { _ in self.expectReconnection() } }
        readyDeadline = wake(in: configuration.readyTimeout)
        if let address = configuration.coordinatorAddress { connectCoordinator(address) }
        shared.mailbox.setConsumer { self.eventLoop.execute { self.runCommands() } }
    }

    /// Looks at the deadlines after that time.
    func wake(in delay: Duration) -> NIODeadline {
        // A timer must not overflow; nobody waits for a year.
        let delay = TimeAmount(min(max(delay, .zero), .seconds(86_400 * 365)))
        timers.append(eventLoop.scheduleTask(in: delay) { self.finishStep() })
        return .now() + delay
    }

    private func runCommands() {
        guard !isClosed else { return }
        shared.mailbox.drain(into: &commands)
        for command in commands { execute(command) }
        commands.removeAll(keepingCapacity: true)
        sendAborts()
        finishStep()
    }

    /// Hands out what the last messages and commands produced, and sends what they queued.
    func finishStep() {
        guard !isClosed else { return }
        checkReadyDeadline()
        checkConnections()
        sockets.input.flush()
        handOut()
        if let shutdownDeadline, registry.count == 0 || NIODeadline.now() >= shutdownDeadline { close() }
    }

    private func handOut() {
        registry.flush()
        guard !registry.released.isEmpty else { return }
        shared.inFlight.subtract(registry.released.count, ordering: .relaxed)
        shared.mailbox.release(registry.released)
        registry.released.removeAll(keepingCapacity: true)
    }

    private func checkReadyDeadline() {
        guard let deadline = readyDeadline, NIODeadline.now() >= deadline else { return }
        let missing = engines.missingRanks.map { "\($0)" }.joined(separator: ", ")
        startupFailed("no registration from engine \(missing) within \(configuration.readyTimeout)")
    }

    /// The last step: nothing may be left that waits for the client.
    private func close() {
        isClosed = true
        for timer in timers { timer.cancel() }
        timers = []
        let aborted = registry.running()
        for slot in aborted { failAndAbort(slot, .shuttingDown) }
        sendAborts()
        for command in shared.mailbox.close() { refuse(command) }
        utilities.failAll(.shuttingDown)
        handOut()
        for waiter in readyWaiters { waiter(.failure(.shuttingDown)) }
        readyWaiters = []
        coordinator?.close()
        // The aborts are worth a moment: engines do not notice that a frontend is gone.
        sockets.input.close(linger: aborted.isEmpty ? .zero : .milliseconds(200))
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
        guard Self.isWorthLogging(malformedMessages) else { return }
        var metadata: Logger.Metadata = ["total": "\(malformedMessages)"]
        if let error { metadata["error"] = "\(error)" }
        if affected > 0 { metadata["failed_requests"] = "\(affected)" }
        logger.error("\(what)", metadata: metadata)
    }

    /// Logs peers that do not speak ZeroMQ, as sparingly.
    func watch(_ socket: ZMTPSocket) {
        socket.onViolation = { problem in
            self.violations += 1
            guard Self.isWorthLogging(self.violations) else { return }
            self.logger.warning("\(socket.kind.rawValue) socket: \(problem)", metadata: ["total": "\(self.violations)"])
        }
    }

    private static func isWorthLogging(_ count: Int) -> Bool { count <= 16 || count & (count - 1) == 0 }
}
