import JSONBytes

/// Finds tool calls in the answer.
protocol ToolParser {
    /// Calls begun so far.
    var callCount: Int { get }
    mutating func append(_ text: UnsafeBufferPointer<UInt8>, _ sink: inout EventSink)
    mutating func finish(_ sink: inout EventSink)
    /// Parses a whole answer. Where one call is malformed, all of it is content, as in vLLM.
    /// - Returns: nil when there are no (valid) calls; content in front of the calls otherwise.
    func parseWhole(_ text: String) -> (content: String, calls: [ParsedOutput.ToolCall])?
}

enum ToolCallID {
    /// vLLM's default form: a prefix and 32 hexadecimal digits.
    static func make() -> String {
        var generator = SystemRandomNumberGenerator()
        var id = "chatcmpl-tool-"
        for _ in 0..<2 {
            let digits = String(generator.next(), radix: 16)
            id += String(repeating: "0", count: 16 - digits.count) + digits
        }
        return id
    }
}

extension JSONValue {
    /// The value with numbers spelled as Python would after reading them: `2.50` as `2.5`, `1e2` as `100.0`.
    func respelledByPython() -> JSONValue {
        switch self {
        case .number(let number):
            if !number.isInteger { return .number(number.doubleValue) }
            return number.text == "-0" ? .number(0) : self
        case .array(let elements): return .array(elements.map { $0.respelledByPython() })
        case .object(let object):
            return .object(JSONObject(object.pairs.map { ($0.key, $0.value.respelledByPython()) }))
        default: return self
        }
    }
}
