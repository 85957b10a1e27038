import Chat
import JSONBytes

/// Server flags that decide how chat requests are read.
struct ChatSettings: Sendable {
    /// `--enable-auto-tool-choice` together with `--tool-call-parser`.
    var autoToolChoice = false
    var trustRequestChatTemplate = false
    var excludeToolsWhenToolChoiceNone = false
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
        for (index, message) in messages.enumerated() {
            guard let object = message.objectValue else {
                reader.report("messages.\(index)", "Input should be a valid dictionary")
                continue
            }
            switch object["role"] {
            case .string: break
            // The Python server tries its message types in order; the first one names the path.
            case nil: reader.report("messages.\(index).ChatCompletionDeveloperMessageParam.role", "Field required")
            default:
                reader.report(
                    "messages.\(index).ChatCompletionDeveloperMessageParam.role", "Input should be a valid string")
            }
        }
        addGenerationPrompt = reader.bool("add_generation_prompt") ?? true
        continueFinalMessage = reader.bool("continue_final_message") ?? false
        chatTemplate = reader.string("chat_template")
        chatTemplateKwargs = reader.object("chat_template_kwargs")
        documents = reader.array("documents")
        reasoningEffort = reader.string("reasoning_effort")
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
