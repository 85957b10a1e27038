import JSONBytes
import MessagePack
import NIOCore
import NIOHTTP1

/// `/start_profile` and `/stop_profile`, registered only when the engine was given a profiler (`profiler_config`).
package enum ProfileRoutes {
    package static func install(on router: inout Router, context: ServerContext) {
        guard context.configuration.profiler != nil else { return }
        router.add(.POST, "/start_profile") { request, response in
            do throws(APIError) {
                let arguments = try startArguments(request)
                EngineCall("profile", arguments).send(context, response) { _ in response.sendEmpty() }
            } catch {
                response.send(error)
            }
        }
        router.add(.POST, "/stop_profile") { _, response in
            EngineCall("profile", [.bool(false), .nil]).send(context, response) { _ in response.sendEmpty() }
        }
    }

    /// The body is optional. Engines of all versions take the prefix; iterations are sent only where they were given.
    private static func startArguments(_ request: HTTPRequest) throws(APIError) -> [MessagePackValue] {
        guard request.body.readableBytes > 0 else { return [.bool(true), .nil] }
        var reader = FieldReader(try DevelopmentBody.object(request))
        let prefix = reader.string("profile_prefix")
        let delay = reader.int("delay_iterations")
        let maximum = reader.int("max_iterations")
        for (name, value) in [("delay_iterations", delay), ("max_iterations", maximum)] {
            if let value, value < 0 { reader.report(name, "Input should be greater than or equal to 0") }
        }
        try reader.finish()
        var arguments: [MessagePackValue] = [.bool(true), prefix.map { .string($0) } ?? .nil]
        if delay != nil || maximum != nil {
            arguments += [delay, maximum].map { $0.map { .int($0) } ?? .nil }
        }
        return arguments
    }
}

extension ResponseWriter {
    /// 200 without a body.
    func sendEmpty() { send(status: .ok, contentType: "", headers: [:], body: ByteBuffer()) }
}
