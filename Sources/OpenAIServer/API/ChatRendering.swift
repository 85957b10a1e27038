import Chat
import JSONBytes

/// Server flags that decide how chat requests are read.
struct ChatSettings: Sendable {
    /// `--enable-auto-tool-choice` together with `--tool-call-parser`.
    var autoToolChoice = false
    var trustRequestChatTemplate = false
    var excludeToolsWhenToolChoiceNone = false
    var toolStrictLevel = ToolStrictLevel.auto
    /// `--response-role`.
    var responseRole = "assistant"
    var returnTokensAsTokenIDs = false
}

/// The fields that decide what the chat template sees; `/v1/chat/completions` and `/tokenize` share them.
struct ChatRendering {
    var messages: [JSONValue]
    var tools: [ToolDefinition] = []
    var addGenerationPrompt: Bool
    var continueFinalMessage: Bool
    var chatTemplate: String?
    var chatTemplateKwargs: JSONObject?
    var documents: [JSONValue]?
    var reasoningEffort: String?

    init(_ reader: inout FieldReader) {
        messages = []
        if let elements = reader.array("messages") {
            messages = elements
        } else if reader.object["messages"] == nil {
            reader.report("messages", "Field required")
        }
        for (index, message) in messages.enumerated() { Self.check(message, "messages.\(index)", &reader) }
        addGenerationPrompt = reader.bool("add_generation_prompt") ?? true
        continueFinalMessage = reader.bool("continue_final_message") ?? false
        chatTemplate = reader.string("chat_template")
        chatTemplateKwargs = reader.object("chat_template_kwargs")
        documents = reader.array("documents")
        for (index, document) in (documents ?? []).enumerated() {
            guard let object = document.objectValue else {
                reader.report("documents.\(index)", "Input should be a valid dictionary")
                continue
            }
            for (key, value) in object.pairs where value.stringValue == nil {
                reader.report("documents.\(index).\(key.prefix(64))", "Input should be a valid string")
            }
        }
        reasoningEffort = reader.string("reasoning_effort")
        if let reasoningEffort, !Self.reasoningEfforts.contains(reasoningEffort) {
            reader.report("reasoning_effort", "Input should be one of \(Self.reasoningEfforts.joined(separator: ", "))")
        }
    }

    private static let reasoningEfforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]

    /// The types of a message's own fields. The Python server tries its kinds of messages in order, and the first one,
    /// the developer's, names the path.
    private static func check(_ message: JSONValue, _ path: String, _ reader: inout FieldReader) {
        let variant = path + ".ChatCompletionDeveloperMessageParam"
        guard let object = message.objectValue else {
            reader.report(variant, "Input should be a valid dictionary")
            return
        }
        let content = object["content"]
        switch object["role"] {
        case .string: break
        case nil where content == nil:
            reader.report(variant + ".content", "Field required")
            reader.report(variant + ".role", "Field required")
        case nil: reader.report(variant + ".role", "Field required")
        default: reader.report(variant + ".role", "Input should be a valid string")
        }
        switch content {
        case nil, .string: break
        case .array(let parts):
            if parts.contains(where: { $0.objectValue == nil }) {
                reader.reportRule(.badRequest("Every part of a message's `content` must be an object."))
            }
        case .null where object["role"]?.stringValue == "assistant": break
        default: reader.report(variant + ".content", "Input should be a valid string or a list of parts")
        }
        if let name = object["name"], !name.isNull, name.stringValue == nil {
            reader.report(variant + ".role", "Input should be 'developer', or `name` a valid string")
        }
        if object["role"]?.stringValue == "assistant" {
            let kind = "ChatCompletionMessageFunctionToolCallParam"
            if case .string? = object["tool_calls"] { reader.report("0.\(kind)", "Input should be a valid list") }
            for (index, call) in (object["tool_calls"]?.arrayValue ?? []).enumerated() {
                check(call: call, "\(index).\(kind)", &reader)
            }
        }
    }

    /// A call that the model made before. The Python server names it by its place in its message alone.
    private static func check(call: JSONValue, _ path: String, _ reader: inout FieldReader) {
        guard let object = call.objectValue else { return reader.report(path, "Input should be a valid dictionary") }
        if object["id"]?.stringValue == nil { reader.report(path + ".id", "Input should be a valid string") }
        if object["function"]?["name"]?.stringValue == nil || object["function"]?["arguments"]?.stringValue == nil {
            reader.report(path + ".function", "`name` and `arguments` should be valid strings")
        }
    }

    func check(_ settings: ChatSettings) throws(APIError) {
        if continueFinalMessage, addGenerationPrompt {
            throw .badRequest("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        }
        if chatTemplate != nil || chatTemplateKwargs?["chat_template"] != nil, !settings.trustRequestChatTemplate {
            throw .badRequest(
                "Chat template is passed with request, but --trust-request-chat-template is not set. "
                    + "Refused request with untrusted chat template.")
        }
        if messages.isEmpty {
            throw .badRequest(
                "Cannot apply chat template to an empty conversation. Provide at least one message.")
        }
    }

    /// The text of the last message when it is the assistant's, for `echo`.
    var lastAssistantText: String? {
        guard let last = messages.last?.objectValue, last["role"]?.stringValue == "assistant" else { return nil }
        return last["content"]?.stringValue
    }
}
