import EngineClient
import JSONBytes
import Metrics
import NIOCore
import NIOHTTP1

/// What machines ask: is the server alive, what is it, how busy is it.
package enum ProbeRoutes {
    package static func install(on router: inout Router, context: ServerContext) {
        let health = HealthHandler(context: context)
        router.add(.GET, "/health", .probe, health)
        // vLLM knows `/health` only; these are what orchestrators ask for, each with its own meaning.
        router.add(.GET, "/health/live", .probe) { _, response in
            response.send(status: .ok, contentType: "", headers: [:], body: ByteBuffer())
        }
        router.add(.GET, "/health/ready", .probe, HealthHandler(context: context, asksForProgress: true))
        for path in ["/health/startup", "/startup"] {
            router.add(.GET, path, .probe) { _, response in sendStartup(context, response) }
        }
        router.add(.GET, "/ping", .probe, health)
        router.add(.POST, "/ping", .probe, health)
        router.add(.GET, "/version", .probe) { _, response in
            var body = ByteBuffer()
            body.appendLiteral("{\"version\":")
            body.appendJSONString(version(of: context))
            body.appendLiteral("}")
            response.sendJSON(body)
        }
        router.add(.GET, "/load", .probe) { _, response in
            var body = ByteBuffer()
            body.appendLiteral("{\"server_load\":")
            body.appendJSONInt(context.metrics.totalServerLoad())
            body.appendLiteral("}")
            response.sendJSON(body)
        }
        router.add(.GET, "/metrics", .probe) { request, response in
            let page = MetricsPage(context.metrics, accept: request.headers.first(name: "accept"))
            response.send(
                status: .ok, contentType: page.contentType, headers: [:], body: ByteBuffer(bytes: page.body))
        }
        router.add(.GET, "/v1/models") { _, response in
            var body = ByteBuffer()
            ModelCards.append(context: context, to: &body)
            response.sendJSON(body)
        }
        // No engine publishes KV events here.
        router.add(.GET, "/kv_event_sources") { _, response in response.sendJSON(ByteBuffer(string: "{}")) }
    }

    /// 200 once the engine has been ready, 503 before; the phases so far in either case.
    private static func sendStartup(_ context: ServerContext, _ response: any ResponseWriter) {
        var report = context.startup.json
        if !context.startup.isComplete {
            let loading = context.loading?.current()
            report["phase"] = .string(loading?.phase ?? "waiting for the engine")
            report["percent"] = loading.map { .number(Double($0.percent)) } ?? .null
        }
        var body = ByteBuffer()
        body.appendJSON(.object(report))
        response.send(
            status: context.startup.isComplete ? .ok : .serviceUnavailable, contentType: "application/json",
            headers: [:], body: body)
    }

    /// The engine's version of vLLM; the server's own before an engine is there.
    private static func version(of context: ServerContext) -> String {
        if case .ready(let information) = context.engine.state, !information.vllmVersion.isEmpty {
            return information.vllmVersion
        }
        return ProductVersion.text
    }
}

/// 200 with an empty body while requests can be answered, 503 with the reason while not.
struct HealthHandler: RouteHandler {
    let context: ServerContext
    /// An engine that is alive but hangs counts as unavailable, too.
    var asksForProgress = false

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        if let reason = unavailability() {
            response.send(reason)
        } else {
            response.send(status: .ok, contentType: "", headers: [:], body: ByteBuffer())
        }
    }

    /// With what an engine of ours is doing until it is ready.
    private func withProgress(_ text: String, _ link: String) -> String {
        text + (context.loading?.current().map { "\(link) \($0)" } ?? "")
    }

    private func unavailability() -> APIError? {
        guard context.life.takesWork else { return .serviceUnavailable("The server is shutting down.") }
        return switch context.engine.state {
        case .ready:
            asksForProgress ? context.watch?.problem.map { .engineHangs($0) } : nil
        case .waitingForEngines: .serviceUnavailable(withProgress("The engine is still starting", ":") + ".")
        case .dead(let reason):
            .serviceUnavailable(
                withProgress("The engine is dead: \(reason)", "; its successor:"),
                retryAfter: context.configuration.enginesAreReplaced ? 1 : nil)
        case .closed: .serviceUnavailable("The server is shutting down.")
        }
    }
}

/// `/v1/models`: one card per served name.
enum ModelCards {
    static func append(context: ServerContext, to sink: inout ByteBuffer) {
        let created = Int64(context.startTime)
        var maxModelLength: Int?
        if case .ready(let information) = context.engine.state { maxModelLength = information.maxModelLength }
        sink.appendLiteral("{\"object\":\"list\",\"data\":[")
        for (index, name) in context.configuration.servedModelNames.enumerated() {
            if index > 0 { sink.appendLiteral(",") }
            sink.appendLiteral("{\"id\":")
            sink.appendJSONString(name)
            sink.appendLiteral(",\"object\":\"model\",\"created\":")
            sink.appendJSONInt(created)
            sink.appendLiteral(",\"owned_by\":\"vllm\",\"root\":")
            sink.appendJSONString(context.configuration.modelTag)
            sink.appendLiteral(",\"parent\":null,\"max_model_len\":")
            if let maxModelLength { sink.appendJSONInt(maxModelLength) } else { sink.appendJSONNull() }
            sink.appendLiteral(",\"permission\":[{\"id\":\"modelperm-")
            sink.appendUTF8(RandomID.hex(32))
            sink.appendLiteral("\",\"object\":\"model_permission\",\"created\":")
            sink.appendJSONInt(created)
            sink.appendLiteral(
                """
                ,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,\
                "allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*",\
                "group":null,"is_blocking":false}]}
                """)
        }
        sink.appendLiteral("]}")
    }
}
