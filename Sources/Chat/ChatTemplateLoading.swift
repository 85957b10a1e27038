import Glibc
import JSONBytes

extension ChatTemplate {
    /// Finds the chat template of a model folder, or takes the operator's own.
    ///
    /// Order: `override` (a path to a file, or the template itself), `chat_template.jinja` (with
    /// `additional_chat_templates/tool_use.jinja` for requests with tools), `chat_template.json`, `chat_template` of
    /// `tokenizer_config.json`: one text, or a list of named templates of which `default` and `tool_use` are taken.
    /// - Returns: nil when the model has none; chat requests are refused then.
    package static func load(
        folder: String, override: String?, contentFormat: ContentFormat?
    ) throws(ChatError) -> ChatTemplate? {
        let config = try json(folder + "/tokenizer_config.json")
        var sources: (standard: String, toolUse: String?)?
        if let override {
            if let file = try text(override) {
                sources = (file, nil)
            } else if override.utf8.contains(where: { $0 == 0x7B || $0 == 0x7D || $0 == 0x0A }) {
                sources = (override, nil)
            } else {
                throw ChatError("--chat-template: '\(override)' looks like a path, but no such file can be read")
            }
        } else if let file = try text(folder + "/chat_template.jinja") {
            sources = (file, try text(folder + "/additional_chat_templates/tool_use.jinja"))
        } else if let value = try json(folder + "/chat_template.json")?["chat_template"], !value.isNull {
            sources = try named(value)
        } else if let value = config?["chat_template"], !value.isNull {
            sources = try named(value)
        }
        guard let sources else { return nil }
        return try ChatTemplate(
            source: sources.standard, toolUseSource: sources.toolUse, contentFormat: contentFormat,
            specialTokens: specialTokens(config, try json(folder + "/special_tokens_map.json")))
    }

    private static func named(_ value: JSONValue) throws(ChatError) -> (standard: String, toolUse: String?) {
        if let text = value.stringValue { return (text, nil) }
        var templates: [String: String] = [:]
        for entry in value.arrayValue ?? [] {
            if let name = entry["name"]?.stringValue { templates[name] = entry["template"]?.stringValue }
        }
        for (name, template) in value.objectValue?.pairs ?? [] { templates[name] = template.stringValue }
        guard let standard = templates["default"] ?? (templates.count == 1 ? templates.first?.value : nil) else {
            let names = templates.keys.sorted().joined(separator: ", ")
            throw ChatError("the model has several chat templates (\(names)) but none named 'default'")
        }
        return (standard, templates["tool_use"])
    }

    private static func specialTokens(
        _ config: JSONValue?, _ map: JSONValue?
    ) -> [(name: String, value: JSONValue)] {
        let names = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
        return names.compactMap { name in
            for source in [config, map] {
                guard let entry = source?[name] else { continue }
                if let text = entry.stringValue ?? entry["content"]?.stringValue { return (name, .string(text)) }
            }
            return nil
        }
    }

    private static func json(_ path: String) throws(ChatError) -> JSONValue? {
        guard let text = try text(path) else { return nil }
        do {
            return try JSONValue.parse(text)
        } catch {
            throw ChatError("\(path): \(error.message) at byte \(error.offset)")
        }
    }

    /// A whole file; nil when there is none.
    private static func text(_ path: String) throws(ChatError) -> String? {
        let limit = 64 << 20
        guard !path.utf8.contains(0), let file = fopen(path, "re") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { break }
            bytes.append(contentsOf: chunk[..<count])
            guard bytes.count <= limit else { throw ChatError("\(path) is larger than \(limit) bytes") }
        }
        // A folder can be opened but not read.
        guard ferror(file) == 0 else { return nil }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw ChatError("\(path) is not UTF-8") }
        return text
    }
}
