import EngineClient
import JSONBytes
import Logging
import MessagePack
import Metrics
import NIOHTTP1
import OpenAIServer
import Synchronization
import Testing

/// A clock and a processor that move when the test says so.
private final class Bench: Sendable {
    let engine: ScriptedEngine
    let watch: EngineWatch
    init(heartbeat: Bool, engines: Int = 1, requestDeadline: Double? = nil) {
        var information = EngineInformation.tiny
        information.answersHeartbeat = heartbeat
        information.ranks = 0..<engines
        let engine = ScriptedEngine(state: .ready(information))
        self.engine = engine
        let clock = Box(1000.0)
        let cpu = Box(0.0)
        (self.time, self.processor) = (clock, cpu)
        watch = EngineWatch(
            engine, timeout: 10, requestDeadline: requestDeadline,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            now: { clock.value }, engineCPU: { cpu.value })
    }

    private let time: Box
    private let processor: Box

    /// Second by second; `each` may do something in each of them.
    func pass(seconds: Int, computing share: Double = 0, _ each: () -> Void = {}) {
        for _ in 0..<seconds {
            time.value += 1
            processor.value += share
            each()
            watch.tick()
        }
    }

    func jump(seconds: Double) { time.value += seconds }

    func beat(turns: Int, busy: Double, cpu: Double) {
        var bytes: [UInt8] = []
        MessagePackValue.array([.int(turns), .double(busy), .double(cpu)]).encode(into: &bytes)
        engine.answer("heartbeat", bytes)
    }
}

private final class Box: Sendable {
    private let cell: Mutex<Double>
    init(_ value: Double) { cell = Mutex(value) }
    var value: Double {
        get { cell.withLock { $0 } }
        set { cell.withLock { $0 = newValue } }
    }
}

@Suite struct EngineWatchTests {
    @Test func aStoppedEngineIsNoticedAndForgottenWhenItGoesOn() {
        let bench = Bench(heartbeat: true)
        bench.beat(turns: 1, busy: 0, cpu: 0)
        bench.pass(seconds: 60)
        #expect(bench.watch.problem == nil && bench.watch.secondsSinceProgress <= 1)
        bench.engine.stop()
        bench.pass(seconds: 9)
        #expect(bench.watch.problem == nil)
        bench.pass(seconds: 3)
        #expect(bench.watch.problem?.contains("not answered for 11 s") == true)
        #expect(bench.watch.secondsSinceProgress == 12)
        bench.engine.goOn()
        #expect(bench.watch.problem == nil && bench.watch.secondsSinceProgress == 0)
    }

    @Test func aLongStepIsNoAlarm() {
        let bench = Bench(heartbeat: true)
        var busy = 0.0
        bench.pass(seconds: 120) {
            busy += 1
            bench.beat(turns: 7, busy: busy, cpu: busy * 0.9)
        }
        #expect(bench.watch.problem == nil)
    }

    @Test func aLoopThatStandsStillIsNoticed() {
        let bench = Bench(heartbeat: true)
        var busy = 0.0
        bench.pass(seconds: 13) {
            busy += 1
            bench.beat(turns: 7, busy: busy, cpu: 100 + busy * 0.0001)
        }
        #expect(bench.watch.problem?.contains("stands still in one step") == true)
        bench.beat(turns: 8, busy: 0, cpu: 100)
        bench.pass(seconds: 1)
        #expect(bench.watch.problem == nil)
    }

    @Test func anEngineWithoutHeartbeatIsJudgedByOutputsAndProcessorTime() {
        let bench = Bench(heartbeat: false)
        bench.pass(seconds: 60)
        #expect(bench.watch.problem == nil, "nobody waits for anything")
        bench.engine.setInFlight(1)
        bench.pass(seconds: 60, computing: 0.5)
        #expect(bench.watch.problem == nil, "a long prefill computes")
        bench.pass(seconds: 60) { bench.engine.sendMessage() }
        #expect(bench.watch.problem == nil, "outputs come")
        bench.engine.stop()
        bench.pass(seconds: 12)
        #expect(bench.watch.problem?.contains("does not compute") == true)
        bench.engine.sendMessage()
        bench.pass(seconds: 1)
        #expect(bench.watch.problem == nil)
    }

    @Test func aPausedEngineWithoutHeartbeatIsNoAlarm() {
        let bench = Bench(heartbeat: false)
        bench.engine.answer("is_scheduler_paused", [0xc3])
        bench.engine.setInFlight(1)
        bench.pass(seconds: 120)
        #expect(bench.watch.problem == nil)
        #expect(bench.engine.calls.count > 10, "it is asked again and again")
        bench.engine.stop()
        bench.pass(seconds: 17)
        #expect(bench.watch.problem?.contains("does not compute") == true)
    }

    @Test func theWatchForgivesWhatItSleptThrough() {
        let bench = Bench(heartbeat: true)
        bench.engine.stop()
        bench.pass(seconds: 3)
        // The frontend itself was stopped for a minute, too.
        bench.jump(seconds: 60)
        bench.pass(seconds: 5)
        #expect(bench.watch.problem == nil)
    }

