/// Separates reasoning from the answer. Pieces of text go in, each comes out as one or the other.
protocol ReasoningParser {
    var isReasoning: Bool { get }
    mutating func append(_ text: UnsafeBufferPointer<UInt8>, _ handle: (ReasoningPiece) -> Void)
    mutating func finish(_ handle: (ReasoningPiece) -> Void)
}

enum ReasoningPiece {
    case reasoning(UnsafeBufferPointer<UInt8>)
    case content(UnsafeBufferPointer<UInt8>)
}

/// The markers that most reasoning models use.
enum ThinkMarkers {
    static let start = "<think>"
    static let end = "</think>"

    /// Whether reasoning is over before the model's first token.
    /// - Parameters:
    ///   - prompt: the rendered prompt. Templates that switch thinking off close an empty block as its last thing.
    ///   - continuedText: text of the assistant's message that the model continues.
    static func isClosed(in prompt: String, continuedText: String?) -> Bool {
        if let continuedText {
            let bytes = Array(continuedText.utf8)
            let lastEnd = last(end, in: bytes)
            let lastStart = last(start, in: bytes)
            return lastEnd.map { end in lastStart.map { $0 < end } ?? true } ?? false
        }
        var tail = prompt.utf8.suffix(256)
        while let byte = tail.last, byte == 0x20 || (byte >= 0x09 && byte <= 0x0D) { tail.removeLast() }
        return tail.suffix(end.utf8.count).elementsEqual(end.utf8)
    }

    private static func last(_ marker: String, in bytes: [UInt8]) -> Int? {
        let marker = Array(marker.utf8)
        var offset = bytes.count - marker.count
        while offset >= 0 {
            if bytes[offset] == marker[0], bytes[offset..<offset + marker.count].elementsEqual(marker) { return offset }
            offset -= 1
        }
        return nil
    }
}

/// vLLM's `qwen3`: everything up to `</think>` is reasoning, with or without `<think>` in front, and a tool call ends it
/// as well. Markers are never shown: start markers vanish from the reasoning, further end markers from the answer.
struct Qwen3ReasoningParser: ReasoningParser {
    private var scanner = MarkerScanner([ThinkMarkers.start, ThinkMarkers.end, "<tool_call>"])
    private(set) var isReasoning: Bool

    init(isClosed: Bool) { isReasoning = !isClosed }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>, _ handle: (ReasoningPiece) -> Void) {
        var isReasoning = isReasoning
        scanner.scan(text) { Self.sort($0, &isReasoning, handle) }
        self.isReasoning = isReasoning
    }

    mutating func finish(_ handle: (ReasoningPiece) -> Void) {
        var isReasoning = isReasoning
        scanner.finish { Self.sort($0, &isReasoning, handle) }
        self.isReasoning = isReasoning
    }

    private static func sort(
        _ piece: MarkerScanner.Piece, _ isReasoning: inout Bool, _ handle: (ReasoningPiece) -> Void
    ) {
        switch piece {
        case .text(let text): handle(isReasoning ? .reasoning(text) : .content(text))
        case .marker(0): if !isReasoning { give(ThinkMarkers.start, handle) }
        case .marker(1): isReasoning = false
        case .marker:
            isReasoning = false
            give("<tool_call>", handle)
        }
    }

    private static func give(_ marker: String, _ handle: (ReasoningPiece) -> Void) {
        var marker = marker
        marker.withUTF8 { handle(.content($0)) }
    }
}

/// vLLM's `deepseek_r1`: a `<think>` at the very start is dropped, everything up to the first `</think>` is reasoning,
/// and the rest is the answer as it stands.
///
/// Where `<think>` comes later, vLLM forgets the text before it when it parses a whole answer, but not when it streams;
/// here that text stays reasoning in both.
struct DeepSeekR1ReasoningParser: ReasoningParser {
    private var scanner = MarkerScanner([ThinkMarkers.start, ThinkMarkers.end])
    private var sorter: Sorter

    init(isClosed: Bool) { sorter = Sorter(isReasoning: !isClosed) }

    var isReasoning: Bool { sorter.isReasoning }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>, _ handle: (ReasoningPiece) -> Void) {
        guard isReasoning else { return handle(.content(text)) }
        var sorter = sorter
        scanner.scan(text) { sorter.sort($0, handle) }
        // The answer is not scanned any more, so nothing of it may stay behind.
        if !sorter.isReasoning { scanner.finish { sorter.sort($0, handle) } }
        self.sorter = sorter
    }

    mutating func finish(_ handle: (ReasoningPiece) -> Void) {
        var sorter = sorter
        scanner.finish { sorter.sort($0, handle) }
        sorter.giveLeadingSpace(handle)
        self.sorter = sorter
    }

    private struct Sorter {
        var isReasoning: Bool
        /// White space in front of a possible start marker.
        private var leadingSpace: [UInt8] = []
        private var isAtStart = true

        init(isReasoning: Bool) { self.isReasoning = isReasoning }

        mutating func sort(_ piece: MarkerScanner.Piece, _ handle: (ReasoningPiece) -> Void) {
            switch piece {
            case .text(let text):
                guard isReasoning else { return handle(.content(text)) }
                if isAtStart, leadingSpace.count < 256, text.allSatisfy({ $0 == 0x20 || ($0 >= 0x09 && $0 <= 0x0D) }) {
                    leadingSpace.append(contentsOf: text)
                    return
                }
                giveLeadingSpace(handle)
                handle(.reasoning(text))
            case .marker(let marker):
                let isStart = marker == 0
                if isReasoning, !isStart {
                    giveLeadingSpace(handle)
                    isReasoning = false
                } else if isReasoning, isAtStart {
                    leadingSpace = []
                    isAtStart = false
                } else {
                    var text = isStart ? ThinkMarkers.start : ThinkMarkers.end
                    text.withUTF8 { handle(isReasoning ? .reasoning($0) : .content($0)) }
                }
            }
        }

        mutating func giveLeadingSpace(_ handle: (ReasoningPiece) -> Void) {
            isAtStart = false
            guard !leadingSpace.isEmpty else { return }
            leadingSpace.withUnsafeBufferPointer { handle(.reasoning($0)) }
            leadingSpace = []
        }
    }
}
