import JSONBytes

/// Tool calls in the hermes form: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (vLLM: the `hermes` tool parser).
///
/// Text before the first call is content, text behind it is dropped, as in vLLM. Arguments stream as soon as the name
/// and the opening brace are there; anything that is not a call after all comes out as content, markers included.
struct HermesToolParser {
    private static let open = Array("<tool_call>".utf8)
    private static let close = Array("</tool_call>".utf8)
    /// A call whose head is longer is not taken apart any further; it stays content.
    private static let maximumHeld = 1 << 20

    private enum State {
        /// Outside of calls, looking for the start marker.
        case content
        /// Behind the start marker: the head is not complete yet.
        case head
        /// The call does not begin like `{"name": "…", "arguments": {`: wait for all of it.
        case whole
        /// Inside the arguments object.
        case arguments(JSONNesting)
        /// Behind the arguments, up to the end marker.
        case tail
    }

    private var state = State.content
    private var held: [UInt8] = []
    private(set) var callCount = 0

    mutating func append(_ text: [UInt8], events: inout [OutputEvent]) {
        held.append(contentsOf: text)
        while step(&events) {}
    }

    mutating func finish(events: inout [OutputEvent]) {
        switch state {
        case .content: emitContent(held[...], &events)
        case .head, .whole: finishWhole(held.count, markerLength: 0, &events)
        case .arguments, .tail: break
        }
        held.removeAll()
        state = .content
    }

    /// Makes one step; false when more text is needed.
    private mutating func step(_ events: inout [OutputEvent]) -> Bool {
        switch state {
        case .content: return stepContent(&events)
        case .head: return stepHead(&events)
        case .whole:
            if let end = firstRange(of: Self.close, in: held) {
                finishWhole(end, markerLength: Self.close.count, &events)
                state = .content
                return true
            }
            if held.count > Self.maximumHeld {
                finishWhole(held.count, markerLength: 0, &events)
                state = .content
            }
            return false
        case .arguments(var nesting):
            var end = 0
            while end < held.count, !nesting.isClosed {
                nesting.consume(held[end])
                end += 1
            }
            if end > 0 { events.append(.toolCallArguments(index: callCount - 1, fragment: Array(held[..<end]))) }
            held.removeFirst(end)
            state = nesting.isClosed ? .tail : .arguments(nesting)
            return nesting.isClosed
        case .tail:
            if let end = firstRange(of: Self.close, in: held) {
                held.removeFirst(end + Self.close.count)
                state = .content
                return true
            }
            held.removeFirst(held.count - longestSuffix(of: held, beginning: Self.close))
            return false
        }
    }

    private mutating func stepContent(_ events: inout [OutputEvent]) -> Bool {
        if let position = firstRange(of: Self.open, in: held) {
            emitContent(held[..<position], &events)
            held.removeFirst(position + Self.open.count)
            state = .head
            return true
        }
        let keep = longestSuffix(of: held, beginning: Self.open)
        emitContent(held.dropLast(keep), &events)
        held.removeFirst(held.count - keep)
        return false
    }

    private mutating func stepHead(_ events: inout [OutputEvent]) -> Bool {
        switch CallHead.scan(held) {
        case .incomplete:
            // A head that never ends must not hold text without limit.
            if firstRange(of: Self.close, in: held) != nil || held.count > Self.maximumHeld { state = .whole }
            if case .whole = state { return true }
            return false
        case .different:
            state = .whole
            return true
        case .complete(let name, let argumentsStart):
            startCall(name, &events)
            held.removeFirst(argumentsStart)
            state = .arguments(JSONNesting())
            return true
        }
    }

    /// Reads a call that is complete (or cut off): JSON of another shape is a call too, anything else is content.
    private mutating func finishWhole(_ end: Int, markerLength: Int, _ events: inout [OutputEvent]) {
        let body = Array(held[..<end])
        if let json = try? JSONValue.parse(body), let name = json["name"]?.stringValue {
            startCall(name, &events)
            var arguments: [UInt8] = []
            arguments.appendJSON(json["arguments"] ?? .object(JSONObject()), style: .python())
            events.append(.toolCallArguments(index: callCount - 1, fragment: arguments))
        } else {
            emitContent((Self.open + held[..<(end + markerLength)])[...], &events)
        }
        held.removeFirst(end + markerLength)
    }

    private mutating func startCall(_ name: String, _ events: inout [OutputEvent]) {
        events.append(.toolCallStart(index: callCount, id: ToolCallID.next(), name: name))
        callCount += 1
    }

    private func emitContent(_ bytes: ArraySlice<UInt8>, _ events: inout [OutputEvent]) {
        guard !bytes.isEmpty, callCount == 0 else { return }
        events.append(.content(Array(bytes)))
    }
}

/// The ids of tool calls, in the form of vLLM's Python server.
enum ToolCallID {
    static func next() -> String {
        let hex = String(UInt64.random(in: .min ... .max), radix: 16)
        return "chatcmpl-tool-" + String(repeating: "0", count: 16 - hex.utf8.count) + hex
    }
}

/// How deep a byte position is inside a JSON object that began with the next byte.
struct JSONNesting {
    private var depth = 0
    private var inString = false
    private var escaped = false
    private var started = false

    var isClosed: Bool { started && depth == 0 }

    mutating func consume(_ byte: UInt8) {
        started = true
        if inString {
            if escaped {
                escaped = false
            } else if byte == UInt8(ascii: "\\") {
                escaped = true
            } else if byte == UInt8(ascii: "\"") {
                inString = false
            }
            return
        }
        switch byte {
        case UInt8(ascii: "\""): inString = true
        case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
        case UInt8(ascii: "}"), UInt8(ascii: "]"): depth = max(0, depth - 1)
        default: break
        }
    }
}

/// The beginning of a call: `{"name": "…", "arguments": {`.
private enum CallHead {
    case incomplete
    /// Not this shape.
    case different
    /// `argumentsStart` is the position of the arguments' opening brace.
    case complete(name: String, argumentsStart: Int)

    static func scan(_ bytes: [UInt8]) -> CallHead {
        var cursor = Cursor(bytes: bytes)
        for expected in ["{", "\"name\"", ":"] {
            if let failure = cursor.expect(expected) { return failure }
        }
        cursor.skipSpace()
        let start = cursor.position
        guard start < bytes.count else { return .incomplete }
        guard bytes[start] == UInt8(ascii: "\"") else { return .different }
        var index = start + 1
        while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
            index += bytes[index] == UInt8(ascii: "\\") ? 2 : 1
        }
        guard index < bytes.count else { return .incomplete }
        guard let name = (try? JSONValue.parse(Array(bytes[start...index])))?.stringValue else { return .different }
        cursor.position = index + 1
        for expected in [",", "\"arguments\"", ":"] {
            if let failure = cursor.expect(expected) { return failure }
        }
        cursor.skipSpace()
        guard cursor.position < bytes.count else { return .incomplete }
        guard bytes[cursor.position] == UInt8(ascii: "{") else { return .different }
        return .complete(name: name, argumentsStart: cursor.position)
    }

    private struct Cursor {
        let bytes: [UInt8]
        var position = 0

        mutating func skipSpace() {
            while position < bytes.count, [0x20, 0x0A, 0x0D, 0x09].contains(bytes[position]) { position += 1 }
        }

        /// Consumes `text` behind white space; the failure otherwise.
        mutating func expect(_ text: String) -> CallHead? {
            skipSpace()
            for byte in text.utf8 {
                guard position < bytes.count else { return .incomplete }
                guard bytes[position] == byte else { return .different }
                position += 1
            }
            return nil
        }
    }
}
