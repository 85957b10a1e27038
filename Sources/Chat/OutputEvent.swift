/// UTF-8 bytes that a parser produced, in memory that the parser reuses: valid until its next `append`.
package struct OutputBytes: RandomAccessCollection {
    private let storage: OutputStorage
    private let range: Range<Int>

    init(_ storage: OutputStorage, _ range: Range<Int>) {
        self.storage = storage
        self.range = range
    }

    package var startIndex: Int { 0 }
    package var endIndex: Int { range.count }
    package subscript(index: Int) -> UInt8 { storage.bytes[range.lowerBound + index] }

    package func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
        try storage.bytes.withUnsafeBytes { try body(UnsafeRawBufferPointer(rebasing: $0[range])) }
    }

    package func withContiguousStorageIfAvailable<Result>(
        _ body: (UnsafeBufferPointer<UInt8>) throws -> Result
    ) rethrows -> Result? {
        try storage.bytes.withUnsafeBufferPointer { try body(UnsafeBufferPointer(rebasing: $0[range])) }
    }

    /// The bytes behind `next` when both lie next to each other in the same memory, else nil.
    func joined(with next: OutputBytes) -> OutputBytes? {
        guard storage === next.storage, range.upperBound == next.range.lowerBound else { return nil }
        return OutputBytes(storage, range.lowerBound..<next.range.upperBound)
    }
}

/// The memory behind `OutputBytes`.
final class OutputStorage {
    fileprivate(set) var bytes: [UInt8] = []

    func clear() { bytes.removeAll(keepingCapacity: true) }

    func store(_ new: some Sequence<UInt8>) -> OutputBytes {
        let start = bytes.count
        bytes.append(contentsOf: new)
        return OutputBytes(self, start..<bytes.count)
    }
}

/// What the streaming parsers make of generated text.
package enum OutputEvent {
    /// UTF-8 of ordinary answer text.
    case content(OutputBytes)
    /// UTF-8 of reasoning (text before the end-of-thinking marker).
    case reasoning(OutputBytes)
    /// A tool call begins; `index` counts from 0 in the message. Arguments follow in pieces.
    case toolCallStart(index: Int, id: String, name: String)
    /// UTF-8 of the next piece of the JSON text of the arguments, as the model wrote it.
    case toolCallArguments(index: Int, fragment: OutputBytes)
}

/// Everything of one chat choice between detokenised text and API events: reasoning parser first, then tool parser.
///
/// Lives on one event loop. The result does not depend on how the text was split into pieces: neighbouring events of one
/// kind, put together, are always the same. Text that may be the beginning of a marker is held back, never more than a
/// marker's length, or the head of a tool call.
package protocol OutputParser: AnyObject {
    /// Feeds the next piece of text; appends events to `events`.
    func append(_ text: UnsafeBufferPointer<UInt8>, events: inout [OutputEvent])
    /// The text has ended: releases what was held back.
    func finish(events: inout [OutputEvent])
    /// Whether at least one tool call was parsed.
    var sawToolCall: Bool { get }
    /// Whether reasoning is still going on; tokens that arrive while it is count as reasoning tokens.
    var isReasoning: Bool { get }
}

/// The whole output of one choice, parsed at once.
package struct ParsedOutput: Equatable, Sendable {
    package struct ToolCall: Equatable, Sendable {
        package var id: String
        package var name: String
        /// JSON text, normalised to the spelling of Python's `json.dumps(ensure_ascii=False)`.
        package var arguments: String
    }

    package var reasoning: String?
    package var content: String?
    package var toolCalls: [ToolCall] = []

    package init(reasoning: String?, content: String?, toolCalls: [ToolCall] = []) {
        self.reasoning = reasoning
        self.content = content
        self.toolCalls = toolCalls
    }
}

/// Collects events without allocating per piece of text.
struct EventSink {
    let storage: OutputStorage
    var events: [OutputEvent] = []
    /// Events before this index belong to earlier calls and are left alone.
    private var first = 0

    init(_ storage: OutputStorage) { self.storage = storage }

    /// Takes over the caller's list for the time of one call.
    mutating func adopt(_ list: inout [OutputEvent]) {
        swap(&events, &list)
        first = events.count
    }

    mutating func release(_ list: inout [OutputEvent]) { swap(&events, &list) }

    mutating func content(_ bytes: some Sequence<UInt8>) {
        let new = storage.store(bytes)
        if new.isEmpty { return }
        if events.count > first, case .content(let last)? = events.last, let joined = last.joined(with: new) {
            events[events.count - 1] = .content(joined)
        } else {
            events.append(.content(new))
        }
    }

    mutating func reasoning(_ bytes: some Sequence<UInt8>) {
        let new = storage.store(bytes)
        if new.isEmpty { return }
        if events.count > first, case .reasoning(let last)? = events.last, let joined = last.joined(with: new) {
            events[events.count - 1] = .reasoning(joined)
        } else {
            events.append(.reasoning(new))
        }
    }

    mutating func toolCallStart(index: Int, id: String, name: String) {
        events.append(.toolCallStart(index: index, id: id, name: name))
    }

    mutating func arguments(index: Int, _ bytes: some Sequence<UInt8>) {
        let new = storage.store(bytes)
        if new.isEmpty { return }
        if events.count > first, case .toolCallArguments(index, let last)? = events.last,
            let joined = last.joined(with: new)
        {
            events[events.count - 1] = .toolCallArguments(index: index, fragment: joined)
        } else {
            events.append(.toolCallArguments(index: index, fragment: new))
        }
    }
}
