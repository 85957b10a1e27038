import JSONBytes
import Jinja

/// Tool calls in the hermes form: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (vLLM: `hermes`, also called
/// `qwen3_json`).
///
/// Text before the first call is content (white space alone is dropped), text behind it is dropped, as in vLLM. The
/// arguments stream as soon as the name is known. A call that turns out not to be one before that comes out as content,
/// marker included, and so does everything behind it. A call that breaks off later keeps what was streamed of it.
struct HermesToolParser: ToolParser {
    private static let open = "<tool_call>"
    private static let close = "</tool_call>"

    private var scanner = MarkerScanner([open, close])
    private var state = State()

    var callCount: Int { state.callCount }

    mutating func append(_ text: UnsafeBufferPointer<UInt8>, _ sink: inout EventSink) {
        // Swapped, not copied: a copy would make every buffer in it be copied on the next write.
        var state = State()
        swap(&state, &self.state)
        scanner.scan(text) { state.handle($0, &sink) }
        swap(&state, &self.state)
    }

    mutating func finish(_ sink: inout EventSink) {
        var state = State()
        swap(&state, &self.state)
        scanner.finish { state.handle($0, &sink) }
        state.finish(&sink)
        swap(&state, &self.state)
    }

    // MARK: Whole answers

    func parseWhole(_ text: String) -> (content: String, calls: [ParsedOutput.ToolCall])? {
        let bytes = Array(text.utf8)
        let (open, close) = (ByteSearch(Self.open), ByteSearch(Self.close))
        return bytes.withUnsafeBufferPointer { bytes in
            guard let first = open.first(in: bytes) else { return nil }
            var calls: [ParsedOutput.ToolCall] = []
            var next: Int? = first
            while let start = next {
                let bodyStart = start + Self.open.utf8.count
                let end = close.first(in: bytes, from: bodyStart)
                guard let call = Self.call(UnsafeBufferPointer(rebasing: bytes[bodyStart..<(end ?? bytes.count)]))
                else {
                    return nil
                }
                calls.append(call)
                next = end.flatMap { open.first(in: bytes, from: $0 + Self.close.utf8.count) }
            }
            return (String(decoding: bytes[..<first], as: UTF8.self), calls)
        }
    }

    private static func call(_ body: UnsafeBufferPointer<UInt8>) -> ParsedOutput.ToolCall? {
        guard let json = try? JSONValue.parse(body), let name = json["name"]?.stringValue,
            let arguments = json["arguments"]
        else { return nil }
        return ParsedOutput.ToolCall(
            id: ToolCallID.make(), name: name, arguments: arguments.respelledByPython().serialized(style: .python()))
    }

    // MARK: Streaming

    private struct State {
        private enum Mode {
            /// In front of the first call.
            case content
            /// Behind a start marker.
            case call
            /// Behind a call.
            case between
            /// Behind something that was not a call: all is content.
            case broken
        }

        private var mode = Mode.content
        private(set) var callCount = 0
        private var object = CallObject()
        /// White space at the very beginning, shown only when something else than a call follows.
        private var leadingSpace: [UInt8] = []
        private var hasContent = false

        mutating func handle(_ piece: MarkerScanner.Piece, _ sink: inout EventSink) {
            switch (mode, piece) {
            case (.content, .text(let text)): content(text, &sink)
            case (.content, .marker(0)), (.between, .marker(0)):
                mode = .call
                object = CallObject()
            case (.content, .marker): HermesToolParser.withClose { content($0, &sink) }
            case (.between, _): break
            case (.call, .text(let text)): consume(text, &sink)
            case (.call, .marker(0)): HermesToolParser.withOpen { consume($0, &sink) }
            case (.call, .marker): endCall(hasMarker: true, &sink)
            case (.broken, .text(let text)): sink.content(text)
            case (.broken, .marker(0)): HermesToolParser.withOpen { sink.content($0) }
            case (.broken, .marker): HermesToolParser.withClose { sink.content($0) }
            }
        }

        mutating func finish(_ sink: inout EventSink) {
            if mode == .call { endCall(hasMarker: false, &sink) }
            if mode == .content { giveLeadingSpace(&sink) }
        }

        private mutating func content(_ text: UnsafeBufferPointer<UInt8>, _ sink: inout EventSink) {
            if !hasContent, leadingSpace.count < 256, text.allSatisfy({ $0 == 0x20 || ($0 >= 0x09 && $0 <= 0x0D) }) {
                leadingSpace.append(contentsOf: text)
                return
            }
            giveLeadingSpace(&sink)
            sink.content(text)
        }

        private mutating func giveLeadingSpace(_ sink: inout EventSink) {
            hasContent = true
            sink.content(leadingSpace)
            leadingSpace = []
        }

        private mutating func consume(_ text: UnsafeBufferPointer<UInt8>, _ sink: inout EventSink) {
            let rest = object.consume(text, index: callCount, &sink) { leadingSpace = [] }
            if let rest { giveUp(rest, &sink) }
        }

        private mutating func endCall(hasMarker: Bool, _ sink: inout EventSink) {
            if object.isAnnounced || object.announceWhole(index: callCount, &sink) {
                leadingSpace = []
                callCount += 1
                mode = .between
            } else {
                giveUp(UnsafeBufferPointer(start: nil, count: 0), &sink)
                if hasMarker { HermesToolParser.withClose { sink.content($0) } }
            }
        }

