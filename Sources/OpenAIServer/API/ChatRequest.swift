import Chat
import EngineProtocol
import JSONBytes

/// Body of `POST /v1/chat/completions` (vLLM: `ChatCompletionRequest`).
struct ChatRequest {
    enum ToolChoice: Equatable {
        case none, auto, required
        case function(String)
    }

    var sampling: SamplingFields
    /// nil = the rest of the context.
    var maxTokens: Int?
    /// Which of its two names the client used.
    var maxTokensField = "max_tokens"
    /// `prompt_logprobs` of the client.
    var promptLogprobsAsked: Int?
    var logprobs: Bool
    var topLogprobs: Int
    var toolChoice: ToolChoice
    var parallelToolCalls: Bool
    var includeReasoning: Bool
    var echo: Bool
    var addSpecialTokens: Bool
    var returnPromptText: Bool
    /// Keeps calls that the model may make in form, if the engine knows grammars.
    private(set) var optionalConstraint: StructuredOutputs?
    /// What the chat template sees.
    var rendering: ChatRendering

    init(_ body: JSONObject, limits: APILimits, settings: ChatSettings) throws(APIError) {
        var reader = FieldReader(body)
        sampling = SamplingFields(&reader, limits: limits)
        let maxCompletionTokens = reader.int("max_completion_tokens", saturating: true)
        maxTokens = reader.int("max_tokens", saturating: true)
        if let maxCompletionTokens {
            maxTokens = maxCompletionTokens
            maxTokensField = "max_completion_tokens"
        }
        reader.refuseNull("echo", "add_generation_prompt", "continue_final_message", "include_reasoning")
        logprobs = reader.bool("logprobs") ?? false
        if FieldReader.isTrue(body["top_logprobs"]), !FieldReader.isTrue(body["logprobs"]),
            case .number? = body["top_logprobs"]
        {
            reader.reportRule(
                .badRequest("when using `top_logprobs`, `logprobs` must be set to true.", param: "top_logprobs"))
        }
        topLogprobs = SamplingFields.readCount("top_logprobs", &reader) ?? 0
        let topLogprobsGiven = topLogprobs != 0
        parallelToolCalls = reader.bool("parallel_tool_calls") ?? true
        includeReasoning = reader.bool("include_reasoning") ?? true
        echo = reader.bool("echo") ?? false
        returnPromptText = reader.bool("return_prompt_text") ?? false
        let beamSearch = reader.bool("use_beam_search") ?? false
        let mediaArguments = Self.mediaArguments(&reader)
        rendering = ChatRendering(&reader)
        addSpecialTokens = reader.bool("add_special_tokens") ?? false
        let (tools, toolsGiven) = Self.readTools(&reader)
        rendering.tools = tools
        toolChoice = Self.readToolChoice(&reader, hasTools: toolsGiven)
        try reader.finish()

        try StructuredOutputsFields.validate(body, isChat: true)
        if topLogprobsGiven, !logprobs {
            throw .badRequest("when using `top_logprobs`, `logprobs` must be set to true.", param: "top_logprobs")
        }
        if topLogprobs < -1 {
            throw .badRequest(
                "`top_logprobs` must be a positive value or -1.", param: "top_logprobs", value: topLogprobs)
        }
        if toolsGiven, tools.isEmpty {
            throw .badRequest("`tools` must not be an empty list. Omit it or give at least one tool.", param: "tools")
        }
        if tools.isEmpty, toolChoice != .none, toolChoice != .auto || body["tool_choice"]?.stringValue == "auto" {
            throw .badRequest("When using `tool_choice`, `tools` must be set.", param: "tool_choice")
        }
        if case .function(let name) = toolChoice, !tools.contains(where: { $0.name == name }) {
            throw .badRequest("The function `\(name)` of `tool_choice` is not among `tools`.", param: "tool_choice")
        }
        if tools.isEmpty { toolChoice = .none }
        if toolChoice == .auto, !tools.isEmpty, !settings.autoToolChoice {
            throw .badRequest(
                "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set")
        }
        if beamSearch { throw .badRequest("Beam search is not supported.", param: "use_beam_search") }
        if let mediaArguments { throw mediaArguments }
        try rendering.check(settings)
        promptLogprobsAsked = sampling.promptLogprobs
        if echo, sampling.promptLogprobs == nil, !sampling.stream { sampling.promptLogprobs = topLogprobs }
        if settings.excludeToolsWhenToolChoiceNone, toolChoice == .none { rendering.tools = [] }
        let constraint = ToolConstraint.constraint(
            for: toolChoice, tools: tools, parallelCalls: parallelToolCalls, level: settings.toolStrictLevel)
        if toolChoice == .auto {
            // Answers that are no calls keep the client's own constraint.
            if sampling.structuredOutputs == nil { optionalConstraint = constraint }
        } else if let constraint {
            sampling.structuredOutputs = constraint
        }
    }

