import Chat
import Foundation
import JSONBytes
import Jinja
import Testing

@Suite struct ChatTemplateTests {
    private static func conversation(_ body: JSONValue) throws -> Conversation {
        var conversation = Conversation(
            messages: try #require(body["messages"]?.arrayValue), tools: body["tools"]?.arrayValue ?? [])
        conversation.documents = body["documents"]?.arrayValue
        conversation.addGenerationPrompt = body["add_generation_prompt"]?.boolValue ?? true
        conversation.setVariables(
            defaults: body["default_kwargs"]?.objectValue ?? JSONObject(),
            kwargs: body["chat_template_kwargs"]?.objectValue, reasoningEffort: body["reasoning_effort"]?.stringValue)
        return conversation
    }

    /// Templates that print everything they are given, rendered by vLLM's Python code.
    @Test func templatesSeeWhatVLLMShowsThem() throws {
        let cases = try Fixture.cases("rendering.json")
        #expect(cases.count == 100)
        for one in cases {
            let body = try #require(one["body"])
            let template = try ChatTemplate(source: try #require(one["template"]?.stringValue))
            var prompt: String?
            do throws(ChatError) { prompt = try template.render(try! Self.conversation(body)) } catch {}
            #expect(prompt == one["prompt"]?.stringValue, "\(body.serialized())")
        }
    }

    @Test func finalMessagesContinueAsInTransformers() throws {
        for one in try Fixture.cases("continued.json") {
            var conversation = Conversation(messages: try #require(one["messages"]?.arrayValue))
            conversation.addGenerationPrompt = false
            conversation.continueFinalMessage = true
            let template = try ChatTemplate(source: try #require(one["template"]?.stringValue))
            let prompt = try? template.render(conversation)
            #expect(prompt == one["prompt"]?.stringValue, "\(one.serialized())")
        }
    }

    @Test func contentFormatIsDetectedAsInVLLM() throws {
        for one in try Fixture.cases("detection.json") {
            let template = try ChatTemplate(source: try #require(one["template"]?.stringValue))
            #expect(template.contentFormat.rawValue == one["format"]?.stringValue, "\(one.serialized())")
        }
        let forced = try ChatTemplate(source: "{{ messages }}", contentFormat: .openai)
        #expect(forced.contentFormat == .openai)
    }

    @Test(arguments: ["image_url", "input_audio", "video_url", "file"])
    func mediaIsRefused(type: String) throws {
        let part = JSONValue.object(JSONObject([("type", .string(type)), (type, .object(JSONObject()))]))
        let message = JSONValue.object(JSONObject([("role", .string("user")), ("content", .array([part]))]))
        let template = try ChatTemplate(source: "{{ messages }}")
        let error = #expect(throws: ChatError.self) { try template.render(Conversation(messages: [message])) }
        #expect(error?.description.contains("text only") == true)
    }

    @Test func templatesThatKnowDeveloperKeepTheRole() throws {
        let template = try ChatTemplate(
            source: "{% for m in messages %}{{ m.role }}{% if m.role == 'developer' %}!{% endif %} {% endfor %}")
        let messages = try JSONValue.parse(#"[{"role":"user","content":"u"},{"role":"developer","content":"d"}]"#)
        #expect(try template.render(Conversation(messages: messages.arrayValue ?? [])) == "user developer! ")
    }

    @Test func errorsOfTheTemplateReachTheClient() throws {
        let message = try JSONValue.parse(#"{"role":"critic","content":"x"}"#)
        let raising = try ChatTemplate(source: "{{ raise_exception('roles must alternate') }}")
        #expect(throws: ChatError("roles must alternate")) { try raising.render(Conversation(messages: [message])) }
        let endless = try ChatTemplate(
            source: "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}")
        #expect(throws: ChatError.self) { try endless.render(Conversation(messages: [message])) }
        let error = #expect(throws: ChatError.self) { try ChatTemplate(source: "\n{% if %}") }
        #expect(error?.description.contains("line 2") == true)
    }

    // MARK: Model folders

    private func folder(_ files: [String: String]) throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("chat-\(UUID().uuidString)")
        for (name, text) in files {
            let file = path.appendingPathComponent(name)
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: file, atomically: true, encoding: .utf8)
        }
        try FileManager.default.createDirectory(at: path, withIntermediateDirectories: true)
        return path.path
    }

    private func rendered(
        _ files: [String: String], override: String? = nil, tools: [JSONValue] = []
    ) throws -> String? {
        let path = try folder(files)
        defer { try? FileManager.default.removeItem(atPath: path) }
        let template = try ChatTemplate.load(folder: path, override: override, contentFormat: nil)
        return try template?.render(Conversation(messages: [], tools: tools))
    }

    private let tool = JSONValue.object(
        JSONObject([("type", .string("function")), ("function", .object(JSONObject([("name", .string("f"))])))]))

    @Test func templatesAreFoundInTheirPlaces() throws {
        let config =
            #"{"chat_template": "config {{ bos_token }}{{ eos_token }}", "bos_token": "<s>", "eos_token": {"content": "</s>"}}"#
        #expect(try rendered([:]) == nil)
        #expect(try rendered(["tokenizer_config.json": "{}"]) == nil)
        #expect(try rendered(["tokenizer_config.json": config]) == "config <s></s>")
        #expect(
            try rendered([
                "tokenizer_config.json": config, "chat_template.json": #"{"chat_template": "json {{ bos_token }}"}"#,
            ])
                == "json <s>")
        #expect(
            try rendered([
                "tokenizer_config.json": config, "chat_template.json": #"{"chat_template": "json"}"#,
                "chat_template.jinja": "file {{ eos_token }}",
            ]) == "file </s>")
        #expect(
            try rendered([
                "chat_template.jinja": "{{ pad_token }}", "special_tokens_map.json": #"{"pad_token": "<p>"}"#,
            ])
                == "<p>")
    }

    @Test func namedTemplatesServeRequestsWithTools() throws {
        let config =
            #"{"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]}"#
        #expect(try rendered(["tokenizer_config.json": config]) == "D")
        #expect(try rendered(["tokenizer_config.json": config], tools: [tool]) == "T")
        let files = ["chat_template.jinja": "D", "additional_chat_templates/tool_use.jinja": "T"]
        #expect(try rendered(files) == "D")
        #expect(try rendered(files, tools: [tool]) == "T")
        let odd = #"{"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]}"#
        #expect(throws: ChatError.self) { try rendered(["tokenizer_config.json": odd]) }
    }

    @Test func overridesArePathsOrTemplates() throws {
        let path = try folder(["mine.jinja": "mine {{ bos_token }}"])
        defer { try? FileManager.default.removeItem(atPath: path) }
        let files = ["tokenizer_config.json": #"{"bos_token": "<s>", "chat_template": "config"}"#]
        #expect(try rendered(files, override: path + "/mine.jinja") == "mine <s>")
        #expect(try rendered(files, override: "inline {{ bos_token }}") == "inline <s>")
        #expect(throws: ChatError.self) { try rendered(files, override: path + "/missing.jinja") }
    }

    @Test func brokenFilesAreNamed() throws {
        let error = #expect(throws: ChatError.self) { try rendered(["tokenizer_config.json": "{"]) }
        #expect(error?.description.contains("tokenizer_config.json") == true)
    }
}
