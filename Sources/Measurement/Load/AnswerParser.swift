import Glibc

/// Where the bytes of an answer go.
protocol AnswerSink {
    mutating func head(status: Int, isEventStream: Bool)
    mutating func body(_ bytes: UnsafeBufferPointer<UInt8>)
}

/// HTTP/1.1 answers in pieces of any size. Knows just what an answer to a POST needs: fixed length, chunks, or until the
/// connection closes. Allocates only while a head is split over reads.
package struct AnswerParser {
    package enum Progress: Equatable, Sendable {
        case more
        /// The answer is complete; whether the connection may be used again.
        case complete(keepAlive: Bool)
        case malformed(String)
    }

    private enum State {
        case head
        case fixed(left: Int)
        case untilClose
        case chunkSize(value: Int, digits: Int, inExtension: Bool)
        case chunk(left: Int)
        case afterChunk
        case trailer(lineLength: Int)
        case done
    }

    private static let longestHead = 64 << 10

    private var state = State.head
    private var carriedHead: [UInt8] = []
    private var keepAlive = true

    init() {}

    /// To be called when the peer has closed: whether that ends the answer properly.
    func closeEndsAnswer() -> Bool {
        if case .untilClose = state { true } else { false }
    }

    /// Bytes after the end of the answer are a fault: nothing is pipelined here.
    mutating func feed(_ bytes: UnsafeBufferPointer<UInt8>, _ sink: inout some AnswerSink) -> Progress {
        guard let base = bytes.baseAddress else { return .more }
        var at = 0
        while at < bytes.count {
            switch state {
            case .head:
                let (used, fault) = takeHead(bytes, from: at, &sink)
                if let fault { return .malformed(fault) }
                at += used
                if case .done = state { return at == bytes.count ? .complete(keepAlive: keepAlive) : Self.surplus }
            case .fixed(let left):
                let count = min(left, bytes.count - at)
                sink.body(UnsafeBufferPointer(start: base + at, count: count))
                at += count
                if count == left {
                    state = .done
                    return at == bytes.count ? .complete(keepAlive: keepAlive) : Self.surplus
                }
                state = .fixed(left: left - count)
            case .untilClose:
                sink.body(UnsafeBufferPointer(start: base + at, count: bytes.count - at))
                at = bytes.count
            case .chunkSize(let value, let digits, let inExtension):
                let byte = base[at]
                at += 1
                if byte == UInt8(ascii: "\n") {
                    if digits == 0 { return .malformed("a chunk has no size") }
                    state = value == 0 ? .trailer(lineLength: 0) : .chunk(left: value)
                } else if !inExtension, let digit = hexDigit(byte) {
                    if digits == 15 { return .malformed("a chunk's size is too large") }
                    state = .chunkSize(value: value << 4 | digit, digits: digits + 1, inExtension: false)
                } else if byte == UInt8(ascii: "\r") || byte == UInt8(ascii: ";") || inExtension || byte == 0x20 {
                    state = .chunkSize(value: value, digits: digits, inExtension: true)
                } else {
                    return .malformed("a chunk's size is no number")
                }
            case .chunk(let left):
                let count = min(left, bytes.count - at)
                sink.body(UnsafeBufferPointer(start: base + at, count: count))
                at += count
                state = count == left ? .afterChunk : .chunk(left: left - count)
            case .afterChunk:
                let byte = base[at]
                at += 1
                if byte == UInt8(ascii: "\n") {
                    state = .chunkSize(value: 0, digits: 0, inExtension: false)
                } else if byte != UInt8(ascii: "\r") {
                    return .malformed("a chunk is longer than its size")
                }
            case .trailer(let lineLength):
                let byte = base[at]
                at += 1
                if byte == UInt8(ascii: "\n") {
                    if lineLength == 0 {
                        state = .done
                        return at == bytes.count ? .complete(keepAlive: keepAlive) : Self.surplus
                    }
                    state = .trailer(lineLength: 0)
                } else if byte != UInt8(ascii: "\r") {
                    if lineLength > Self.longestHead { return .malformed("the trailer is too long") }
                    state = .trailer(lineLength: lineLength + 1)
                }
            case .done: return Self.surplus
            }
        }
        return .more
    }

    private static let surplus = Progress.malformed("bytes after the end of the answer")

    private func hexDigit(_ byte: UInt8) -> Int? {
        switch byte {
        case 0x30...0x39: Int(byte) - 0x30
        case 0x41...0x46: Int(byte) - 0x41 + 10
        case 0x61...0x66: Int(byte) - 0x61 + 10
        default: nil
        }
    }

    private mutating func takeHead(
        _ bytes: UnsafeBufferPointer<UInt8>, from start: Int, _ sink: inout some AnswerSink
    ) -> (used: Int, fault: String?) {
        let rest = UnsafeBufferPointer(rebasing: bytes[start...])
        let before = carriedHead.count
        carriedHead.append(contentsOf: rest.prefix(Self.longestHead))
        guard let end = endOfHead(from: max(0, before - 3)) else {
            if carriedHead.count >= Self.longestHead { return (0, "the answer's head is too long") }
            return (rest.count, nil)
        }
        let fault = readHead(end, &sink)
        carriedHead.removeAll(keepingCapacity: true)
        return (end - before, fault)
    }

    /// Index after the empty line.
    private func endOfHead(from start: Int) -> Int? {
        guard carriedHead.count >= 4 else { return nil }
        for index in start..<(carriedHead.count - 3)
        where carriedHead[index] == 0x0D && carriedHead[index + 1] == 0x0A && carriedHead[index + 2] == 0x0D
            && carriedHead[index + 3] == 0x0A
        {
            return index + 4
        }
        return nil
    }

    /// Once per answer, so it may allocate.
    private mutating func readHead(_ end: Int, _ sink: inout some AnswerSink) -> String? {
        let lines = String(decoding: carriedHead[..<(end - 4)], as: UTF8.self).split(separator: "\r\n")
        guard let first = lines.first, first.hasPrefix("HTTP/1."), let status = Int(first.dropFirst(9).prefix(3)) else {
            return "the answer is not HTTP"
        }
        // Interim answers come before the real one.
        if (100..<200).contains(status) { return nil }
        keepAlive = first.hasPrefix("HTTP/1.1")
        var length: Int?
        var chunked = false
        var isEventStream = false
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { return "a header has no colon" }
            let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }.lowercased()
            switch line[..<colon].lowercased() {
            case "content-length":
                guard let number = Int(value.prefix { $0 != " " }), number >= 0 else {
                    return "Content-Length is no number"
                }
                length = number
            case "transfer-encoding": chunked = value.hasSuffix("chunked")
            case "content-type": isEventStream = value.hasPrefix("text/event-stream")
            case "connection":
                if value == "close" { keepAlive = false }
                if value == "keep-alive" { keepAlive = true }
            default: break
            }
        }
        sink.head(status: status, isEventStream: isEventStream)
        if chunked {
            state = .chunkSize(value: 0, digits: 0, inExtension: false)
        } else if status == 204 || status == 304 || length == 0 {
            state = .done
        } else if let length {
            state = .fixed(left: length)
        } else {
            keepAlive = false
            state = .untilClose
        }
        return nil
    }
}

