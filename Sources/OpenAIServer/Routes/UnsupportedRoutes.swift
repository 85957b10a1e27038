import NIOHTTP1

/// Routes that a vLLM user may expect and that this server does not have: they say so, instead of a bare 404.
package enum UnsupportedRoutes {
    private static let notImplemented: [(HTTPMethod, String)] = [
        (.POST, "/v1/responses"), (.POST, "/v1/messages"), (.POST, "/v1/messages/count_tokens"),
        (.POST, "/v1/completions/derender"), (.POST, "/v1/chat/completions/derender"),
        (.POST, "/generative_scoring"), (.POST, "/v1/systemone"), (.POST, "/v1/decisions"),
        (.GET, "/tokenizer_info"), (.POST, "/scale_elastic_ep"), (.POST, "/is_scaling_elastic_ep"),
    ]

    /// Call it last: routes that exist by then are left alone.
    package static func install(on router: inout Router, context: ServerContext) {
        for (method, path) in notImplemented where !router.has(method, path) {
            router.add(method, path) { _, response in
                response.send(.notImplemented("\(path) is not supported by this server."))
            }
        }
        guard context.configuration.allowRuntimeLoRAUpdating else { return }
        if !router.has(.POST, "/v1/load_lora_adapter") {
            router.add(.POST, "/v1/load_lora_adapter") { request, response in
                response.send(
                    lacking(["lora_name", "lora_path"], request)
                        ?? .badRequest("LoRA adapters are not supported by this server."))
            }
        }
        if !router.has(.POST, "/v1/unload_lora_adapter") {
            router.add(.POST, "/v1/unload_lora_adapter") { request, response in
                response.send(
                    lacking(["lora_name"], request)
                        ?? .notFound("No LoRA adapter is loaded: adapters are not supported by this server."))
            }
        }
    }

    /// The error of a body that cannot be read or lacks one of `fields`.
    private static func lacking(_ fields: [String], _ request: HTTPRequest) -> APIError? {
        do throws(APIError) {
            var reader = FieldReader(try RequestBody.object(request))
            for field in fields where reader.string(field) == nil && reader.issues.isEmpty {
                reader.report(field, "Field required")
            }
            try reader.finish()
            return nil
        } catch {
            return error
        }
    }
}