    /// Parameters of images and sounds, which no model here has.
    static func mediaArguments(_ reader: inout FieldReader) -> APIError? {
        let fields = ["mm_processor_kwargs", "media_io_kwargs"].filter { reader.object($0)?.isEmpty == false }
        for (key, value) in reader.value("media_io_kwargs")?.objectValue?.pairs ?? [] where value.objectValue == nil {
            reader.report("media_io_kwargs.\(key.prefix(64))", "Input should be a valid dictionary")
        }
        return fields.first.map {
            .badRequest("Per-request \($0) are disabled: this server runs text-only models.", param: $0)
        }
    }

    static func readTools(_ reader: inout FieldReader) -> (tools: [ToolDefinition], given: Bool) {
        guard let elements = reader.array("tools") else { return ([], false) }
        var tools: [ToolDefinition] = []
        for (index, element) in elements.enumerated() {
            guard let object = element.objectValue else {
                reader.report("tools.\(index)", "Input should be a valid dictionary")
                continue
            }
            var nested = FieldReader(object, path: "body.tools.\(index)")
            if let type = nested.string("type"), type != "function" {
                nested.report("type", "Input should be 'function'")
            }
            if let function = nested.object("function") {
                var functionReader = FieldReader(function, path: "body.tools.\(index).function")
                let name = functionReader.string("name")
                if name == nil, functionReader.issues.isEmpty { functionReader.report("name", "Field required") }
                let parameters = functionReader.object("parameters")
                let strict = functionReader.bool("strict") ?? false
                nested.absorb(functionReader)
                if let name {
                    tools.append(
                        ToolDefinition(name: name, parameters: parameters, isStrict: strict, definition: object))
                }
            } else if nested.issues.isEmpty {
                nested.report("function", "Field required")
            }
            reader.absorb(nested)
        }
        return (tools, true)
    }

    private static func readToolChoice(_ reader: inout FieldReader, hasTools: Bool) -> ToolChoice {
        guard let value = reader.value("tool_choice") else { return hasTools ? .auto : .none }
        switch value {
        case .string("none"): return .none
        case .string("auto"): return .auto
        case .string("required"): return .required
        default: break
        }
        guard hasTools else {
            reader.reportRule(.badRequest("When using `tool_choice`, `tools` must be set.", param: "tool_choice"))
            return .none
        }
        guard let object = value.objectValue else {
            reader.reportRule(
                .badRequest(
                    "Invalid value for `tool_choice`: only named tools, \"none\", \"auto\" and \"required\" are supported.",
                    param: "tool_choice"))
            return .none
        }
        let usage = "Correct usage: `{\"type\": \"function\", \"function\": {\"name\": \"my_function\"}}`"
        guard let function = object["function"]?.objectValue else {
            reader.reportRule(
                .badRequest("`tool_choice` needs the object `function`. \(usage)", param: "tool_choice.function"))
            return .none
        }
        guard let name = function["name"]?.stringValue else {
            reader.reportRule(
                .badRequest(
                    "`function` in `tool_choice` needs the text `name`. \(usage)", param: "tool_choice.function.name"))
            return .none
        }
        guard object["type"] == nil || object["type"]?.stringValue == "function" else {
            reader.report("tool_choice", "Input should be a choice of type 'function'")
            return .none
        }
        return .function(name)
    }
}

/// One tool of a request, as given.
struct ToolDefinition: Equatable {
    var name: String
    /// JSON schema of the arguments.
    var parameters: JSONObject?
    /// Arguments have to follow `parameters`.
    var isStrict = false
    /// The whole element of `tools`, as the chat template sees it.
    var definition: JSONObject
}
