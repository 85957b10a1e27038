import Chat
import JSONBytes
import NIOCore
import Text

/// `POST /v1/chat/completions/batch`: one choice per conversation of `messages`, all with the same parameters.
struct BatchChatHandler: RouteHandler {
    let api: APIContext

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        do throws(APIError) {
            let body = try RequestBody.object(request)
            let conversations = try self.conversations(of: body)
            var chats: [ChatRequest] = []
            for messages in conversations {
                var one = body
                one["messages"] = .array(messages)
                // The answer is one object, so there is nothing to stream.
                one["stream"] = .bool(false)
                chats.append(try ChatRequest(one, limits: api.limits, settings: api.chat))
            }
            let first = chats[0]
            let logprobs = first.logprobs ? first.topLogprobs : nil
            let preparation = try api.check(
                first.sampling, logprobs: logprobs, promptLogprobs: first.promptLogprobsAsked)
            let model = api.model
            let renderings = chats.map(\.rendering)
            let addSpecialTokens = first.addSpecialTokens
            let truncation = first.sampling.truncation
            api.offload(size: request.body.readableBytes, response: response) {
                () throws(APIError) -> [PreparedPrompt] in
                var prompts: [PreparedPrompt] = []
                for rendering in renderings {
                    let text = try model.render(rendering)
                    prompts.append(
                        try preparation.prepare(
                            text: text, addSpecialTokens: addSpecialTokens, truncation: truncation))
                }
                return prompts
            } then: { prompts throws(APIError) in
                try ChatHandler(api: api).start(chats, prompts, logprobs: logprobs, request, response)
            }
        } catch {
            response.send(error)
        }
    }

    private func conversations(of body: JSONObject) throws(APIError) -> [[JSONValue]] {
        var reader = FieldReader(body)
        if let n = reader.value("n"), n != .bool(true), n != .number(1), n != .number(1.0) {
            reader.reportRule(
                .badRequest("Batch chat completions do not support `n > 1`. Please set `n` to 1.", param: "n"))
        }
        if FieldReader.isTrue(body["use_beam_search"]) {
            reader.reportRule(
                .badRequest(
                    "Batch chat completions do not support beam search. Please set `use_beam_search` to False.",
                    param: "use_beam_search"))
        }
        let elements = reader.array("messages") ?? []
        if body["messages"] == nil {
            reader.report("messages", "Field required")
        } else if elements.isEmpty, reader.issues.isEmpty {
            reader.report("messages", "List should have at least 1 item after validation, not 0")
        }
        var conversations: [[JSONValue]] = []
        for (index, element) in elements.enumerated() {
            guard let messages = element.arrayValue else {
                reader.report("messages.\(index)", "Input should be a valid list")
                continue
            }
            if messages.isEmpty {
                reader.report("messages.\(index)", "List should have at least 1 item after validation, not 0")
            }
            conversations.append(messages)
        }
        try reader.finish()
        guard conversations.count <= api.limits.maximumPrompts else {
            throw .badRequest(
                "At most \(api.limits.maximumPrompts) conversations are allowed in one request, "
                    + "got \(conversations.count).", param: "messages")
        }
        return conversations
    }
}
