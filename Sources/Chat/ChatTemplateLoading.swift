import Glibc
import JSONBytes

extension ChatTemplate {
    /// Finds the chat template of a model folder, or takes the operator's own.
    ///
    /// Order: `override` (a path to a file, or the template itself), `chat_template.jinja`, `chat_template.json`,
    /// `chat_template` of `tokenizer_config.json` (text, or a list of named templates of which `default` is taken).
    /// - Returns: nil when the model has none; chat requests are refused then.
    package static func load(
        folder: String, override: String?, contentFormat: ContentFormat?
    ) throws(ChatError) -> ChatTemplate? {
        let config = try json(folder + "/tokenizer_config.json")
        let source: String?
        if let override {
            source = try text(override) ?? inline(override)
            if source == nil { throw ChatError("--chat-template: \(override) is neither a file nor a template") }
        } else if let file = try text(folder + "/chat_template.jinja") {
            source = file
        } else {
            source =
                named(try json(folder + "/chat_template.json")?["chat_template"]) ?? named(config?["chat_template"])
        }
        guard let source else { return nil }
        return try ChatTemplate(source: source, contentFormat: contentFormat, specialTokens: specialTokens(config))
    }

    private static func inline(_ text: String) -> String? {
        text.contains("{{") || text.contains("{%") ? text : nil
    }

    private static func named(_ value: JSONValue?) -> String? {
        switch value {
        case .string(let text): return text
        case .array(let entries):
            let preferred = entries.first { $0["name"]?.stringValue == "default" } ?? entries.first
            return preferred?["template"]?.stringValue
        default: return nil
        }
    }

    private static func specialTokens(_ config: JSONValue?) -> [(name: String, value: JSONValue)] {
        let names = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
        return names.compactMap { name in
            guard let entry = config?[name] else { return nil }
            guard let text = entry.stringValue ?? entry["content"]?.stringValue else { return nil }
            return (name, .string(text))
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
        let limit = 16 << 20
        guard let file = fopen(path, "re") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { break }
            bytes.append(contentsOf: chunk[..<count])
            guard bytes.count <= limit else { throw ChatError("\(path) is larger than \(limit) bytes") }
        }
        guard ferror(file) == 0 else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}
