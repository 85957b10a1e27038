/// Splits `<think>…</think>` from the answer (vLLM: the `qwen3` and `deepseek_r1` reasoning parsers).
///
/// Text up to the end marker is reasoning, also when the start marker is missing because the chat template or the model
/// left it out. When the prompt itself closed a think block, everything is content.
struct ThinkParser {
    private static let start = Array("<think>".utf8)
    private static let end = Array("</think>".utf8)

    private(set) var isReasoning: Bool
    /// Text that may still be the beginning of a marker.
    private var held: [UInt8] = []
    private var atStart = true

    init(prompt: String) {
        // Templates that switch thinking off close an empty block as the last thing of the prompt.
        let utf8 = prompt.utf8
        var tail = utf8[...]
        while let last = tail.last, last == 0x0A || last == 0x20 { tail.removeLast() }
        isReasoning = !tail.suffix(Self.end.count).elementsEqual(Self.end)
    }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>, reasoning: inout [UInt8], content: inout [UInt8]) {
        guard isReasoning else {
            content.append(contentsOf: text)
            return
        }
        held.append(contentsOf: text)
        if atStart {
            if held.count < Self.start.count, Self.start.starts(with: held) { return }
            if held.starts(with: Self.start) { held.removeFirst(Self.start.count) }
            atStart = false
        }
        if let position = firstRange(of: Self.end, in: held) {
            isReasoning = false
            reasoning.append(contentsOf: held[..<position])
            content.append(contentsOf: held[(position + Self.end.count)...])
            held.removeAll()
            return
        }
        let keep = longestSuffix(of: held, beginning: Self.end)
        reasoning.append(contentsOf: held.dropLast(keep))
        held.removeFirst(held.count - keep)
    }

    mutating func finish(reasoning: inout [UInt8], content: inout [UInt8]) {
        if isReasoning { reasoning.append(contentsOf: held) } else { content.append(contentsOf: held) }
        held.removeAll()
    }
}

/// The first position of `pattern` in `bytes`.
func firstRange(of pattern: [UInt8], in bytes: [UInt8], from start: Int = 0) -> Int? {
    guard bytes.count >= pattern.count + start, let first = pattern.first else { return nil }
    var index = start
    while index <= bytes.count - pattern.count {
        if bytes[index] == first, bytes[index..<(index + pattern.count)].elementsEqual(pattern) { return index }
        index += 1
    }
    return nil
}

/// How many bytes at the end of `bytes` may be the beginning of `pattern`.
func longestSuffix(of bytes: [UInt8], beginning pattern: [UInt8]) -> Int {
    var length = min(bytes.count, pattern.count - 1)
    while length > 0 {
        if bytes.suffix(length).elementsEqual(pattern.prefix(length)) { return length }
        length -= 1
    }
    return 0
}