        /// What came since the start marker is content after all.
        private mutating func giveUp(_ rest: UnsafeBufferPointer<UInt8>, _ sink: inout EventSink) {
            mode = .broken
            giveLeadingSpace(&sink)
            HermesToolParser.withOpen { sink.content($0) }
            sink.content(object.raw)
            sink.content(rest)
            object = CallObject()
        }
    }

    fileprivate static func withOpen(_ body: (UnsafeBufferPointer<UInt8>) -> Void) {
        var marker = open
        marker.withUTF8(body)
    }

    fileprivate static func withClose(_ body: (UnsafeBufferPointer<UInt8>) -> Void) {
        var marker = close
        marker.withUTF8(body)
    }
}

/// The JSON object of one call, read byte by byte.
private struct CallObject {
    private enum Phase { case start, keyOrEnd, key, colon, value, valueRest, afterValue, end }
    private enum Member { case name, arguments, other }

    /// A longer head is not a call.
    private static let maximumHead = 64 * 1024

    private var phase = Phase.start
    private var member = Member.other
    private var value = JSONValueScanner()
    private var isEscaped = false
    private var key: [UInt8] = []
    private var nameText: [UInt8] = []
    private var name: String?
    /// Arguments that came before the name.
    private var earlyArguments: [UInt8] = []

    /// Everything read so far, until the call is announced.
    private(set) var raw: [UInt8] = []
    private(set) var isAnnounced = false

    /// Reads a piece of the object.
    /// - Returns: nil when all is well, or the text from the byte on that shows that this is no call.
    mutating func consume(
        _ text: UnsafeBufferPointer<UInt8>, index: Int, _ sink: inout EventSink, onAnnounce: () -> Void
    ) -> UnsafeBufferPointer<UInt8>? {
        var position = 0
        while position < text.count {
            if isAnnounced {
                streamRest(UnsafeBufferPointer(rebasing: text[position...]), index: index, &sink)
                return nil
            }
            let byte = text[position]
            guard raw.count < Self.maximumHead, read(byte) else {
                return UnsafeBufferPointer(rebasing: text[position...])
            }
            raw.append(byte)
            position += 1
            if phase == .valueRest, member == .arguments, let name {
                // The first byte of the arguments: from here on nothing is held back.
                isAnnounced = true
                raw = []
                onAnnounce()
                sink.toolCallStart(index: index, id: ToolCallID.make(), name: name)
                sink.arguments(index: index, CollectionOfOne(byte))
            }
        }
        return nil
    }

    /// Announces a call whose object is complete and had its arguments before its name.
    mutating func announceWhole(index: Int, _ sink: inout EventSink) -> Bool {
        guard phase == .end, let name, !earlyArguments.isEmpty else { return false }
        isAnnounced = true
        sink.toolCallStart(index: index, id: ToolCallID.make(), name: name)
        sink.arguments(index: index, earlyArguments)
        return true
    }

    /// Passes the rest of the arguments on; members behind them are of no interest.
    private mutating func streamRest(
        _ text: UnsafeBufferPointer<UInt8>, index: Int, _ sink: inout EventSink
    ) {
        guard phase == .valueRest else { return }
        var end = 0
        scan: while end < text.count {
            switch value.consume(text[end]) {
            case .more: end += 1
            case .endsAfter:
                end += 1
                phase = .end
                break scan
            case .endsBefore, .invalid:
                phase = .end
                break scan
            }
        }
        sink.arguments(index: index, text[..<end])
    }

    /// Takes one byte of the head; false when it cannot belong to a call.
    private mutating func read(_ byte: UInt8) -> Bool {
        let isSpace = byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09
        switch phase {
        case .start:
            if isSpace { return true }
            phase = .keyOrEnd
            return byte == UInt8(ascii: "{")
        case .keyOrEnd:
            if isSpace { return true }
            key = []
            phase = .key
            return byte == UInt8(ascii: "\"")
        case .key:
            if byte == UInt8(ascii: "\""), !isEscaped {
                phase = .colon
                member =
                    key.elementsEqual("name".utf8) ? .name : key.elementsEqual("arguments".utf8) ? .arguments : .other
            } else {
                isEscaped = byte == UInt8(ascii: "\\") && !isEscaped
                key.append(byte)
            }
            return true
        case .colon:
            if isSpace { return true }
            phase = .value
            value = JSONValueScanner()
            return byte == UInt8(ascii: ":")
        case .value:
            if isSpace { return true }
            guard case .more = value.consume(byte) else { return false }
            phase = .valueRest
            if member == .name {
                nameText = [byte]
                return byte == UInt8(ascii: "\"")
            }
            if member == .arguments { earlyArguments = [byte] }
            return true
        case .valueRest:
            switch value.consume(byte) {
            case .more:
                keep(byte)
                return true
            case .endsAfter:
                keep(byte)
                return endValue()
            case .endsBefore: return endValue() && read(byte)
            case .invalid: return false
            }
        case .afterValue:
            if isSpace { return true }
            if byte == UInt8(ascii: ",") { phase = .keyOrEnd } else { phase = .end }
            return byte == UInt8(ascii: ",") || byte == UInt8(ascii: "}")
        case .end: return isSpace
        }
    }

    private mutating func keep(_ byte: UInt8) {
        switch member {
        case .name: nameText.append(byte)
        case .arguments: earlyArguments.append(byte)
        case .other: break
        }
    }

    private mutating func endValue() -> Bool {
        phase = .afterValue
        guard member == .name else { return true }
        name = (try? JSONValue.parse(nameText))?.stringValue
        return name != nil
    }
}
