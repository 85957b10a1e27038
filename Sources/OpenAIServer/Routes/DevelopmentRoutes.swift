import EngineClient
import EngineProtocol
import JSONBytes
import MessagePack
import NIOCore
import NIOHTTP1

/// Routes that change or show the engine's state, registered only with `VLLM_SERVER_DEV_MODE=1`.
package enum DevelopmentRoutes {
    package static func install(on router: inout Router, context: ServerContext) {
        installCaches(&router, context)
        installSleep(&router, context)
        installPause(&router, context)
        router.add(.POST, "/collective_rpc", CollectiveRPCHandler(context: context))
        router.add(.POST, "/abort_requests", AbortRequestsHandler(context: context))
        router.add(.GET, "/server_info", ServerInfoHandler(context: context))
        router.add(.GET, "/get_world_size") { _, response in
            guard case .ready(let information) = context.engine.state else {
                return response.send(.serviceUnavailable("The engine is not ready."))
            }
            response.sendJSON(["world_size": .number(JSONNumber(information.worldSize))])
        }
        router.add(.POST, "/update_weight_version") { request, response in
            respond(response) { () throws(APIError) in
                var reader = FieldReader(try DevelopmentBody.object(request))
                let version = reader.string("new_version")
                if version == nil, reader.issues.isEmpty { reader.report("new_version", "Field required") }
                try reader.finish()
                EngineCall("set_weight_version", [.string(version ?? "")]).send(context, response) { _ in
                    response.sendJSON(["success": .bool(true), "new_version": .string(version ?? "")])
                }
            }
        }
        router.add(.GET, "/weight_info") { _, response in
            EngineCall("get_weight_version").send(context, response) { results throws(APIError) in
                let version: JSONValue =
                    if case .string(let text) = try EngineCall.consensus(results) { .string(text) } else { .null }
                response.sendJSON(["weight_version": version])
            }
        }
    }

    private static func installCaches(_ router: inout Router, _ context: ServerContext) {
        router.add(.POST, "/reset_prefix_cache") { request, response in
            respond(response) { () throws(APIError) in
                let query = QueryString(request.query)
                let running = try query.bool("reset_running_requests", default: false)
                let external = try query.bool("reset_external", default: false)
                EngineCall("reset_prefix_cache", [.bool(running), .bool(external)]).send(context, response) {
                    response.sendJSON(["success": .bool($0.allSatisfy { $0 == .bool(true) })])
                }
            }
        }
        for (path, method) in [
            ("/reset_mm_cache", "reset_mm_cache"), ("/reset_encoder_cache", "reset_encoder_cache"),
            ("/release_kv_cache_memory", "release_kv_cache_memory"),
        ] {
            router.add(.POST, path) { _, response in
                EngineCall(method).send(context, response) { _ in response.sendEmpty() }
            }
        }
    }

    private static func installSleep(_ router: inout Router, _ context: ServerContext) {
        router.add(.POST, "/sleep") { request, response in
            respond(response) { () throws(APIError) in
                let query = QueryString(request.query)
                let level = try query.int("level", default: 1, in: 0...2)
                let mode = try query.choice("mode", default: "abort", of: ["abort", "wait", "keep"])
                EngineCall("sleep", [.int(level), .string(mode)]).send(context, response) { _ in
                    response.sendJSON(["status": .string("sleeping"), "level": .number(JSONNumber(level))])
                }
            }
        }
        router.add(.POST, "/wake_up") { request, response in
            let tags = QueryString(request.query).all("tags")
            let argument: MessagePackValue = tags.isEmpty ? .nil : .array(tags.map { .string($0) })
            EngineCall("wake_up", [argument]).send(context, response) { results in
                // Engines before 0.32 return nothing: they are awake once they have answered.
                let awake = results.allSatisfy { $0 == .bool(true) || $0 == .nil }
                response.sendJSON([
                    "status": .string(awake ? "awake" : "sleeping"),
                    "tags": tags.isEmpty ? .null : .array(tags.map { .string($0) }),
                ])
            }
        }
        router.add(.GET, "/is_sleeping") { _, response in
            EngineCall("is_sleeping").send(context, response) { results throws(APIError) in
                response.sendJSON(["is_sleeping": .bool(try EngineCall.consensus(results) == .bool(true))])
            }
        }
    }

    private static func installPause(_ router: inout Router, _ context: ServerContext) {
        router.add(.POST, "/pause") { request, response in
            respond(response) { () throws(APIError) in
                let query = QueryString(request.query)
                let mode = try query.choice("mode", default: "abort", of: ["abort", "wait", "keep"])
                let clear = try query.bool("clear_cache", default: true)
                EngineCall(pauseMethod(context), [.string(mode), .bool(clear)]).send(context, response) { _ in
                    response.sendJSON(["status": .string("paused")])
                }
            }
        }
        router.add(.POST, "/resume") { _, response in
            EngineCall("resume_scheduler").send(context, response) { _ in
                response.sendJSON(["status": .string("resumed")])
            }
        }
        router.add(.GET, "/is_paused") { _, response in
            EngineCall("is_scheduler_paused").send(context, response) { results throws(APIError) in
                response.sendJSON(["is_paused": .bool(try EngineCall.consensus(results) == .bool(true))])
            }
        }
    }

    /// vLLM 0.33 renamed the call.
    private static func pauseMethod(_ context: ServerContext) -> String {
        guard case .ready(let information) = context.engine.state else { return "pause_scheduler" }
        let parts = information.vllmVersion.split(separator: ".").prefix(2).map { Int($0) ?? 0 }
        guard parts.count == 2 else { return "pause_scheduler" }
        return parts[0] > 0 || parts[1] >= 33 ? "pause_generation" : "pause_scheduler"
    }

    private static func respond(_ response: any ResponseWriter, _ body: () throws(APIError) -> Void) {
        do throws(APIError) { try body() } catch { response.send(error) }
    }
}

