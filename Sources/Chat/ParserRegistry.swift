/// The parsers a server was started with, chosen by vLLM's names.
package struct ParserSelection: Sendable {
    private typealias ToolFactory = @Sendable () -> any ToolParser
    private typealias ReasoningFactory = @Sendable (_ isClosed: Bool) -> any ReasoningParser

    private static let toolParsers: [String: ToolFactory] = [
        "hermes": { HermesToolParser() },
        // vLLM's alias for Qwen models that write JSON.
        "qwen3_json": { HermesToolParser() },
    ]
    private static let reasoningParsers: [String: ReasoningFactory] = [
        "deepseek_r1": { DeepSeekR1ReasoningParser(isClosed: $0) },
        "qwen3": { Qwen3ReasoningParser(isClosed: $0) },
    ]

    package static var toolParserNames: [String] { toolParsers.keys.sorted() }
    package static var reasoningParserNames: [String] { reasoningParsers.keys.sorted() }

    private let makeToolParser: ToolFactory?
    private let makeReasoningParser: ReasoningFactory?

    /// - Throws: for a name that is not known, listing those that are.
    package init(toolParser: String?, reasoningParser: String?) throws(ChatError) {
        makeToolParser = try toolParser.map { name throws(ChatError) in
            guard let make = Self.toolParsers[name] else {
                let known = Self.toolParserNames.joined(separator: ", ")
                throw ChatError("unknown tool call parser '\(name)' (known: \(known))")
            }
            return make
        }
        makeReasoningParser = try reasoningParser.map { name throws(ChatError) in
            guard let make = Self.reasoningParsers[name] else {
                let known = Self.reasoningParserNames.joined(separator: ", ")
                throw ChatError("unknown reasoning parser '\(name)' (known: \(known))")
            }
            return make
        }
    }

    package var hasReasoning: Bool { makeReasoningParser != nil }
    package var hasTools: Bool { makeToolParser != nil }

    /// A parser for one choice; nil when all text is content.
    /// - Parameters:
    ///   - parseTools: whether the request lets the model call tools.
    ///   - prompt: the rendered prompt; a closed think block at its end means that the answer starts right away.
    ///   - thinking: false when the request switched thinking off (`enable_thinking`).
    ///   - continuedText: text of the assistant's message that the model continues.
    package func makeParser(
        parseTools: Bool, prompt: String, thinking: Bool = true, continuedText: String? = nil
    ) -> (any OutputParser)? {
        let reasoning = reasoningParser(prompt: prompt, thinking: thinking, continuedText: continuedText)
        let tools = parseTools ? makeToolParser?() : nil
        guard reasoning != nil || tools != nil else { return nil }
        return ChainedParser(reasoning: reasoning, tools: tools)
    }

    /// Parses the whole text of one choice, as vLLM does for answers that are not streamed. Differs from putting the
    /// events of a stream together in two ways: arguments are normalised JSON, and one malformed call makes all of the
    /// answer content.
    package func parseWhole(
        _ text: String, parseTools: Bool, prompt: String, thinking: Bool = true, continuedText: String? = nil
    ) -> ParsedOutput {
        var output = ParsedOutput(reasoning: nil, content: text)
        if var reasoning = reasoningParser(prompt: prompt, thinking: thinking, continuedText: continuedText) {
            var (thoughts, content): ([UInt8], [UInt8]) = ([], [])
            let collect: (ReasoningPiece) -> Void = { piece in
                switch piece {
                case .reasoning(let text): thoughts.append(contentsOf: text)
                case .content(let text): content.append(contentsOf: text)
                }
            }
            var text = text
            text.withUTF8 { reasoning.append($0, collect) }
            reasoning.finish(collect)
            output.reasoning = thoughts.isEmpty ? nil : String(decoding: thoughts, as: UTF8.self)
            output.content = content.isEmpty ? nil : String(decoding: content, as: UTF8.self)
        }
        if parseTools, let tools = makeToolParser?(), let content = output.content,
            let parsed = tools.parseWhole(content)
        {
            let isBlank = parsed.content.unicodeScalars.allSatisfy(\.properties.isWhitespace)
            output.content = isBlank ? nil : parsed.content
            output.toolCalls = parsed.calls
        }
        return output
    }

    private func reasoningParser(
        prompt: String, thinking: Bool, continuedText: String?
    ) -> (any ReasoningParser)? {
        guard thinking, let makeReasoningParser else { return nil }
        return makeReasoningParser(ThinkMarkers.isClosed(in: prompt, continuedText: continuedText))
    }
}

/// Reasoning parser first; what it lets through goes to the tool parser.
final class ChainedParser: OutputParser {
    private var reasoning: (any ReasoningParser)?
    private var tools: (any ToolParser)?
    private var sink = EventSink(OutputStorage())

    init(reasoning: (any ReasoningParser)?, tools: (any ToolParser)?) {
        self.reasoning = reasoning
        self.tools = tools
    }

    var sawToolCall: Bool { (tools?.callCount ?? 0) > 0 }
    var isReasoning: Bool { reasoning?.isReasoning ?? false }

    func append(_ text: UnsafeBufferPointer<UInt8>, events: inout [OutputEvent]) {
        sink.storage.clear()
        sink.adopt(&events)
        defer { sink.release(&events) }
        if reasoning != nil {
            reasoning!.append(text) { [unowned self] piece in sort(piece) }
        } else {
            passContent(text)
        }
    }

    func finish(events: inout [OutputEvent]) {
        sink.adopt(&events)
        defer { sink.release(&events) }
        if reasoning != nil { reasoning!.finish { [unowned self] piece in sort(piece) } }
        tools?.finish(&sink)
    }

    private func sort(_ piece: ReasoningPiece) {
        switch piece {
        case .reasoning(let text): sink.reasoning(text)
        case .content(let text): passContent(text)
        }
    }

    private func passContent(_ text: UnsafeBufferPointer<UInt8>) {
        if tools != nil { tools!.append(text, &sink) } else { sink.content(text) }
    }
}
