import JSONBytes

/// Brings OpenAI messages into the form that chat templates are written for, as vLLM's Python server does.
enum MessageNormalization {
    static func normalize(_ message: JSONValue, format: ChatTemplate.ContentFormat) throws(ChatError) -> JSONValue {
        guard var object = message.objectValue else { throw ChatError("every message must be an object") }
        let role = object["role"]?.stringValue ?? ""
        object["content"] = try content(object["content"], role: role, format: format)
        if let calls = object["tool_calls"]?.arrayValue, !calls.isEmpty {
            var parsed: [JSONValue] = []
            for call in calls { parsed.append(try toolCall(call)) }
            object["tool_calls"] = .array(parsed)
        } else {
            object["tool_calls"] = nil
        }
        // Both spellings are in use; templates read either.
        if let reasoning = [object["reasoning"], object["reasoning_content"]].compactMap({ $0 }).first(where: {
            !$0.isNull
        }) {
            object["reasoning"] = reasoning
            object["reasoning_content"] = reasoning
        }
        return .object(object)
    }

    private static func content(
        _ content: JSONValue?, role: String, format: ChatTemplate.ContentFormat
    ) throws(ChatError) -> JSONValue {
        switch content {
        case nil, .null: return format == .openai ? .array([]) : .string("")
        case .string(let text):
            guard format == .openai else { return .string(text) }
            return .array([part(text)])
        case .array(let parts):
            var texts: [String] = []
            for element in parts { texts.append(try text(ofPart: element)) }
            return format == .openai ? .array(texts.map(part)) : .string(texts.joined(separator: "\n"))
        default: throw ChatError("message content must be a string, a list of parts or null")
        }
    }

    private static func part(_ text: String) -> JSONValue {
        .object(JSONObject([("type", .string("text")), ("text", .string(text))]))
    }

    private static func text(ofPart part: JSONValue) throws(ChatError) -> String {
        if let text = part.stringValue { return text }
        guard let object = part.objectValue else { throw ChatError("a content part must be an object") }
        let type = object["type"]?.stringValue
        switch type {
        case "text", "input_text", "output_text", "refusal", "thinking", nil:
            let key = type == "refusal" ? "refusal" : type == "thinking" ? "thinking" : "text"
            guard let text = object[key]?.stringValue else {
                throw ChatError("a content part of type '\(type ?? "text")' needs '\(key)'")
            }
            return text
        default:
            throw ChatError("This model is not a multimodal model: content of type '\(type ?? "")' is not supported")
        }
    }

    /// Templates want the arguments as an object, clients send them as JSON text.
    private static func toolCall(_ call: JSONValue) throws(ChatError) -> JSONValue {
        guard var object = call.objectValue, var function = object["function"]?.objectValue else {
            throw ChatError("every tool call must be an object with 'function'")
        }
        switch function["arguments"] {
        case .string(let text):
            if text.utf8.isEmpty {
                function["arguments"] = .object(JSONObject())
            } else if let parsed = try? JSONValue.parse(text) {
                function["arguments"] = parsed
            } else {
                throw ChatError("the arguments of a tool call are not valid JSON")
            }
        case nil, .null: function["arguments"] = .object(JSONObject())
        default: break
        }
        object["function"] = .object(function)
        return .object(object)
    }

    /// The plain text of a content value; nil when it has none.
    static func text(of content: JSONValue?) -> String? {
        switch content {
        case .string(let text): return text
        case .array(let parts): return parts.compactMap { $0["text"]?.stringValue }.joined(separator: "\n")
        default: return nil
        }
    }
}