/// `POST /collective_rpc`: calls a method of every worker.
private struct CollectiveRPCHandler: RouteHandler {
    let context: ServerContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try DevelopmentBody.object(request)
            guard let method = body["method"]?.stringValue, !method.isEmpty else {
                throw .invalidBody("Missing 'method' in request body")
            }
            let timeout: MessagePackValue =
                if let number = body["timeout"]?.numberValue { .double(number.doubleValue) } else { .nil }
            let arguments = (body["args"]?.arrayValue ?? []).map { MessagePackValue(json: $0) }
            var named: MessagePackValue = .nil
            if let object = body["kwargs"]?.objectValue { named = MessagePackValue(json: .object(object)) }
            EngineCall("collective_rpc", [.string(method), timeout, .array(arguments), named])
                .send(context, response) { results in
                    // One list per engine, one element per worker.
                    var bytes: [UInt8] = Array("{\"results\":[".utf8)
                    var isFirst = true
                    for case .array(let workers) in results {
                        for worker in workers {
                            if !isFirst { bytes.append(UInt8(ascii: ",")) }
                            isFirst = false
                            worker.appendJSON(to: &bytes)
                        }
                    }
                    bytes.append(contentsOf: "]}".utf8)
                    response.sendJSON(ByteBuffer(bytes: bytes))
                }
        } catch {
            response.send(error)
        }
    }
}

/// `POST /abort_requests`: ends requests by the id of their answer; without ids, all of them.
private struct AbortRequestsHandler: RouteHandler {
    let context: ServerContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try DevelopmentBody.object(request)
            var reader = FieldReader(body)
            let ids = reader.strings("request_ids") ?? []
            try reader.finish()
            let futures = context.loopStates.map { state in
                state.loop.submit { state.abortRequests(ids: ids) }
            }
            let bound = NIOLoopBound(response, eventLoop: response.eventLoop)
            EventLoopFuture.reduce(0, futures, on: response.eventLoop, +).whenSuccess { ended in
                // Like vLLM, which counts the ids it was given.
                let count = ids.isEmpty ? ended : ids.count
                bound.value.sendJSON(["status": .string("aborted"), "aborted": .number(JSONNumber(count))])
            }
        } catch {
            response.send(error)
        }
    }
}

