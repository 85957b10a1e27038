import JSONBytes

/// The parsers a server was started with, chosen by vLLM's names.
package struct ParserSelection: Sendable {
    package static let toolParserNames = ["hermes"]
    package static let reasoningParserNames = ["deepseek_r1", "qwen3"]

    private let toolParser: String?
    private let reasoningParser: String?

    /// - Throws: for a name that is not known, listing those that are.
    package init(toolParser: String?, reasoningParser: String?) throws(ChatError) {
        if let toolParser, !Self.toolParserNames.contains(toolParser) {
            throw ChatError(
                "unknown tool call parser '\(toolParser)' (known: \(Self.toolParserNames.joined(separator: ", ")))")
        }
        if let reasoningParser, !Self.reasoningParserNames.contains(reasoningParser) {
            throw ChatError(
                "unknown reasoning parser '\(reasoningParser)' "
                    + "(known: \(Self.reasoningParserNames.joined(separator: ", ")))")
        }
        self.toolParser = toolParser
        self.reasoningParser = reasoningParser
    }

    package var hasReasoning: Bool { reasoningParser != nil }
    package var hasTools: Bool { toolParser != nil }

    /// A parser for one choice; nil when all text is content.
    /// - Parameters:
    ///   - parseTools: whether the request lets the model call tools.
    ///   - prompt: the rendered prompt; what it ends in decides whether the answer starts inside reasoning.
    package func makeParser(parseTools: Bool, prompt: String) -> (any OutputParser)? {
        let reasoning = reasoningParser.map { _ in ThinkParser(prompt: prompt) }
        let tools = parseTools && toolParser != nil ? HermesToolParser() : nil
        guard reasoning != nil || tools != nil else { return nil }
        return ChainedParser(reasoning: reasoning, tools: tools)
    }
}

/// Reasoning parser first; what it lets through goes to the tool parser.
final class ChainedParser: OutputParser {
    private var reasoning: ThinkParser?
    private var tools: HermesToolParser?
    private var content: [UInt8] = []

    init(reasoning: ThinkParser?, tools: HermesToolParser?) {
        self.reasoning = reasoning
        self.tools = tools
    }

    var sawToolCall: Bool { (tools?.callCount ?? 0) > 0 }
    var isReasoning: Bool { reasoning?.isReasoning ?? false }

    func append(_ text: UnsafeBufferPointer<UInt8>, events: inout [OutputEvent]) {
        content.removeAll(keepingCapacity: true)
        if reasoning != nil {
            var thought: [UInt8] = []
            reasoning!.append(text, reasoning: &thought, content: &content)
            if !thought.isEmpty { events.append(.reasoning(thought)) }
        } else {
            content.append(contentsOf: text)
        }
        pass(&events)
    }

    func finish(events: inout [OutputEvent]) {
        content.removeAll(keepingCapacity: true)
        if reasoning != nil {
            var thought: [UInt8] = []
            reasoning!.finish(reasoning: &thought, content: &content)
            if !thought.isEmpty { events.append(.reasoning(thought)) }
        }
        pass(&events)
        tools?.finish(events: &events)
    }

    private func pass(_ events: inout [OutputEvent]) {
        guard !content.isEmpty else { return }
        if tools != nil {
            tools!.append(content, events: &events)
        } else {
            events.append(.content(content))
        }
    }
}
