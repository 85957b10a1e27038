import JSONBytes

/// What a chat template is rendered with (vLLM: messages and `ChatParams`).
package struct Conversation: Sendable {
    package var messages: [JSONValue]
    /// The `tools` array as the client sent it; empty when there are none.
    package var tools: [JSONValue]
    package var documents: [JSONValue]?
    package var addGenerationPrompt = true
    /// The prompt ends inside the last message, so that the model continues it.
    package var continueFinalMessage = false
    /// Further template variables; see `setVariables`.
    package var variables = JSONObject()

    package init(messages: [JSONValue], tools: [JSONValue] = []) {
        self.messages = messages
        self.tools = tools
    }

    /// Merges the sources of template variables as vLLM does.
    /// - Parameters:
    ///   - defaults: the server's `--default-chat-template-kwargs`.
    ///   - kwargs: `chat_template_kwargs` of the request. A value of null or `"auto"` leaves a default in place.
    ///   - reasoningEffort: `reasoning_effort` of the request. It also switches `enable_thinking` on, or off for
    ///     `"none"`, unless the request sets that itself.
    package mutating func setVariables(defaults: JSONObject, kwargs: JSONObject?, reasoningEffort: String?) {
        variables = defaults
        for (name, value) in kwargs?.pairs ?? [] {
            if !defaults.isEmpty, value.isNull || value == .string("auto") { continue }
            variables[name] = value
        }
        guard let reasoningEffort else { return }
        variables["reasoning_effort"] = .string(reasoningEffort)
        if kwargs?["enable_thinking"] == nil { variables["enable_thinking"] = .bool(reasoningEffort != "none") }
    }
}