/// `GET /server_info`: what the server was started with.
private struct ServerInfoHandler: RouteHandler {
    let context: ServerContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let format = try QueryString(request.query).choice(
                "config_format", default: "text", of: ["text", "json"])
            let configuration = context.configuration
            var members: [(String, JSONValue)] = [
                ("model", .string(configuration.modelTag)),
                ("served_model_name", .array(configuration.servedModelNames.map { .string($0) })),
            ]
            if case .ready(let information) = context.engine.state {
                members += [
                    ("max_model_len", .number(JSONNumber(information.maxModelLength))),
                    ("dtype", .string(information.dtype)),
                    ("block_size", .number(JSONNumber(information.blockSize))),
                    ("num_gpu_blocks", .number(JSONNumber(information.numGPUBlocks))),
                    ("max_num_seqs", .number(JSONNumber(information.maxNumSeqs))),
                    ("max_num_batched_tokens", .number(JSONNumber(information.maxNumBatchedTokens))),
                    ("world_size", .number(JSONNumber(information.worldSize))),
                    ("engine_count", .number(JSONNumber(information.engineCount))),
                ]
            }
            let value: JSONValue =
                if format == "json" {
                    .object(JSONObject(members))
                } else {
                    .string(members.map { "\($0.0)=\($0.1.serialized())" }.joined(separator: ", "))
                }
            response.sendJSON(["vllm_config": value])
        } catch {
            response.send(error)
        }
    }
}

/// A JSON object, whatever its content type.
enum DevelopmentBody {
    static func object(_ request: HTTPRequest) throws(APIError) -> JSONObject {
        let bytes = Array(request.body.readableBytesView)
        guard let value = try? JSONValue.parse(bytes), let object = value.objectValue else {
            throw .invalidBody("Invalid JSON format")
        }
        return object
    }
}

/// One utility call to all engines, with its answer brought back to the response's event loop.
struct EngineCall {
    private let method: String
    private let arguments: [MessagePackValue]

    init(_ method: String, _ arguments: [MessagePackValue] = []) {
        self.method = method
        self.arguments = arguments
    }

    /// Failures become an error response; `body` gets one value per engine.
    func send(
        _ context: ServerContext, _ response: any ResponseWriter,
        _ body: @escaping ([MessagePackValue]) throws(APIError) -> Void
    ) {
        var bytes: [UInt8] = []
        MessagePackValue.array(arguments).encode(into: &bytes)
        let bound = NIOLoopBound((response: response, body: body), eventLoop: response.eventLoop)
        let loop = response.eventLoop
        let method = method
        context.engine.callUtility(method, arguments: bytes) { result in
            loop.execute {
                let (response, body) = bound.value
                do throws(APIError) {
                    try body(try Self.values(of: result, method: method))
                } catch {
                    response.send(error)
                }
            }
        }
    }

    private static func values(
        of result: Result<[UtilityOutput], EngineFailure>, method: String
    ) throws(APIError) -> [MessagePackValue] {
        switch result {
        case .failure(.engineDead(let reason)):
            throw .serviceUnavailable("The engine is dead: \(reason)", retryAfter: nil)
        case .failure(.requestFailed(let reason)): throw .internalError(reason)
        case .failure(.engineHung(let reason)), .failure(.engineBehind(let reason)): throw .engineHangs(reason)
        case .failure(.shuttingDown): throw .serviceUnavailable("The server is shutting down.")
        case .success(let outputs):
            var values: [MessagePackValue] = []
            for output in outputs {
                if let message = output.failureMessage { throw .internalError(message) }
                guard let bytes = output.result else {
                    values.append(.nil)
                    continue
                }
                guard let value = try? MessagePackValue(decoding: bytes) else {
                    throw .internalError("The engine's answer to \(method) cannot be read.")
                }
                values.append(value)
            }
            return values
        }
    }

    /// The value that all engines agree on.
    static func consensus(_ values: [MessagePackValue]) throws(APIError) -> MessagePackValue {
        guard let first = values.first else { return .nil }
        guard values.allSatisfy({ $0 == first }) else {
            throw .internalError("The engines returned different results.")
        }
        return first
    }
}

extension ResponseWriter {
    fileprivate func sendJSON(_ members: KeyValuePairs<String, JSONValue>) {
        var body = ByteBuffer()
        body.appendJSON(.object(JSONObject(members.map { ($0.key, $0.value) })))
        sendJSON(body)
    }
}

extension MessagePackValue {
    /// The same value; integers beyond 64 bits become floats.
    init(json: JSONValue) {
        switch json {
        case .null: self = .nil
        case .bool(let value): self = .bool(value)
        case .number(let number):
            if let integer = number.intValue { self = .int(integer) } else { self = .double(number.doubleValue) }
        case .string(let text): self = .string(text)
        case .array(let values): self = .array(values.map { MessagePackValue(json: $0) })
        case .object(let object):
            self = .map(object.pairs.map { (key: .string($0.key), value: MessagePackValue(json: $0.value)) })
        }
    }
}
