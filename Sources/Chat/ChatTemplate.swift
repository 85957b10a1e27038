import JSONBytes
import Jinja

/// What a chat template is rendered with.
package struct Conversation: Sendable {
    package var messages: [JSONValue]
    /// The `tools` array as the client sent it.
    package var tools: [JSONValue]
    package var documents: [JSONValue]?
    package var addGenerationPrompt = true
    package var continueFinalMessage = false
    /// `chat_template_kwargs` over the server's defaults, and `reasoning_effort`.
    package var variables = JSONObject()

    package init(messages: [JSONValue], tools: [JSONValue] = []) {
        self.messages = messages
        self.tools = tools
    }
}

/// A compiled chat template with the special tokens it may print.
package struct ChatTemplate: Sendable {
    /// What templates expect of `content` (vLLM: `--chat-template-content-format`).
    package enum ContentFormat: String, Sendable {
        /// Text parts joined to one string.
        case string
        /// A list of parts with `type`.
        case openai
    }

    package let contentFormat: ContentFormat
    private let template: Template
    private let specialTokens: [(name: String, value: JSONValue)]

    /// - Parameter contentFormat: nil = find out from the template.
    package init(
        source: String, contentFormat: ContentFormat? = nil, specialTokens: [(name: String, value: JSONValue)] = []
    ) throws(ChatError) {
        do {
            template = try Template(source)
        } catch {
            throw ChatError("the chat template cannot be used: \(error)")
        }
        self.contentFormat = contentFormat ?? ContentFormatDetection.detect(source)
        self.specialTokens = specialTokens
    }

    /// The prompt text of a conversation.
    /// - Throws: for messages that the template refuses or that need more work than a prompt may.
    package func render(_ conversation: Conversation) throws(ChatError) -> String {
        var messages: [JSONValue] = []
        messages.reserveCapacity(conversation.messages.count)
        for message in conversation.messages {
            messages.append(try MessageNormalization.normalize(message, format: contentFormat))
        }
        var variables = specialTokens
        variables.append(("messages", .array(messages)))
        variables.append(("tools", conversation.tools.isEmpty ? .null : .array(conversation.tools)))
        variables.append(("documents", conversation.documents.map(JSONValue.array) ?? .null))
        variables.append(("add_generation_prompt", .bool(conversation.addGenerationPrompt)))
        for (name, value) in conversation.variables.pairs { variables.append((name, value)) }
        let text: String
        do {
            text = try template.render(variables)
        } catch {
            throw ChatError(error.kind == .raised ? error.message : "the chat template failed: \(error)")
        }
        guard conversation.continueFinalMessage else { return text }
        return try FinalMessage.cut(text, conversation.messages)
    }
}

/// `continue_final_message`: the prompt ends right behind the text of the last message.
private enum FinalMessage {
    static func cut(_ text: String, _ messages: [JSONValue]) throws(ChatError) -> String {
        guard let content = messages.last.flatMap({ MessageNormalization.text(of: $0["content"]) }) else {
            throw ChatError("continue_final_message needs a final message with text content.")
        }
        let haystack = Array(text.utf8)
        // Templates may trim the message; what they print of it ends where its trimmed text ends.
        var trimmed = content[...]
        while let last = trimmed.last, last.isWhitespace { trimmed.removeLast() }
        while let first = trimmed.first, first.isWhitespace { trimmed.removeFirst() }
        let needle = Array(trimmed.utf8)
        guard !needle.isEmpty, haystack.count >= needle.count else {
            throw ChatError("continue_final_message: the final message does not appear in the prompt.")
        }
        var start = haystack.count - needle.count
        while start >= 0 {
            if haystack[start] == needle[0], haystack[start..<(start + needle.count)].elementsEqual(needle) {
                var end = start + needle.count
                // Keep trailing white space of the message where the template kept it.
                let rest = Array(content[trimmed.endIndex...].utf8)
                if haystack[end...].starts(with: rest) { end += rest.count }
                return String(decoding: haystack[..<end], as: UTF8.self)
            }
            start -= 1
        }
        throw ChatError("continue_final_message: the final message does not appear in the prompt.")
    }
}
