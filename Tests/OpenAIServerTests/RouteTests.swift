import EngineClient
import JSONBytes
import MessagePack
import Metrics
import NIOCore
import NIOHTTP1
import OpenAIServer
import Testing

@Suite struct RouteTests {
    private func server(
        _ engine: ScriptedEngine = ScriptedEngine(), configure: (inout ServerConfiguration) -> Void = { _ in }
    ) throws -> WireConnection {
        try WireConnection(
            configure: configure, engine: engine,
            routes: { router, context in
                TestRoutes.install(&router)
                ProbeRoutes.install(on: &router, context: context)
                if context.configuration.developmentMode { DevelopmentRoutes.install(on: &router, context: context) }
                ProfileRoutes.install(on: &router, context: context)
                UnsupportedRoutes.install(on: &router, context: context)
            })
    }

    private func development(_ engine: ScriptedEngine = ScriptedEngine()) throws -> WireConnection {
        try server(engine) { $0.developmentMode = true }
    }

    private func packed(_ value: MessagePackValue) -> [UInt8] {
        var bytes: [UInt8] = []
        value.encode(into: &bytes)
        return bytes
    }

    @Test func profilesAreForEnginesWithAProfiler() throws {
        let plain = try server()
        defer { plain.close() }
        #expect(try plain.post("/start_profile").status == 404)
        let engine = ScriptedEngine()
        let wire = try server(engine) { $0.profiler = "torch" }
        defer { wire.close() }
        #expect(try wire.post("/start_profile").status == 200)
        #expect(try wire.post("/start_profile", #"{"profile_prefix": "a", "max_iterations": 3}"#).status == 200)
        #expect(try wire.post("/stop_profile").status == 200)
        #expect(try wire.post("/start_profile", #"{"max_iterations": -1}"#).status == 400)
        #expect(
            engine.calls.map(\.arguments) == [
                packed(.array([.bool(true), .nil])),
                packed(.array([.bool(true), .string("a"), .nil, .int(3)])),
                packed(.array([.bool(false), .nil])),
            ])
    }

    @Test func weightVersionsAreSetAndShown() throws {
        let engine = ScriptedEngine()
        engine.answer("get_weight_version", packed(.string("w2")))
        let wire = try development(engine)
        defer { wire.close() }
        #expect(
            try wire.post("/update_weight_version", #"{"new_version": "w2"}"#).body
                == #"{"success":true,"new_version":"w2"}"#)
        #expect(engine.calls.last?.arguments == packed(.array([.string("w2")])))
        #expect(try wire.get("/weight_info").body == #"{"weight_version":"w2"}"#)
        #expect(try wire.post("/update_weight_version", "{}").status == 400)
    }

    @Test func healthFollowsTheEngine() throws {
        let engine = ScriptedEngine(state: .waitingForEngines)
        let wire = try server(engine)
        defer { wire.close() }
        let starting = try wire.get("/health")
        #expect(starting.status == 503)
        #expect(starting.headers.first(name: "retry-after") == "1")
        engine.setState(.ready(.tiny))
        let ready = try wire.get("/health")
        #expect(ready.status == 200)
        #expect(ready.body == "")
        #expect(ready.headers.first(name: "content-type") == nil)
        #expect(ready.headers.first(name: "content-length") == "0")
        #expect(try wire.get("/ping").status == 200)
        #expect(try wire.post("/ping").status == 200)
        engine.setState(.dead(reason: "gone"))
        #expect(try wire.get("/health").status == 503)
        #expect(try wire.get("/ping").status == 503)
    }

    @Test func versionAndLoad() throws {
        let wire = try server()
        defer { wire.close() }
        #expect(try wire.get("/version").body == "{\"version\":\"0.32.0\"}")
        #expect(try wire.get("/load").body == "{\"server_load\":0}")
        wire.context.metrics.changeServerLoad(by: 3)
        #expect(try wire.get("/load").body == "{\"server_load\":3}")
    }

    @Test func everyServedNameHasACard() throws {
        let wire = try server()
        defer { wire.close() }
        let response = try wire.get("/v1/models")
        #expect(response.headers.first(name: "content-type") == "application/json")
        let masked = response.body.split(separator: "modelperm-").map { part in
            part.first?.isHexDigit == true && part.count > 32 ? part.dropFirst(32) : part[...]
        }.joined(separator: "<id>")
        let card = { (name: String) in
            "{\"id\":\"\(name)\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\",\"root\":\"models/tiny\","
                + "\"parent\":null,\"max_model_len\":2048,\"permission\":[{\"id\":\"<id>\","
                + "\"object\":\"model_permission\",\"created\":1,\"allow_create_engine\":false,\"allow_sampling\":true,"
                + "\"allow_logprobs\":true,\"allow_search_indices\":false,\"allow_view\":true,"
                + "\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,\"is_blocking\":false}]}"
        }
        #expect(masked == "{\"object\":\"list\",\"data\":[\(card("tiny")),\(card("tiny-alias"))]}")
    }

    @Test func metricsPageDependsOnAccept() throws {
        let wire = try server()
        defer { wire.close() }
        _ = try wire.post("/echo", "12345")
        let open = try wire.get("/metrics")
        #expect(open.headers.first(name: "content-type")?.hasPrefix("application/openmetrics-text") == true)
        #expect(open.body.contains("http_requests_total{handler=\"/echo\",method=\"POST\",status=\"2xx\"} 1\n"))
        let plain = try wire.get("/metrics", headers: "Accept: text/plain;version=0.0.4\r\n")
        #expect(plain.headers.first(name: "content-type") == "text/plain; version=0.0.4; charset=utf-8")
        #expect(plain.body.contains("http_request_size_bytes_sum{handler=\"/echo\"} 5\n"))
        // Probes do not count themselves.
        #expect(!plain.body.contains("handler=\"/metrics\""))
    }

    @Test func knownButMissingRoutesSaySo() throws {
        let wire = try server()
        defer { wire.close() }
        #expect(try wire.post("/v1/responses").status == 501)
        #expect(try wire.post("/v1/embeddings").status == 404)
        #expect(try wire.post("/v1/load_lora_adapter").status == 404)
    }

    @Test func catalogListsWhatTheRouterServes() throws {
        let wire = try WireConnection(routes: { router, _ in
            TestRoutes.install(&router)
            RouteCatalog.install(on: &router)
        })
        defer { wire.close() }
        let document = try JSONValue.parse(try wire.get("/openapi.json").body)
        #expect(document["paths"]?.objectValue?.keys == ["/echo", "/inject", "/v1/echo"])
        #expect(document["paths"]?["/echo"]?.objectValue?.keys == ["post"])
    }

    @Test func adapterRoutesExistOnlyWhereTheyAreAllowed() throws {
        let wire = try server { $0.allowRuntimeLoRAUpdating = true }
        defer { wire.close() }
        let json = "Content-Type: application/json\r\n"
        #expect(
            try wire.post("/v1/load_lora_adapter", "{}", headers: json).body.contains("\"param\":\"body.lora_name\""))
        #expect(
            try wire.post("/v1/load_lora_adapter", "{\"lora_name\":\"a\",\"lora_path\":\"b\"}", headers: json).status
                == 400)
        #expect(try wire.post("/v1/unload_lora_adapter", "{\"lora_name\":\"a\"}", headers: json).status == 404)
        #expect(try wire.post("/v1/unload_lora_adapter", "").status == 400)
        for (path, body, message) in [
            ("/v1/unload_lora_adapter", #"{"lora_name":"a"}"#, "The lora adapter 'a' cannot be found."),
            ("/v1/unload_lora_adapter", #"{"lora_name":""}"#, "'lora_name' needs to be provided to unload"),
            ("/v1/load_lora_adapter", #"{"lora_name":"","lora_path":"b"}"#, "Both 'lora_name' and 'lora_path' must be"),
        ] {
            #expect(try wire.post(path, body, headers: json).body.contains(message), "\(path) \(body)")
        }
    }

    @Test func queueLimitShedsWork() throws {
        let wire = try server { $0.maxUnfinishedRequests = 0 }
        defer { wire.close() }
        let refused = try wire.post("/echo", "x")
        #expect(refused.status == 503)
        #expect(refused.body.contains("\"type\":\"ServiceUnavailableError\""))
        #expect(try wire.get("/v1/models").status == 200)
        #expect(
            try wire.get("/metrics", headers: "Accept: text/plain\r\n").body.contains(
                "vllm:admission_rejections_total{model_name=\"tiny\",reason=\"max_num_queued_reqs\"} 1\n"))
    }

    // MARK: - Development routes

    @Test func developmentRoutesAreHiddenByDefault() throws {
        let wire = try server()
        defer { wire.close() }
        #expect(try wire.post("/sleep").status == 404)
        #expect(try wire.get("/server_info").status == 404)
        #expect(wire.engine.calls.isEmpty)
    }

    @Test func cacheResets() throws {
        let wire = try development()
        defer { wire.close() }
        wire.engine.answer("reset_prefix_cache", [0xC3])
        let reset = try wire.post("/reset_prefix_cache?reset_running_requests=true")
        #expect(reset.body == "{\"success\":true}")
        #expect(
            wire.engine.calls.last
                == .init(method: "reset_prefix_cache", arguments: packed(.array([.bool(true), .bool(false)]))))
        wire.engine.answer("reset_prefix_cache", [0xC2])
        #expect(try wire.post("/reset_prefix_cache").body == "{\"success\":false}")
        let multimodal = try wire.post("/reset_mm_cache")
        #expect(multimodal.status == 200)
        #expect(multimodal.body == "")
        #expect(try wire.post("/reset_encoder_cache").status == 200)
    }

    @Test func sleepAndWakeUp() throws {
        let wire = try development()
        defer { wire.close() }
        #expect(try wire.post("/sleep?level=2").body == "{\"status\":\"sleeping\",\"level\":2}")
        #expect(
            wire.engine.calls.last == .init(method: "sleep", arguments: packed(.array([.int(2), .string("abort")]))))
        wire.engine.answer("wake_up", [0xC2])
        #expect(
            try wire.post("/wake_up?tags=weights&tags=kv%5Fcache").body
                == "{\"status\":\"sleeping\",\"tags\":[\"weights\",\"kv_cache\"]}")
        wire.engine.answer("wake_up", [0xC3])
        #expect(try wire.post("/wake_up").body == "{\"status\":\"awake\",\"tags\":null}")
        #expect(wire.engine.calls.last == .init(method: "wake_up", arguments: packed(.array([.nil]))))
        wire.engine.answer("is_sleeping", [0xC3])
        #expect(try wire.get("/is_sleeping").body == "{\"is_sleeping\":true}")
    }

    @Test func pauseUsesTheNameThatTheEngineKnows() throws {
        let wire = try development()
        defer { wire.close() }
        #expect(try wire.post("/pause?mode=keep").body == "{\"status\":\"paused\"}")
        #expect(
            wire.engine.calls.last
                == .init(method: "pause_scheduler", arguments: packed(.array([.string("keep"), .bool(true)]))))
        var newer = EngineInformation.tiny
        newer.vllmVersion = "0.33.0"
        wire.engine.setState(.ready(newer))
        _ = try wire.post("/pause")
        #expect(wire.engine.calls.last?.method == "pause_generation")
        wire.engine.answer("is_scheduler_paused", [0xC3])
        #expect(try wire.get("/is_paused").body == "{\"is_paused\":true}")
        #expect(try wire.post("/resume").body == "{\"status\":\"resumed\"}")
    }

    @Test(arguments: [
        ("POST", "/sleep?level=9", "query.level"), ("POST", "/sleep?level=x", "query.level"),
        ("POST", "/sleep?mode=nap", "query.mode"), ("GET", "/server_info?config_format=xml", "query.config_format"),
        ("POST", "/reset_prefix_cache?reset_external=maybe", "query.reset_external"),
    ])
    func badQueriesNameTheParameter(_ method: String, _ path: String, _ param: String) throws {
        let wire = try development()
        defer { wire.close() }
        let response = try wire.exchange("\(method) \(path) HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        #expect(response.status == 400)
        #expect(response.body.contains("\"type\":\"Bad Request\",\"param\":\"\(param)\",\"code\":400"))
        #expect(wire.engine.calls.isEmpty)
    }

    @Test func collectiveCallsTravelAsMessagePack() throws {
        let wire = try development()
        defer { wire.close() }
        let missing = try wire.post("/collective_rpc", "{}")
        #expect(missing.status == 400)
        #expect(
            missing.body
                == "{\"error\":{\"message\":\"Missing 'method' in request body\",\"type\":\"Bad Request\",\"param\":null,"
                + "\"code\":400}}")
        wire.engine.answer(
            "collective_rpc", packed(.array([.string("a"), .nil, .map([(key: .string("k"), value: .int(1))])])))
        let response = try wire.post(
            "/collective_rpc", "{\"method\":\"f\",\"args\":[1,\"x\"],\"kwargs\":{\"a\":null},\"timeout\":2}")
        #expect(response.body == "{\"results\":[\"a\",null,{\"k\":1}]}")
        #expect(
            wire.engine.calls.last?.arguments
                == packed(
                    .array([
                        .string("f"), .double(2), .array([.int(1), .string("x")]),
                        .map([(key: .string("a"), value: .nil)]),
                    ])))
    }

    @Test func engineFailuresBecomeErrors() throws {
        let wire = try development()
        defer { wire.close() }
        wire.engine.fail("sleep", .requestFailed(reason: "Call to sleep method failed: busy"))
        let failed = try wire.post("/sleep")
        #expect(failed.status == 500)
        #expect(failed.body.contains("Call to sleep method failed: busy"))
        wire.engine.fail("sleep", .engineDead(reason: "x"))
        #expect(try wire.post("/sleep").status == 503)
        wire.engine.answer("is_sleeping", [0xC1])
        #expect(try wire.get("/is_sleeping").status == 500)
    }

    @Test func abortEndsRunningRequestsByID() throws {
        let probe = StreamProbe()
        let wire = try WireConnection(
            configure: { $0.developmentMode = true },
            routes: { router, context in
                TestRoutes.install(&router, stream: probe)
                DevelopmentRoutes.install(on: &router, context: context)
            })
        defer { wire.close() }
        try wire.send("POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        let response = try #require(probe.response)
        response.requestID = "cmpl-abc"
        let state = wire.context.state(for: wire.loop)
        #expect(state.abortRequests(ids: ["other"]) == 0)
        #expect(probe.disconnects == 0)
        #expect(state.abortRequests(ids: ["abc"]) == 1)
        #expect(probe.disconnects == 1)
        #expect(WireResponse.parse(try wire.receive()).first?.status == 503)

        let idle = try development()
        defer { idle.close() }
        #expect(
            try idle.post("/abort_requests", "{\"request_ids\":[\"nope\"]}").body
                == "{\"status\":\"aborted\",\"aborted\":1}")
        #expect(try idle.post("/abort_requests", "{}").body == "{\"status\":\"aborted\",\"aborted\":0}")
        #expect(try idle.post("/abort_requests", "").status == 400)
        #expect(try idle.post("/abort_requests", "{").status == 400)
    }
}
