import JSONBytes
import Jinja

/// Brings OpenAI messages into the form that chat templates are written for, as vLLM's Python server does: only known
/// fields, in a fixed order.
enum MessageNormalization {
    static func normalize(
        _ message: JSONValue, format: ChatTemplate.ContentFormat
    ) throws(ChatError) -> JSONObject {
        guard let message = message.objectValue else { throw ChatError("every message must be an object") }
        guard let role = message["role"]?.stringValue else { throw ChatError("every message needs a 'role'") }
        var result = JSONObject()
        result["role"] = .string(role)
        // Results of tools are joined even for templates that want parts: few of them expect a list there.
        let isJoined = format == .string || role == "tool"
        result["content"] = try content(message["content"], role: role, isJoined: isJoined)
        switch role {
        case "assistant":
            if let calls = message["tool_calls"], !calls.isNull { try addToolCalls(calls, to: &result) }
            // Both spellings are in use by templates.
            let given = [message["reasoning"], message["reasoning_content"]].compactMap { $0 }
            if let reasoning = given.first(where: { !$0.isNull }) {
                guard reasoning.stringValue != nil else { throw ChatError("'reasoning' of a message must be a string") }
                result["reasoning"] = reasoning
                result["reasoning_content"] = reasoning
            }
        case "tool": if let id = message["tool_call_id"] { result["tool_call_id"] = id }
        default: break
        }
        if let name = message["name"], name.stringValue != nil { result["name"] = name }
        if role == "developer" { result["tools"] = message["tools"] ?? .null }
        return result
    }

    // MARK: Content

    private static func content(
        _ content: JSONValue?, role: String, isJoined: Bool
    ) throws(ChatError) -> JSONValue {
        var parts: [JSONValue] = []
        switch content {
        case nil: break
        case .null where role == "assistant": break
        case .string(let text): parts = [part(text)]
        case .array(let given): for element in given { parts.append(try normalizedPart(element)) }
        default: throw ChatError("the 'content' of a message must be a string or a list of parts")
        }
        if role == "system" { parts = parts.compactMap(withoutBillingHeader) }
        guard isJoined else { return .array(parts) }
        return .string(parts.compactMap { $0["text"]?.stringValue }.joined(separator: "\n"))
    }

    private static func part(_ text: String) -> JSONValue {
        .object(JSONObject([("type", .string("text")), ("text", .string(text))]))
    }

    private static let mediaTypes: Set<String> = [
        "image_url", "image_embeds", "image_pil", "audio_url", "input_audio", "audio_embeds", "video_url",
        "video_embeds", "input_image", "file",
    ]

    private static func normalizedPart(_ element: JSONValue) throws(ChatError) -> JSONValue {
        if let text = element.stringValue { return part(text) }
        guard let object = element.objectValue else { throw ChatError("a content part must be an object or a string") }
        guard let type = object["type"]?.stringValue else { throw ChatError("a content part needs a 'type'") }
        if mediaTypes.contains(type) {
            throw ChatError("this model takes text only; a content part of type '\(type)' is not supported")
        }
        guard ["text", "refusal", "thinking"].contains(type) else {
            throw ChatError("unsupported content part type '\(type.prefix(100))' (supported: text, refusal, thinking)")
        }
        guard let text = object[type]?.stringValue else {
            throw ChatError("a content part of type '\(type)' needs '\(type)' with a string")
        }
        guard type == "text", object.count > 2 else { return part(text) }
        // Fields that vLLM does not know reach templates that list parts.
        var result = JSONObject([("type", .string("text")), ("text", .string(text))])
        for (name, value) in object.pairs where name != "type" && name != "text" { result[name] = value }
        return .object(result)
    }

    /// Some coding clients put a line in front of the system prompt that changes with every request; without it the
    /// prefix cache keeps working.
    private static func withoutBillingHeader(_ part: JSONValue) -> JSONValue? {
        guard var object = part.objectValue, let text = object["text"]?.stringValue,
            text.utf8.starts(with: "x-anthropic-billing-header".utf8)
        else { return part }
        guard let lineEnd = text.utf8.firstIndex(of: 0x0A) else { return nil }
        let rest = String(text[text.utf8.index(after: lineEnd)...])
        if rest.isEmpty { return nil }
        object["text"] = .string(rest)
        return .object(object)
    }

