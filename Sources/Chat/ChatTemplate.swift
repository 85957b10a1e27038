import JSONBytes
import Jinja

/// A compiled chat template with the special tokens it may print.
package struct ChatTemplate: Sendable {
    /// What templates expect of `content` (vLLM: `--chat-template-content-format`).
    package enum ContentFormat: String, Sendable {
        /// Text parts joined to one string.
        case string
        /// A list of parts with `type`.
        case openai
    }

    private struct Compiled: Sendable {
        let source: String
        let template: Template
        let format: ContentFormat
        /// The template knows the role `developer`; otherwise such messages become system messages.
        let knowsDeveloper: Bool
        let mentionsContent: Bool

        init(_ source: String, format: ContentFormat?) throws(ChatError) {
            do {
                template = try Template(source)
            } catch {
                throw ChatError("the chat template cannot be used: \(error)")
            }
            self.source = source
            self.format = format ?? ContentFormatDetection.detect(template)
            knowsDeveloper = contains(source, "\"developer\"") || contains(source, "'developer'")
            mentionsContent = contains(source, "content")
        }
    }

    private let standard: Compiled
    /// The template named `tool_use`, when the model has one.
    private let forTools: Compiled?
    private let specialTokens: [(name: String, value: JSONValue)]

    package var contentFormat: ContentFormat { standard.format }

    /// The template's text (the one for requests without tools, if there are two).
    package var source: String { standard.source }

    /// - Parameters:
    ///   - toolUseSource: a second template for requests with tools.
    ///   - contentFormat: nil = find out from the template, as vLLM's `auto`.
    package init(
        source: String, toolUseSource: String? = nil, contentFormat: ContentFormat? = nil,
        specialTokens: [(name: String, value: JSONValue)] = []
    ) throws(ChatError) {
        standard = try Compiled(source, format: contentFormat)
        forTools = try toolUseSource.map { source throws(ChatError) in try Compiled(source, format: contentFormat) }
        self.specialTokens = specialTokens
    }

    /// Another template (`chat_template` of a trusted request) with this model's special tokens.
    package func replacing(source: String) throws(ChatError) -> ChatTemplate {
        try ChatTemplate(source: source, specialTokens: specialTokens)
    }

    /// The prompt text of a conversation.
    /// - Throws: for messages that are malformed, that the template refuses or that need more work than a prompt may.
    package func render(_ conversation: Conversation) throws(ChatError) -> String {
        let compiled = conversation.tools.isEmpty ? standard : forTools ?? standard
        var messages: [JSONObject] = []
        messages.reserveCapacity(conversation.messages.count)
        for message in conversation.messages {
            messages.append(try MessageNormalization.normalize(message, format: compiled.format))
        }
        if !compiled.knowsDeveloper { messages = MessageNormalization.withoutDeveloper(messages) }
        guard conversation.continueFinalMessage else {
            return try render(messages, of: conversation, with: compiled)
        }
        guard compiled.mentionsContent else {
            throw ChatError(
                "continue_final_message is set, but the chat template does not use the content of messages.")
        }
        let text = try FinalMessage.mark(&messages)
        return try FinalMessage.cut(try render(messages, of: conversation, with: compiled), finalText: text)
    }

    private func render(
        _ messages: [JSONObject], of conversation: Conversation, with compiled: Compiled
    ) throws(ChatError) -> String {
        var tools: [JSONValue] = []
        for tool in conversation.tools { tools.append(try ToolNormalization.normalize(tool)) }
        // A later variable wins over an earlier one of the same name.
        var variables = specialTokens
        for (name, value) in conversation.variables.pairs { variables.append((name, value)) }
        if let documents = conversation.documents {
            variables.append(("documents", .array(documents)))
        } else if conversation.variables["documents"] == nil {
            variables.append(("documents", .null))
        }
        variables.append(("messages", .array(messages.map(JSONValue.object))))
        variables.append(("tools", tools.isEmpty ? .null : .array(tools)))
        variables.append(("add_generation_prompt", .bool(conversation.addGenerationPrompt)))
        do {
            return try compiled.template.render(variables)
        } catch {
            throw ChatError(error.kind == .raised ? error.message : "the chat template failed: \(error)")
        }
    }
}

/// `continue_final_message`: a mark behind the last message shows where the prompt has to end, whatever the template
/// does to the text before it.
private enum FinalMessage {
    private static let mark = "CONTINUE_FINAL_MESSAGE_TAG"

    /// Appends the mark to the last text of the last message.
    /// - Returns: that text without the mark.
    static func mark(_ messages: inout [JSONObject]) throws(ChatError) -> String {
        let missing = ChatError("continue_final_message is set but the final message has no text to continue.")
        guard let last = messages.indices.last else { throw missing }
        switch messages[last]["content"] {
        case .string(let text):
            messages[last]["content"] = .string(text + mark + " ")
            return text
        case .array(var parts):
            guard let index = parts.lastIndex(where: { $0["text"] != nil }), var part = parts[index].objectValue,
                let text = part["text"]?.stringValue
            else { throw missing }
            part["text"] = .string(text + mark + " ")
            parts[index] = .object(part)
            messages[last]["content"] = .array(parts)
            return text
        default: throw missing
        }
    }

    static func cut(_ rendered: String, finalText: String) throws(ChatError) -> String {
        let bytes = Array(rendered.utf8)
        let mark = Array(self.mark.utf8)
        guard contains(rendered, trimmed(finalText)), let position = lastOffset(of: mark, in: bytes)
        else {
            throw ChatError(
                "continue_final_message is set but the final message does not appear in the chat after applying the "
                    + "chat template.")
        }
        let isKept = bytes.count > position + mark.count && bytes[position + mark.count] == 0x20
        let kept = String(decoding: bytes[..<position], as: UTF8.self)
        // A template that trims messages has swallowed the space behind the mark: trim as it would have.
        return isKept ? kept : trimmedRight(kept)
    }

    private static func trimmedRight(_ text: String) -> String {
        var scalars = text.unicodeScalars[...]
        while let last = scalars.last, last.properties.isWhitespace { scalars.removeLast() }
        return String(scalars)
    }

    private static func trimmed(_ text: String) -> String {
        String(trimmedRight(text).unicodeScalars.drop(while: \.properties.isWhitespace))
    }

    private static func lastOffset(of needle: [UInt8], in bytes: [UInt8]) -> Int? {
        var offset = bytes.count - needle.count
        while offset >= 0 {
            if bytes[offset] == needle[0], bytes[offset..<offset + needle.count].elementsEqual(needle) { return offset }
            offset -= 1
        }
        return nil
    }
}
