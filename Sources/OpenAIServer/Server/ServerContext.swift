import EngineClient
import Metrics
import NIOCore
import Synchronization

/// What every part of a running server shares. Immutable apart from its life-cycle state and counters.
package final class ServerContext: Sendable {
    package let configuration: ServerConfiguration
    package let engine: any EngineConnection
    package let metrics: FrontendMetrics
    package let life = ServerLife()
    /// Nil = hung engines are not looked for.
    package let watch: EngineWatch?
    package let startup: StartupTimeline
    /// Nil = nobody here knows how far the engines are.
    package let loading: LoadProgress?
    package let admission: AdmissionControl
    /// Unix seconds; `created` of the model cards.
    package let startTime: Double
    private let loops: [(id: ObjectIdentifier, state: LoopState)]

    /// - Parameter group: the event loops that serve connections; each gets its inbox and its metrics recorder.
    package init(
        configuration: ServerConfiguration, engine: any EngineConnection, metrics: FrontendMetrics,
        group: any EventLoopGroup, startTime: Double, watch: EngineWatch? = nil,
        startup: StartupTimeline = StartupTimeline(), loading: LoadProgress? = nil
    ) {
        self.configuration = configuration
        self.engine = engine
        admission = AdmissionControl(configuration, metrics: metrics)
        self.metrics = metrics
        self.startTime = startTime
        self.watch = watch
        self.startup = startup
        self.loading = loading
        var loops: [(id: ObjectIdentifier, state: LoopState)] = []
        for loop in group.makeIterator() {
            loops.append((ObjectIdentifier(loop), LoopState(loop: loop, recorder: metrics.makeRecorder())))
        }
        self.loops = loops
    }

    /// The per-loop state; `loop` must be one of the group the context was made with.
    package func state(for loop: any EventLoop) -> LoopState {
        let id = ObjectIdentifier(loop)
        for entry in loops where entry.id == id { return entry.state }
        preconditionFailure("event loop does not belong to this server")
    }

    package var loopStates: [LoopState] { loops.map(\.state) }

    /// Another process takes the new connections. Every one that is open here may make one more request; idle ones end
    /// by their timeout: a client may just be sending on them.
    package func startLeaving() {
        life.phase = .leaving
        onEveryLoop { state in for connection in state.openConnections { connection.leave() } }
    }

    /// Takes no new work: idle connections that were used before end now, others with their next response.
    package func startDraining() {
        life.phase = .draining
        onEveryLoop { state in for connection in state.openConnections { connection.drain() } }
    }

    /// Ends what is still running: streams with an error event and `[DONE]`, waiting requests with 503.
    package func endRunningRequests() {
        life.phase = .stopping
        onEveryLoop { state in
            for connection in state.openConnections {
                connection.terminate(.serviceUnavailable("The server is shutting down."))
            }
        }
    }

    /// Requests without a complete response, over all loops. Not for event loops: it waits for them.
    package func runningRequests() -> Int { sum { $0.inFlight } }

    /// Not for event loops: it waits for them.
    package func openConnections() -> Int { sum { $0.connectionCount } }

    private func sum(_ value: @escaping @Sendable (LoopState) -> Int) -> Int {
        loopStates.reduce(0) { total, state in
            total + ((try? state.loop.submit { value(state) }.wait()) ?? 0)
        }
    }

    private func onEveryLoop(_ body: @escaping @Sendable (LoopState) -> Void) {
        for state in loopStates {
            if state.loop.inEventLoop { body(state) } else { state.loop.execute { body(state) } }
        }
    }
}

/// Whether the server takes new work.
package final class ServerLife: Sendable {
    package enum Phase: Int, Sendable {
        case serving
        /// As before, but each connection ends with its next response: a successor has the new ones.
        case leaving
        /// Running requests finish, new ones get 503.
        case draining
        /// Running requests are being ended.
        case stopping
    }

    private let cell = Atomic<Int>(Phase.serving.rawValue)

    package init() {}

    /// Whether new requests are answered.
    package var takesWork: Bool { phase == .serving || phase == .leaving }

    package var phase: Phase {
        get { Phase(rawValue: cell.load(ordering: .acquiring)) ?? .stopping }
        set { cell.store(newValue.rawValue, ordering: .releasing) }
    }
}
