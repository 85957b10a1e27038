import NIOCore
import NIOPosix
import NIOSSL

/// What a block of load has left behind, before texts are put together.
struct LoadResult: Sendable {
    var answers: [RawAnswer] = []
    /// How late the client itself was: of every send in an open loop, of a 10 ms clock in a closed one.
    var lateness: [Nanoseconds] = []
    var start: Nanoseconds = 0
    var end: Nanoseconds = 0
    /// Requests sent again because the server had closed an idle connection.
    var retries = 0
}

/// One block of load. Confined to the generator's event loop.
final class LoadRun {
    private let plan: LoadPlan
    private let target: LoadTarget
    private let loop: any EventLoop
    private let done: EventLoopPromise<LoadResult>
    private var result = LoadResult()
    private var connections: [ObjectIdentifier: LoadConnection] = [:]
    private var idle: [LoadConnection] = []
    /// Requests that are due but wait: for a connection that is being opened, or for their turn.
    private var waiting: CircularBuffer<(index: Int, intended: Nanoseconds)> = []
    private var nextIndex = 0
    private var active = 0
    private var isOver = false
    private var clock: Scheduled<Void>?
    private var arrivals: Scheduled<Void>?
    let meter = LoadMeter()
    /// Requests and their tokens, done and altogether.
    private var work = (done: 0, total: 0)

    /// Between two looks at the loop's own delay.
    private static let tick: Nanoseconds = 10_000_000

    init(plan: LoadPlan, target: LoadTarget, loop: any EventLoop, done: EventLoopPromise<LoadResult>) {
        self.plan = plan
        self.target = target
        self.loop = loop
        self.done = done
    }

    // MARK: - Start and end

    /// Opens the connections that shall be there from the start.
    func open(_ ready: EventLoopPromise<Void>) {
        var left = plan.openedBefore
        guard left > 0 else { return ready.succeed() }
        var failure: (any Error)?
        for _ in 0..<left {
            connect { connection, error in
                if let connection { self.idle.append(connection) } else { failure = failure ?? error }
                left -= 1
                guard left == 0 else { return }
                if let failure { ready.fail(failure) } else { ready.succeed() }
            }
        }
    }

    func start() {
        let now = monotonicNanoseconds()
        result.answers.reserveCapacity(plan.requests.count)
        if plan.requests.isEmpty { return end() }
        work.total = plan.requests.reduce(0) { $0 + 1 + $1.expectedTokens }
        scheduleClock(at: now + Self.tick)
        if plan.offsets != nil {
            // A moment of lead, so that the first request is not late by construction.
            result.start = now + 2_000_000
            sendDue()
        } else {
            result.start = now
            for _ in 0..<min(plan.concurrency ?? plan.requests.count, plan.requests.count) {
                dispatchNext(intended: now)
            }
        }
    }

    /// Ends everything at once; what was under way is recorded as failed.
    func cancel() {
        if isOver { return }
        nextIndex = plan.requests.count
        waiting.removeAll()
        end()
    }

    private func end() {
        if isOver { return }
        isOver = true
        clock?.cancel()
        arrivals?.cancel()
        for connection in connections.values { connection.close() }
        connections = [:]
        idle = []
        result.end = result.answers.reduce(result.start) { max($0, $1.end) }
        done.succeed(result)
    }

    // MARK: - When to send

    private func sendDue() {
        guard let offsets = plan.offsets else { return }
        let now = monotonicNanoseconds()
        while nextIndex < offsets.count, result.start + offsets[nextIndex] <= now {
            let intended = result.start + offsets[nextIndex]
            result.lateness.append(now - intended)
            enqueue(nextIndex, intended: intended)
            nextIndex += 1
        }
        guard nextIndex < offsets.count else { return }
        // The loop's clock is CLOCK_MONOTONIC as well.
        arrivals = loop.assumeIsolated().scheduleTask(
            deadline: .uptimeNanoseconds(UInt64(result.start + offsets[nextIndex]))
        ) { self.sendDue() }
    }

    private func dispatchNext(intended: Nanoseconds) {
        guard nextIndex < plan.requests.count else { return }
        enqueue(nextIndex, intended: intended)
        nextIndex += 1
    }

    private func enqueue(_ index: Int, intended: Nanoseconds) {
        if let limit = plan.concurrency, active >= limit {
            waiting.append((index, intended))
        } else {
            dispatch(index, intended: intended)
        }
    }

    private func dispatch(_ index: Int, intended: Nanoseconds) {
        active += 1
        let request = plan.requests[index]
        let answer = RawAnswer(
            index: index, item: request.item, seed: request.seed, intendedSend: intended,
            dispatched: monotonicNanoseconds(), expectedTokens: request.expectedTokens)
        let template = plan.templates[request.item]
        var bytes = ByteBufferAllocator().buffer(capacity: template.bytes.count)
        bytes.writeBytes(template.bytes)
        if let offset = template.seedOffset { bytes.setString(String(request.seed), at: offset) }
        send(bytes, answer)
    }

