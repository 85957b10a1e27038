import Chat
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
        text = try TextModel.load(folder: folder, generationConfig: source)
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

    var tokenizer: Tokenizer { text.tokenizer }
    var vocabularySize: Int { text.tokenizer.vocabularySize }
    var eosTokenID: Int32? { text.eosTokenID }
    /// End tokens of generation_config.json beyond the first; engines get them as stop token ids.
    var extraEOSTokenIDs: [Int32] { text.extraEOSTokenIDs }
    var generationDefaults: GenerationDefaults { text.generationDefaults }

    /// The text of one token as logprobs show it; "" for an incomplete character or an id outside the vocabulary.
    func tokenText(_ id: Int32) -> String { text.tokenText(id) }

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
        guard let template = rendering.chatTemplate else {
            guard let chatTemplate else {
                throw .badRequest(
                    "This model has no chat template. Start the server with --chat-template to use chat completions.")
            }
            return try render(rendering, with: chatTemplate)
        }
        do {
            return try render(rendering, with: ChatTemplate(source: template))
        } catch let error as APIError {
            throw error
        } catch {
            throw .badRequest("\(error)", param: "chat_template")
        }
    }

    private func render(_ rendering: ChatRendering, with template: ChatTemplate) throws(APIError) -> String {
        var conversation = Conversation(
            messages: rendering.messages, tools: rendering.tools.map { .object($0.definition) })
        conversation.documents = rendering.documents
        conversation.addGenerationPrompt = rendering.addGenerationPrompt
        conversation.continueFinalMessage = rendering.continueFinalMessage
        conversation.variables = defaultTemplateVariables
        for (name, value) in rendering.chatTemplateKwargs?.pairs ?? [] { conversation.variables[name] = value }
        if let effort = rendering.reasoningEffort { conversation.variables["reasoning_effort"] = .string(effort) }
        do {
            return try template.render(conversation)
        } catch {
            throw .badRequest(error.description)
        }
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