/// The `data` lines of an event stream, in pieces of any size. Lines are handed over in place; only one that is split over
/// reads is copied. Each line is taken for an event of its own, as every OpenAI server writes them.
package struct EventLineScanner {
    private static let longestLine = 16 << 20
    private var carried: [UInt8] = []
    package private(set) var overflowed = false

    package init() {}

    package mutating func feed(
        _ bytes: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) -> Void
    ) {
        guard let base = bytes.baseAddress, !overflowed else { return }
        var at = 0
        while at < bytes.count {
            guard let newline = memchr(base + at, 0x0A, bytes.count - at) else {
                if carried.count + bytes.count - at > Self.longestLine {
                    overflowed = true
                    carried = []
                    return
                }
                carried.append(contentsOf: UnsafeBufferPointer(start: base + at, count: bytes.count - at))
                return
            }
            let place = UnsafeRawPointer(base).distance(to: newline)
            if carried.isEmpty {
                Self.line(UnsafeBufferPointer(start: base + at, count: place - at), body)
            } else {
                carried.append(contentsOf: UnsafeBufferPointer(start: base + at, count: place - at))
                carried.withUnsafeBufferPointer { Self.line($0, body) }
                carried.removeAll(keepingCapacity: true)
            }
            at = place + 1
        }
    }

    private static func line(_ line: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) -> Void) {
        guard line.hasPrefix("data:") else { return }
        var start = 5
        var end = line.count
        if start < end, line[start] == 0x20 { start += 1 }
        if end > start, line[end - 1] == 0x0D { end -= 1 }
        body(UnsafeBufferPointer(rebasing: line[start..<end]))
    }
}
