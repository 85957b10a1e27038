import EngineClient
import EngineProtocol
import Glibc
import MessagePack
import Testing
import ZMTP
import ZeroMQ

/// The life of requests against a scripted engine over real sockets.
@Suite(.timeLimit(.minutes(10))) struct RequestTests {
    @Test func tokensReachTheirRequest() async throws {
        let bench = try TestBench { $0.clientIndex = 3 }
        let engine = try bench.engine()
        let information = try await bench.client.waitUntilReady()
        #expect(information.maxModelLength == 2048)
        #expect(bench.client.protocolFamily == .v0_33)

        let request = bench.add("cmpl-my-id") { $0.cacheSalt = "salt" }
        let received = try await engine.nextAdd()
        // vLLM's form: the client's id and eight hex digits; the plain id travels apart.
        #expect(received.requestID.wholeMatch(of: /cmpl-my-id-[0-9a-f]{8}/) != nil)
        #expect(received.externalRequestID == "cmpl-my-id")
        #expect(received.clientIndex == 3)
        #expect(received.cacheSalt == "salt")
        #expect(received.promptTokenIDs == [1, 2, 3])
        #expect(bench.client.inFlight == 1)

        engine.send(received.requestID, [10])
        engine.send(received.requestID, [11, 12])
        engine.send(received.requestID, [13], finish: .length)
        let (tokens, last) = await request.receiver.finish()
        #expect(tokens == [10, 11, 12, 13])
        #expect(last?.output?.finishReason == .length)
        #expect(last?.output?.requestID == received.requestID)
        await bench.client.shutdown()
        #expect(bench.client.inFlight == 0)
        #expect(bench.client.state == .closed)
        await engine.stop()
    }

    /// Said on the first and last output, and where they change, also when a message of other things told it first.
    @Test func exchangedWeightsAreTold() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("a")
        let id = try await engine.nextAdd().requestID
        func send(_ tokens: [Int32], _ version: String, finish: FinishReason? = nil) {
            var message = ScriptedEngine.outputs(
                tokens.isEmpty ? [] : [ScriptedEngine.output(id, tokens, finish: finish)], engine: 0)
            message.weightVersion = version
            engine.send(message)
        }
        send([1], "default")
        send([2], "default")
        send([], "w2")
        send([3], "w2")
        send([4], "w2")
        send([5], "w2", finish: .length)
        _ = await request.receiver.finish()
        #expect(request.receiver.events.map { $0.output?.weightVersion } == ["default", nil, "w2", nil, "w2"])
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func aGivenExternalIDIsKept() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        _ = bench.add("0_cmpl-x") { $0.externalRequestID = "cmpl-x" }
        let received = try await engine.nextAdd()
        #expect(received.requestID.hasPrefix("0_cmpl-x-"))
        #expect(received.externalRequestID == "cmpl-x")
        await bench.client.shutdown()
        await engine.stop()
    }

    /// Frontends are started with listening sockets that they inherit.
    @Test func adoptedListeners() async throws {
        var descriptors: [Int32] = []
        let bench = try TestBench(
            { configuration in
                func listener(_ endpoint: EngineClientConfiguration.Endpoint) -> EngineClientConfiguration.Endpoint {
                    guard case .bind(let address) = endpoint else { return endpoint }
                    let descriptor = unixListener(String(address.dropFirst("ipc://".count)))
                    descriptors.append(descriptor)
                    return .listener(descriptor: descriptor)
                }
                configuration.input = listener(configuration.input)
                configuration.output = listener(configuration.output)
            }, start: false)
        #expect(descriptors.allSatisfy { $0 >= 0 })
        // Engines may connect before anybody accepts.
        let engine = try bench.engine()
        try bench.client.start()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("a")
        engine.send(try await engine.nextAdd().requestID, [7], finish: .stop)
        #expect(await request.receiver.finish().tokens == [7])
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func oneDeliveryPerInboxAndMessage() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let first = DirectInbox()
        let second = DirectInbox()
        var requests: [TestRequest] = []
        var ids: [String] = []
        for index in 0..<10 {
            requests.append(bench.add("r\(index)", inbox: index % 2 == 0 ? first : second))
            ids.append(try await engine.nextAdd().requestID)
        }
        engine.send(ScriptedEngine.outputs(ids.map { ScriptedEngine.output($0, [1]) }))
        // Messages that lie there together would be delivered together.
        for request in requests { #expect(await request.receiver.next()?.output?.newTokenIDs == [1]) }
        engine.send(ScriptedEngine.outputs(ids.map { ScriptedEngine.output($0, [2], finish: .stop) }))
        for request in requests { #expect(await request.receiver.finish().tokens == [2]) }
        #expect(first.batches == [5, 5])
        #expect(second.batches == [5, 5])
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func abortsAreSentAndNothingComesAfter() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let aborted = bench.add("aborted")
        let id = try await engine.nextAdd().requestID
        let other = bench.add("other")
        let otherID = try await engine.nextAdd().requestID
        bench.client.abort(aborted.handle)
        #expect(try await engine.nextAbort() == [id])
        // Tokens that were under way are not for anybody, also when the slot is in use again.
        let next = bench.add("aborted")
        let nextID = try await engine.nextAdd().requestID
        // The client counts when it has sent, so the abort is counted for certain once it has sent something later.
        #expect(bench.client.inFlight == 2)
        #expect(nextID != id)
        engine.send(id, [66])
        engine.send(id, [67], finish: .abort)
        engine.send("unknown", [1], finish: .stop)
        engine.send(nextID, [5], finish: .stop)
        engine.send(otherID, [6], finish: .stop)
        #expect(await next.receiver.finish().tokens == [5])
        #expect(await other.receiver.finish().tokens == [6])
        #expect(aborted.receiver.events.isEmpty)
        // A handle of the past names nobody.
        bench.client.abort(aborted.handle)
        bench.client.abort(next.handle)
        let probe = bench.add("probe")
        engine.send(try await engine.nextAdd().requestID, [], finish: .stop)
        _ = await probe.receiver.finish()
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func manyAbortsShareMessages() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let requests = (0..<2500).map { bench.add("r\($0)") }
        var ids: Set<String> = []
        for _ in requests { ids.insert(try await engine.nextAdd().requestID) }
        #expect(ids.count == 2500)
        for request in requests { bench.client.abort(request.handle) }
        var messages: [[String]] = []
        var aborted: Set<String> = []
        while aborted.count < 2500 {
            let batch = try await engine.nextAbort()
            #expect(batch.count <= 1024)
            #expect(aborted.isDisjoint(with: batch))
            aborted.formUnion(batch)
            messages.append(batch)
        }
        #expect(aborted == ids)
        #expect(messages.count < 1250)
        await bench.client.shutdown()
        await engine.stop()
    }

    /// Such requests make a real engine deaf or kill it, so they must never be sent.
    @Test func requestsThatHarmEnginesAreRefused() async throws {
        let changes: [(String, (inout EngineCoreRequest) -> Void)] = [
            ("empty prompt", { $0.promptTokenIDs = [] }),
            ("prompt as long as the context", { $0.promptTokenIDs = Array(repeating: 1, count: 2048) }),
            ("too many tokens", { $0.samplingParams.maxTokens = 2046 }),
            ("negative token", { $0.promptTokenIDs = [1, -1] }),
            ("no tokens", { $0.samplingParams.maxTokens = 0 }),
            ("temperature", { $0.samplingParams.temperature = .nan }),
            ("extra arguments", { $0.samplingParams.extraArgs = [0x81, 0xa1] }),
        ]
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        for (name, change) in changes {
            let bad = bench.add("bad", change: change)
            guard case .failed(.requestFailed) = await bad.receiver.finish().last else {
                Issue.record("\(name) was not refused")
                return
            }
        }
        // The longest request that fits; it is also the first that the engine sees.
        let good = bench.add("good") { $0.samplingParams.maxTokens = 2045 }
        let received = try await engine.nextAdd()
        #expect(received.requestID.hasPrefix("good-"))
        engine.send(received.requestID, [1], finish: .stop)
        _ = await good.receiver.finish()
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func logprobsInFramesOfTheirOwn() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("r")
        var output = ScriptedEngine.output(try await engine.nextAdd().requestID, [5], finish: .stop)
        let rows = LogprobRows(
            rows: 1, columns: 100, tokenIDs: (0..<100).map { Int32($0) },
            logprobs: (0..<100).map { -Float($0) }, ranks: [1])
        output.newLogprobs = rows
        engine.send(ScriptedEngine.outputs([output]))
        #expect(await request.receiver.finish().last?.output?.newLogprobs == rows)
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test func anEndWithoutALastOutputIsAFailure() async throws {
        let bench = try TestBench()
        let engine = try bench.engine()
        _ = try await bench.client.waitUntilReady()
        let request = bench.add("r")
        var message = EngineCoreOutputs()
        message.finishedRequests = ["nobody", try await engine.nextAdd().requestID]
        engine.send(message)
        #expect(await request.receiver.finish().last?.failure != nil)
        await bench.client.shutdown()
        await engine.stop()
    }

    @Test(arguments: ProtocolFamily.allCases) func everyFamily(family: ProtocolFamily) async throws {
        let bench = try TestBench()
        let engine = try bench.engine(family: family)
        _ = try await bench.client.waitUntilReady()
        #expect(bench.client.protocolFamily == family)
        let request = bench.add("r")
        var output = ScriptedEngine.output(try await engine.nextAdd().requestID, [5], finish: .stop)
        output.prefillStats = PrefillStats()
        output.prefillStats?.numCachedTokens = 9
        engine.send(ScriptedEngine.outputs([output]))
        #expect(await request.receiver.finish().last?.output?.prefillStats?.numCachedTokens == 9)
        await bench.client.shutdown()
        await engine.stop()
    }
}

func unixListener(_ path: String) -> Int32 {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let status = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
    return status == 0 && listen(descriptor, 16) == 0 ? descriptor : -1
}
