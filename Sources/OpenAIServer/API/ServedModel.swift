import Chat
import Glibc
import JSONBytes
import Text
import Tokenization

/// The model as the API shows it: its names, its tokenizer and template, and the defaults of its generation_config.json.
struct ServedModel: Sendable {
    /// The first name is the one that answers carry.
    let names: [String]
    /// `root` of the model card: the path or name the server was started with.
    let root: String
    let text: TextModel
    /// nil when the model has none: chat requests are refused.
    let chatTemplate: ChatTemplate?
    let parsers: ParserSelection
    /// Sampling defaults of the model, with what the operator has replaced.
    let generationDefaults: GenerationDefaults
    private let defaultTemplateVariables: JSONObject

    /// Loads everything but the weights.
    /// - Throws: an error whose description names the file or option that is wrong.
    init(configuration: ServerConfiguration) throws {
        names = configuration.servedModelNames
        root = configuration.modelTag
        let folder = configuration.tokenizer ?? configuration.modelTag
        let source: TextModel.GenerationConfigSource =
            switch configuration.generationConfig {
            case "auto": .model
            case "vllm": .neutral
            default: .folder(configuration.generationConfig)
            }
        text = try TextModel.load(
            folder: folder, configFolder: configuration.hfConfigPath ?? Self.configFolder(root, tokenizer: folder),
            configPatch: configuration.hfOverrides, generationConfig: source)
        var defaults = text.generationDefaults
        if let override = configuration.overrideGenerationConfig { try defaults.override(with: override) }
        generationDefaults = defaults
        var format: ChatTemplate.ContentFormat?
        if configuration.chatTemplateContentFormat != "auto" {
            format = ChatTemplate.ContentFormat(rawValue: configuration.chatTemplateContentFormat)
            if format == nil {
                throw ChatError("chat_template_content_format must be auto, string or openai")
            }
        }
        chatTemplate = try ChatTemplate.load(
            folder: folder, override: configuration.chatTemplate, contentFormat: format)
        parsers = try ParserSelection(
            toolParser: configuration.toolCallParser, reasoningParser: configuration.reasoningParser)
        defaultTemplateVariables = configuration.defaultChatTemplateKwargs ?? JSONObject()
    }

    /// The model's folder, unless only its tokenizer is on this machine.
    private static func configFolder(_ root: String, tokenizer folder: String) -> String? {
        folder != root && access(root + "/config.json", R_OK) == 0 ? root : nil
    }

    var tokenizer: Tokenizer { text.tokenizer }
    var vocabularySize: Int { text.tokenizer.vocabularySize }
    var eosTokenID: Int32? { text.eosTokenID }
    /// End tokens of generation_config.json beyond the first; engines get them as stop token ids.
    var extraEOSTokenIDs: [Int32] { text.extraEOSTokenIDs }

    /// The text of one token as logprobs show it; "" for an incomplete character or an id outside the vocabulary.
    func tokenText(_ id: Int32) -> String { text.tokenText(id) }

    /// The text of one token behind `context`: the token that completes a character shows all of it.
    func tokenText(_ id: Int32, after context: ArraySlice<Int32>) -> String {
        context.isEmpty ? text.tokenText(id) : text.tokenText(id, after: context)
    }

    /// Token ids of a text; stops soon after `limit` tokens.
    func encode(_ text: String, addSpecialTokens: Bool, stoppingAfter limit: Int = .max) throws(APIError) -> [Int32] {
        do {
            return try tokenizer.encode(text, addSpecialTokens: addSpecialTokens, stoppingAfter: limit)
        } catch {
            throw .badRequest("The text cannot be tokenized: \(error.description)")
        }
    }

    func badWordsTokenIDs(_ words: [String]) throws(APIError) -> [[Int32]] {
        do {
            return try text.badWordsTokenIDs(words)
        } catch {
            throw .badRequest(error.description, param: "bad_words")
        }
    }

    /// The prompt text of a chat request.
    func render(_ rendering: ChatRendering) throws(APIError) -> String {
        guard let chatTemplate else {
            throw .badRequest(
                "This model has no chat template. Start the server with --chat-template to use chat completions.")
        }
        var conversation = Conversation(
            messages: rendering.messages, tools: rendering.tools.map { .object($0.definition) })
        conversation.documents = rendering.documents
        conversation.addGenerationPrompt = rendering.addGenerationPrompt
        conversation.continueFinalMessage = rendering.continueFinalMessage
        conversation.variables = variables(rendering)
        do throws(ChatError) {
            let template = try rendering.chatTemplate.map { source throws(ChatError) in
                try chatTemplate.replacing(source: source)
            }
            return try (template ?? chatTemplate).render(conversation)
        } catch {
            throw .badRequest(error.description)
        }
    }

    private func variables(_ rendering: ChatRendering) -> JSONObject {
        var conversation = Conversation(messages: [])
        conversation.setVariables(
            defaults: defaultTemplateVariables, kwargs: rendering.chatTemplateKwargs,
            reasoningEffort: rendering.reasoningEffort)
        return conversation.variables
    }

    /// Whether the request lets the model think (`enable_thinking` of the template; on unless switched off).
    func isThinking(_ rendering: ChatRendering) -> Bool {
        variables(rendering)["enable_thinking"]?.boolValue ?? true
    }

    func outputProcessor(_ sampling: SamplingFields, stop: StopStrings, prompt: PreparedPrompt) -> OutputProcessor {
        var options = OutputProcessor.Options()
        options.stop = stop
        options.includesStop = sampling.includeStopString
        options.minTokens = sampling.minTokens
        options.skipsSpecialTokens = sampling.skipSpecialTokens
        return OutputProcessor(text, prompt: prompt.tokenIDs, options: options)
    }
}