    // MARK: Tool calls

    private static func addToolCalls(_ calls: JSONValue, to result: inout JSONObject) throws(ChatError) {
        guard let calls = calls.arrayValue else { throw ChatError("'tool_calls' of a message must be a list") }
        // Templates take an empty list for a message that calls tools.
        if calls.isEmpty { return }
        var normalized: [JSONValue] = []
        for call in calls {
            guard let call = call.objectValue, let function = call["function"]?.objectValue,
                call["type"].map({ $0 == .string("function") }) ?? true
            else { throw ChatError("every entry of 'tool_calls' must be an object of type 'function'") }
            guard let name = function["name"]?.stringValue else {
                throw ChatError("the function of every tool call needs a 'name'")
            }
            let target = JSONObject([("arguments", try arguments(function["arguments"])), ("name", .string(name))])
            var object = JSONObject()
            if let id = call["id"] { object["id"] = id }
            object["function"] = .object(target)
            object["type"] = .string("function")
            normalized.append(.object(object))
        }
        result["tool_calls"] = .array(normalized)
    }

    /// Templates want the arguments as an object, clients send them as JSON text. What does not parse to an object
    /// becomes an empty one: it sits in the history, where refusing it would end the conversation for good.
    private static func arguments(_ value: JSONValue?) throws(ChatError) -> JSONValue {
        switch value {
        case nil, .null: return .object(JSONObject())
        case .object: return value ?? .null
        case .string(let text):
            guard let parsed = try? JSONValue.parse(text), parsed.objectValue != nil else {
                return .object(JSONObject())
            }
            return parsed
        default: throw ChatError("the 'arguments' of a tool call must be a string of JSON")
        }
    }

    // MARK: Developer messages

    /// For templates that do not know the role `developer`: its messages become system messages, and all system
    /// messages one at the front.
    static func withoutDeveloper(_ messages: [JSONObject]) -> [JSONObject] {
        guard messages.contains(where: { $0["role"] == .string("developer") }) else { return messages }
        var systemTexts: [String] = []
        var systemCount = 0
        var others: [JSONObject] = []
        var converted: [JSONObject] = []
        var isInOrder = true
        for (index, message) in messages.enumerated() {
            guard ["system", "developer"].contains(message["role"]?.stringValue ?? "") else {
                others.append(message)
                converted.append(message)
                continue
            }
            var system = message
            system["role"] = .string("system")
            system["tools"] = nil
            converted.append(system)
            if index > 0 { isInOrder = false }
            systemCount += 1
            let text = plainText(message["content"])
            if !text.isEmpty { systemTexts.append(text) }
        }
        if isInOrder, systemCount == 1 { return converted }
        let merged = JSONObject([
            ("role", .string("system")), ("content", .string(systemTexts.joined(separator: "\n\n"))),
        ])
        return [merged] + others
    }

    private static func plainText(_ content: JSONValue?) -> String {
        switch content {
        case .string(let text): text
        case .array(let parts): parts.compactMap { $0["text"]?.stringValue }.joined(separator: "\n")
        default: ""
        }
    }
}

/// Tools as vLLM hands them to templates: known fields in a fixed order, missing ones as null.
enum ToolNormalization {
    static func normalize(_ tool: JSONValue) throws(ChatError) -> JSONValue {
        guard let function = tool["function"]?.objectValue, let name = function["name"], name.stringValue != nil else {
            throw ChatError("every tool needs a 'function' with a 'name'")
        }
        var normalized = JSONObject([
            ("name", name), ("description", function["description"] ?? .null),
            ("parameters", function["parameters"] ?? .null),
        ])
        if let strict = function["strict"] { normalized["strict"] = strict }
        return .object(
            JSONObject([("type", tool["type"] ?? .string("function")), ("function", .object(normalized))]))
    }
}

/// Whether `text` contains `part`, byte by byte; linear in both.
func contains(_ text: String, _ part: String) -> Bool {
    let search = ByteSearch(part)
    var text = text
    return text.withUTF8 { search.first(in: $0) != nil }
}