    private func send(_ bytes: ByteBuffer, _ answer: RawAnswer) {
        while let connection = idle.popLast() {
            if connection.isIdle { return connection.send(bytes, answer) }
        }
        connect { connection, error in
            if let connection { return connection.send(bytes, answer) }
            var answer = answer
            answer.error = .connect
            answer.errorDetail = Array("\(error.map { "\($0)" } ?? "no connection")".utf8)
            answer.end = monotonicNanoseconds()
            self.finished(answer)
        }
    }

    /// Notes how late the loop runs, and looks for silent connections once a second or so.
    private func scheduleClock(at due: Nanoseconds, ticks: Int = 0) {
        clock = loop.assumeIsolated().scheduleTask(deadline: .uptimeNanoseconds(UInt64(due))) {
            let now = monotonicNanoseconds()
            if self.plan.offsets == nil { self.result.lateness.append(now - due) }
            self.meter.fraction = min(1, Double(self.work.done) / Double(max(self.work.total, 1)))
            if ticks % 100 == 99 {
                for connection in self.connections.values {
                    connection.checkSilence(before: now - self.plan.silenceLimit)
                }
            }
            if !self.isOver { self.scheduleClock(at: max(due + Self.tick, now), ticks: ticks + 1) }
        }
    }

    // MARK: - Connections

    private func connect(_ then: @escaping (LoadConnection?, (any Error)?) -> Void) {
        // The channel's initialiser may run elsewhere by its type, but runs on this loop.
        let box = NIOLoopBound(self, eventLoop: loop)
        let target = target
        let bootstrap = ClientBootstrap(group: loop)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 64 << 10))
            .connectTimeout(.seconds(30))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls = try target.tlsHandler() { try channel.pipeline.syncOperations.addHandler(tls) }
                    try channel.pipeline.syncOperations.addHandler(LoadConnection(run: box.value))
                }
            }
        let connecting =
            switch target.address {
            case .tcp(let host, let port): bootstrap.connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            case .door(let path):
                // Off the loop, which must not wait.
                NIOThreadPool.singleton.runIfActive(eventLoop: loop) {
                    try LiveService.connection(throughDoor: path)
                }.assumeIsolated().flatMap { bootstrap.withConnectedSocket($0) }.nonisolated()
            }
        connecting.assumeIsolated().whenComplete { outcome in
            do {
                let channel = try outcome.get()
                if self.isOver { return channel.close(promise: nil) }
                let connection = try channel.pipeline.syncOperations.handler(type: LoadConnection.self)
                self.connections[ObjectIdentifier(connection)] = connection
                then(connection, nil)
            } catch {
                if !self.isOver { then(nil, error) }
            }
        }
    }

    /// A request under way has got this many further chunks.
    func advance(chunks: Int) { work.done += chunks }

    func connectionIsFree(_ connection: LoadConnection) {
        if isOver { return connection.close() }
        if connection.isIdle { idle.append(connection) }
    }

    func connectionClosed(_ connection: LoadConnection) {
        connections[ObjectIdentifier(connection)] = nil
        idle.removeAll { $0 === connection }
    }

    func retry(_ bytes: ByteBuffer, _ answer: RawAnswer) {
        if isOver { return }
        result.retries += 1
        // Not from the idle ones: they may be as stale as this one was.
        idle.forEach { $0.close() }
        idle = []
        send(bytes, answer)
    }

    /// An answer has come to its end, one way or the other. The connection reports itself free afterwards, so the next request
    /// is sent from a task of its own.
    func finished(_ answer: RawAnswer) {
        if isOver { return }
        result.answers.append(answer)
        work.done += 1 + max(0, answer.expectedTokens - answer.offsets.count)
        active -= 1
        if result.answers.count == plan.requests.count { return end() }
        let now = answer.end
        loop.assumeIsolated().execute {
            if self.isOver { return }
            if let next = self.waiting.popFirst() {
                self.dispatch(next.index, intended: next.intended)
            } else if self.plan.offsets == nil {
                self.dispatchNext(intended: now)
            }
        }
    }
}

extension LoadTarget {
    fileprivate func tlsHandler() throws -> NIOSSLClientHandler? {
        guard let tls, case .tcp(let host, _) = address else { return nil }
        // Addresses have no name that could be asked for.
        let isAddress = (try? SocketAddress(ipAddress: host, port: 0)) != nil
        return try NIOSSLClientHandler(context: tls, serverHostname: isAddress ? nil : host)
    }
}
