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
                    answer(["lora_name", "lora_path"], request) { texts in
                        texts.contains("")
                            ? .badRequest("Both 'lora_name' and 'lora_path' must be provided.")
                            : .badRequest("LoRA adapters are not supported by this server.")
                    })
            }
        }
        if !router.has(.POST, "/v1/unload_lora_adapter") {
            router.add(.POST, "/v1/unload_lora_adapter") { request, response in
                response.send(
                    answer(["lora_name"], request) { texts in
                        texts.contains("")
                            ? .badRequest("'lora_name' needs to be provided to unload a LoRA adapter.")
                            : .notFound("The lora adapter '\(texts[0].prefix(100))' cannot be found.")
                    })
            }
        }
    }

    /// What `refusal` says to the texts in `fields`, or the error of a body that cannot be read or lacks one of them.
    private static func answer(
        _ fields: [String], _ request: HTTPRequest, _ refusal: ([String]) -> APIError
    ) -> APIError {
        do throws(APIError) {
            var reader = FieldReader(try RequestBody.object(request))
            var texts: [String] = []
            for field in fields {
                let text = reader.string(field)
                if text == nil, reader.issues.isEmpty { reader.report(field, "Field required") }
                texts.append(text ?? "")
            }
            try reader.finish()
            return refusal(texts)
        } catch {
            return error
        }
    }
}