    @Test func oneHungEngineOfSeveralLeavesTheOthersToWork() {
        let bench = Bench(heartbeat: true, engines: 3)
        bench.beat(turns: 1, busy: 0, cpu: 0)
        bench.pass(seconds: 5)
        bench.engine.stop(ranks: [1])
        bench.pass(seconds: 12)
        #expect(bench.watch.problem == "engine 1 has not answered for 11 s")
        #expect(bench.engine.hungRanks == [1])
        #expect(bench.watch.refusal() == nil && bench.watch.refusal(rank: 0) == nil)
        #expect(bench.watch.refusal(rank: 1) != nil)
        bench.engine.goOn()
        #expect(bench.watch.problem == nil && bench.engine.hungRanks.isEmpty)
        bench.engine.stop(ranks: [0, 1, 2])
        bench.pass(seconds: 12)
        #expect(bench.engine.hungRanks == [0, 1, 2] && bench.watch.refusal() != nil)
        bench.engine.setState(.dead(reason: "x"))
        bench.pass(seconds: 1)
        #expect(bench.engine.hungRanks.isEmpty, "a successor starts without a past")
    }

    @Test func requestsOfAHungEngineFailAtTheirDeadlineOnly() {
        let bench = Bench(heartbeat: true, engines: 2, requestDeadline: 30)
        bench.beat(turns: 1, busy: 0, cpu: 0)
        bench.pass(seconds: 5)
        bench.engine.stop(ranks: [1])
        bench.pass(seconds: 30)
        #expect(bench.watch.problem != nil && bench.engine.failedRequests.isEmpty)
        bench.pass(seconds: 2)
        #expect(bench.engine.failedRequests.map(\.rank) == [1, 1], "again in each tick: late ones may have come")
        #expect(bench.engine.failedRequests[0].failure == .engineHung(reason: "engine 1 has not answered for 30 s"))
        bench.engine.goOn()
        bench.pass(seconds: 60)
        #expect(bench.engine.failedRequests.count == 2)
    }

    @Test func aLongStepEndsNoRequest() {
        let bench = Bench(heartbeat: true, requestDeadline: 1)
        var busy = 0.0
        bench.pass(seconds: 120) {
            busy += 1
            bench.beat(turns: 7, busy: busy, cpu: busy * 0.9)
        }
        #expect(bench.engine.failedRequests.isEmpty)
    }

    @Test func newRequestsAreRefusedWhileTheEngineHangs() throws {
        let bench = Bench(heartbeat: true)
        let wire = try WireConnection(engine: bench.engine, watch: bench.watch)
        defer { wire.close() }
        bench.beat(turns: 1, busy: 0, cpu: 0)
        #expect(try wire.post("/echo", "x").status == 200)
        bench.engine.stop()
        bench.pass(seconds: 12)
        let refused = try wire.post("/echo", "x")
        #expect(refused.status == 503 && refused.headers.first(name: "retry-after") == "5")
        #expect(refused.body.contains("\"type\":\"ServiceUnavailableError\""))
        #expect(try wire.get("/v1/echo").status == 200, "what needs no engine is answered")
        bench.engine.goOn()
        #expect(try wire.post("/echo", "x").status == 200)
    }

    @Test func readinessAndMetricFollow() throws {
        let bench = Bench(heartbeat: true)
        let wire = try WireConnection(
            engine: bench.engine, watch: bench.watch,
            routes: { router, context in ProbeRoutes.install(on: &router, context: context) })
        defer { wire.close() }
        wire.context.metrics.setEngineHealth { [watch = bench.watch] in watch.health }
        #expect(try wire.get("/health/ready").status == 200)
        #expect(try !wire.get("/metrics").body.contains("engine_hung"), "the page is vLLM's until an engine hangs")
        bench.engine.stop()
        bench.pass(seconds: 12)
        let ready = try wire.get("/health/ready")
        #expect(ready.status == 503 && ready.headers.first(name: "retry-after") == "5")
        #expect(ready.body.contains("The engine hangs"))
        #expect(try wire.get("/health").status == 200, "as vLLM's")
        #expect(try wire.get("/health/live").status == 200)
        #expect(try wire.get("/metrics").body.contains("vllm:engine_hung{model_name=\"tiny\"} 1"))
        bench.engine.setState(.dead(reason: "x"))
        #expect(try wire.get("/health/live").status == 200)
        #expect(try wire.get("/health/ready").status == 503)
    }

    @Test func startUpTellsItsPhases() throws {
        let timeline = StartupTimeline(report: "0.5 bound=0.25 spawned=0.5")
        let wire = try WireConnection(
            startup: timeline, routes: { router, context in ProbeRoutes.install(on: &router, context: context) })
        defer { wire.close() }
        let starting = try wire.get("/health/startup")
        #expect(starting.status == 503 && starting.body.contains("\"state\":\"starting\""))
        timeline.reached("listening")
        timeline.complete(engineLoadSeconds: 1.5)
        timeline.complete(engineLoadSeconds: 9)
        let started = try wire.get("/startup")
        #expect(started.status == 200)
        let object = try JSONValue.parse(started.body).objectValue
        #expect(object?["state"]?.stringValue == "started")
        #expect(object?["engine_load_seconds"]?.numberValue?.doubleValue == 1.5)
        let names = object?["phases"]?.arrayValue?.compactMap { $0.objectValue?["name"]?.stringValue }
        #expect(names == ["bound", "spawned", "frontend_started", "listening", "engine_ready"])
    }
}
