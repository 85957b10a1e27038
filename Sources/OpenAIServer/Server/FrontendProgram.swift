import EngineClient
import EngineProtocol
import Glibc
import JSONBytes
import Logging
import Metrics
import NIOCore
import NIOPosix
import Synchronization
import ZMTP
import ZeroMQ

/// `vllm-swift frontend`, `serve` and `render` from their words to their exit code.
package struct FrontendProgram {
    private let commandLine: FrontendCommandLine
    /// Nil for a frontend that a supervisor started.
    private let serve: ServeCommandLine?
    private let configuration: ServerConfiguration
    private let environment: ServerEnvironment
    private let logger: Logger

    /// Registers the routes that need a model. Throws what is wrong with the model's files.
    package typealias RouteInstaller = (inout Router, ServerContext, NIOThreadPool) throws -> Void

    /// - Throws: what is wrong with the arguments; exit code 2.
    package init(_ commandLine: FrontendCommandLine, environment: ServerEnvironment, logger: Logger) throws(UsageError)
    {
        try self.init(commandLine, serve: nil, environment: environment, logger: logger)
    }

    /// - Throws: what is wrong with the arguments; exit code 2.
    package init(_ serve: ServeCommandLine, environment: ServerEnvironment, logger: Logger) throws(UsageError) {
        try self.init(
            FrontendCommandLine(serving: serve), serve: serve, environment: environment, logger: logger)
    }

    private init(
        _ commandLine: FrontendCommandLine, serve: ServeCommandLine?, environment: ServerEnvironment, logger: Logger
    ) throws(UsageError) {
        let arguments = try ArgumentsJSON(commandLine.argumentsJSON)
        for warning in arguments.warnings { logger.warning("\(warning)") }
        var configuration = arguments.configuration
        environment.apply(to: &configuration, keepAliveIsGiven: arguments.givesKeepAlive)
        self.configuration = configuration
        self.commandLine = commandLine
        self.serve = serve
        self.environment = environment
        self.logger = logger
    }

    /// Serves until a signal or a failure.
    /// - Returns: the exit code.
    package func run(installRoutes: RouteInstaller) -> Int32 {
        do {
            return try serve(installRoutes)
        } catch {
            logger.error("\(error)")
            return 1
        }
    }

    private func serve(_ installRoutes: RouteInstaller) throws -> Int32 {
        let startup = StartupTimeline(report: environment.startupReport)
        let events = try SignalPipe()
        events.catchSignals()
        if let descriptor = environment.deathDescriptor { try DeathPipe.watch(descriptor) }
        ResourceLimits.raiseOpenFiles(logger)
        let tls = try configuration.tls.map { TLSContextBox(try $0.makeContext()) }

        let group = MultiThreadedEventLoopGroup(
            numberOfThreads: environment.eventLoopCount ?? Self.defaultEventLoopCount)
        let client = serve?.command == .render ? nil : try startEngineClient(on: group.next())
        let responder = try client.flatMap { try startHandshake($0.endpoints) }
        defer { responder?.stop() }
        let engine: any EngineConnection = client?.client ?? NoEngine(maxModelLength: serve?.maxModelLength)
        let pool = NIOThreadPool(numberOfThreads: Self.defaultEventLoopCount)
        pool.start()

        let startTime = WallClock.now()
        let metrics = FrontendMetrics(
            modelName: configuration.servedModelNames[0],
            engineCount: commandLine.engineStartIndex + commandLine.engineCount, startTime: startTime,
            customBuckets: configuration.customHistogramBuckets, memory: metricMemory())
        let watch = client.flatMap { watchEngine($0.client, metrics, group) }
        let context = ServerContext(
            configuration: configuration, engine: engine, metrics: metrics, group: group, startTime: startTime,
            watch: watch, startup: startup, loading: loadProgress)
        if let client { observe(client.client, metrics, events, startup) }

        var router = Router()
        ProbeRoutes.install(on: &router, context: context)
        if configuration.developmentMode {
            logger.warning("VLLM_SERVER_DEV_MODE is set: routes that control the engine are open to everybody")
            DevelopmentRoutes.install(on: &router, context: context)
        }
        ProfileRoutes.install(on: &router, context: context)
        try installRoutes(&router, context, pool)
        startup.reached("tokenizer_loaded")
        if !configuration.disableDocs { RouteCatalog.install(on: &router) }

        if let code = waitForEngines(engine, events) { return code }
        defer { if let path = serve?.unixPath { unlink(path) } }
        let launcher = HTTPLauncher(context: context, events: events, environment: environment, logger: logger)
        return try launcher.serveHTTP(router, on: target, group: group, tls: tls)
    }

    private var loadProgress: LoadProgress? {
        environment.progressDescriptor.map {
            let first = commandLine.engineStartIndex
            return LoadProgress(descriptor: $0, ranks: first..<first + commandLine.engineCount)
        }
    }

    private func metricMemory() -> MetricMemory {
        guard let directory = commandLine.metricsDirectory else { return MetricMemory() }
        if let memory = MetricMemory(directory: directory, index: commandLine.clientIndex) { return memory }
        logger.error("no metrics can be kept in \(directory): /metrics shows this process alone")
        return MetricMemory()
    }

    /// Every loop that has streams costs a wake-up per engine step, and the clients need the other cores: with two cores,
    /// one loop streams 40 % more tokens per second than two.
    /// The same goes for tokenising long prompts: one thread per two cores keeps its tables in the cache.
    private static var defaultEventLoopCount: Int { max(1, min(4, System.coreCount / 2)) }

    private var target: ListenTarget {
        guard let serve else { return .descriptor(commandLine.listenDescriptor) }
        return serve.unixPath.map { .unixSocket(path: $0) } ?? .address(host: serve.host, port: serve.port)
    }

    /// Waits on its own thread for the engines of `serve`; nil where a supervisor does that.
    private func startHandshake(_ endpoints: (input: String, output: String)) throws -> HandshakeResponder? {
        guard let serve else { return nil }
        let responder = try HandshakeResponder(
            address: serve.tcpAddress(port: serve.handshakePort),
            initMessage: EngineInitMessage(inputs: [endpoints.input], outputs: [endpoints.output]),
            engineCount: serve.engineCount, context: ZMQContext(), logger: logger)
        try responder.start()
        logger.info("engines dial in at \(responder.address); waiting for \(serve.engineCount)")
        return responder
    }

    private struct StartedClient {
        let client: EngineClient
        let endpoints: (input: String, output: String)
    }

    private func startEngineClient(on eventLoop: any EventLoop) throws -> StartedClient {
        func endpoint(_ endpoint: FrontendCommandLine.Endpoint) -> EngineClientConfiguration.Endpoint {
            switch endpoint {
            case .descriptor(let descriptor): .listener(descriptor: descriptor)
            case .address(let address): .bind(address)
            }
        }
        var settings = EngineClientConfiguration(
            input: endpoint(commandLine.input), output: endpoint(commandLine.output))
        settings.engineStartIndex = commandLine.engineStartIndex
        settings.engineCount = commandLine.engineCount
        settings.coordinatorAddress = commandLine.coordinatorAddress
        settings.clientIndex = commandLine.clientIndex
        settings.clientCount = commandLine.clientCount
        settings.enginesAreReplaced = environment.enginesAreReplaced
        // A supervisor would know sooner and better.
        settings.watchesConnections = serve != nil
        settings.readyTimeout = .seconds(configuration.engineReadyTimeout)
        let client = try EngineClient(configuration: settings, eventLoop: eventLoop, logger: logger)
        let (input, output) = try client.start()
        if let descriptor = commandLine.addressDescriptor { report(input, output, to: descriptor) }
        return StartedClient(client: client, endpoints: (input, output))
    }

    /// Tells the supervisor where engines can reach this frontend.
    private func report(_ input: String, _ output: String, to descriptor: Int32) {
        let object = JSONObject([("input_address", .string(input)), ("output_address", .string(output))])
        let bytes = Array(JSONValue.object(object).serialized().utf8)
        // Far below what a pipe takes at once.
        if write(descriptor, bytes, bytes.count) != bytes.count { logger.error("the addresses could not be told") }
        close(descriptor)
    }

    /// Looks regularly whether the engines get on.
    private func watchEngine(
        _ engine: EngineClient, _ metrics: FrontendMetrics, _ group: any EventLoopGroup
    ) -> EngineWatch? {
        guard environment.engineHangTimeout > 0 else { return nil }
        let deadline = environment.engineHangRequestDeadline
        // Engines that somebody else started may be on other machines: nobody here knows their CPU time.
        let unknown: @Sendable () -> Double? = { nil }
        let watch = EngineWatch(
            engine, timeout: environment.engineHangTimeout, requestDeadline: deadline > 0 ? deadline : nil,
            logger: logger, engineCPU: serve == nil ? SiblingProcesses.processorSeconds : unknown)
        watch.start(on: group.next())
        metrics.setEngineHealth { watch.health }
        return watch
    }

    /// Connects the engines' news with metrics, log and main thread.
    private func observe(
        _ engine: EngineClient, _ metrics: FrontendMetrics, _ events: SignalPipe, _ startup: StartupTimeline
    ) {
        let recorder = metrics.makeRecorder()
        engine.onSchedulerStats { index, stats in
            metrics.setScheduler(
                engine: index, running: stats.numRunningReqs, waiting: stats.numWaitingReqs,
                deferred: stats.numSkippedWaitingReqs, kvCacheUsage: stats.kvCacheUsage)
            metrics.setAdapters(
                engine: index, running: stats.runningLoRAAdapters, waiting: stats.waitingLoRAAdapters)
            recorder.prefixCache(
                engine: index, queries: stats.prefixCacheStats.queries, hits: stats.prefixCacheStats.hits)
            if let cache = stats.connectorPrefixCacheStats {
                recorder.externalPrefixCache(engine: index, queries: cache.queries, hits: cache.hits)
            }
            if let drafts = stats.specDecodingStats {
                recorder.speculated(
                    engine: index, drafts: drafts.numDrafts, draftTokens: drafts.numDraftTokens,
                    acceptedTokens: drafts.numAcceptedTokens,
                    acceptedPerPosition: drafts.numAcceptedTokensPerPosition)
            }
            for event in stats.kvCacheEvictionEvents {
                recorder.blockEvicted(
                    engine: index, lifetime: event.lifetime, idle: event.idle, reuseGaps: event.reuseGaps)
            }
            if let work = stats.perfStats {
                recorder.worked(
                    engine: index, flops: work.flopsPerGPU, readBytes: work.readBytesPerGPU,
                    writeBytes: work.writeBytesPerGPU)
            }
        }
        engine.onIteration { index, tokens in recorder.iteration(engine: index, tokens: tokens) }
        let logger = logger
        let wasReady = OnceFlag()
        engine.onStateChange { state in
            switch state {
            case .ready(let information):
                wasReady.set()
                startup.complete(engineLoadSeconds: information.loadSeconds)
                metrics.setEngineConfiguration(
                    EngineConfigurationInfo(
                        blockSize: information.blockSize, numGPUBlocks: information.numGPUBlocks,
                        maxModelLength: information.maxModelLength, dtype: information.dtype,
                        maxLoRAs: information.maxLoRAs))
                logger.info(
                    "engines are ready: \(information.engineCount) × vLLM \(information.vllmVersion), \(information.dtype), context \(information.maxModelLength), \(information.numGPUBlocks) KV blocks of \(information.blockSize)"
                )
            case .dead:
                // The client has logged the reason.
                if !wasReady.isSet { events.post(.startupFailed) }
            case .waitingForEngines: logger.info("waiting for engines")
            case .closed: break
            }
        }
    }

    /// A frontend that takes over from another one shares its socket: it must not accept what it cannot answer yet.
    /// - Returns: the exit code if that moment will not come.
    private func waitForEngines(_ engine: any EngineConnection, _ events: SignalPipe) -> Int32? {
        let begin = ContinuousClock.now
        while (ContinuousClock.now - begin) / .seconds(1) < environment.listenPatience {
            switch engine.state {
            case .ready: return nil
            case .dead(let reason):
                logger.error("engine start-up failed: \(reason)")
                return 1
            case .waitingForEngines, .closed: break
            }
            switch events.next(milliseconds: 10) {
            case .stop, .drain, .handOver: return 0
            case .startupFailed, .engineDead, .wakeUp, nil: break
            }
        }
        return nil
    }
}

/// Set by one thread, read by others.
private final class OnceFlag: Sendable {
    private let cell = Atomic(false)
    var isSet: Bool { cell.load(ordering: .acquiring) }
    func set() { cell.store(true, ordering: .releasing) }
}

enum ResourceLimits {
    /// Each client is a descriptor; the usual soft limit of 1024 is too small for a server.
    static func raiseOpenFiles(_ logger: Logger) {
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(kind, &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
        limit.rlim_cur = min(limit.rlim_max, 1 << 20)
        if setrlimit(kind, &limit) != 0 { logger.warning("the limit of open files stays at its soft value") }
    }
}
