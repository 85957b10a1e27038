/// What the event loop notes about one answer. Text stays as it came, escapes and all; it is put together after the block, so
/// that the loop does as little as possible while it measures.
struct RawAnswer: Sendable, AnswerSink {
    struct Choice: Sendable {
        /// Escaped JSON string contents, pieces one after the other.
        var text: [UInt8] = []
        var reasoning: [UInt8] = []
        /// `tool_calls` arrays, one per line.
        var toolCalls: [UInt8] = []
        var finishReason: [UInt8] = []
        var tokenIDs: [Int] = []
        /// `logprobs` objects, one per line.
        var logprobs: [UInt8] = []
        /// Escaped length of each piece of `text`.
        var pieces: [Int32] = []
    }

    let index: Int
    let item: Int
    let seed: UInt64
    let intendedSend: Nanoseconds
    /// When the client got around to it; what is later than `intendedSend` is the client's own lateness.
    let dispatched: Nanoseconds
    var sent: Nanoseconds = 0
    var firstByte: Nanoseconds = 0
    var firstToken: Nanoseconds = 0
    var end: Nanoseconds = 0
    var offsets: [Nanoseconds] = []
    var tokens: [UInt16] = []
    var tellsTokens = false
    var status = 0
    var error: RequestFailure?
    var errorDetail: [UInt8] = []
    var promptTokens = 0
    var completionTokens = 0
    var cachedTokens: Int?
    var sawDone = false
    var choices: [Choice] = []
    /// The whole body of an answer that is no event stream.
    var wholeBody: [UInt8] = []
    var bytesReceived = 0
    var reads = 0
    /// TCP segments with data; nil where the kernel does not tell.
    var segments: Int?

    private var lines = EventLineScanner()
    private(set) var isEventStream = false
    /// Tokens of chunks without visible output; they count to the next chunk with some.
    private var heldTokens = 0
    private var lastCumulative = 0
    let expectedTokens: Int
    /// Time of the read whose bytes are being looked at.
    private var now: Nanoseconds = 0

    private static let largestBody = 256 << 20
    private static let mostChoices = 1024
    private static let mostLogprobs = 4 << 20

    init(
        index: Int, item: Int, seed: UInt64, intendedSend: Nanoseconds, dispatched: Nanoseconds, expectedTokens: Int
    ) {
        self.index = index
        self.item = item
        self.seed = seed
        self.intendedSend = intendedSend
        self.dispatched = dispatched
        self.expectedTokens = min(expectedTokens, 1 << 20)
    }

    static let none = RawAnswer(
        index: 0, item: 0, seed: 0, intendedSend: 0, dispatched: 0, expectedTokens: 0)

    mutating func noteRead(bytes: Int, at time: Nanoseconds) {
        now = time
        if firstByte == 0 { firstByte = time }
        bytesReceived += bytes
        reads += 1
    }

    // MARK: - AnswerSink

    mutating func head(status: Int, isEventStream: Bool) {
        self.status = status
        self.isEventStream = isEventStream && status == 200
        guard self.isEventStream else { return }
        offsets.reserveCapacity(expectedTokens)
        tokens.reserveCapacity(expectedTokens)
        choices.append(Choice())
        choices[0].text.reserveCapacity(expectedTokens * 6)
        choices[0].pieces.reserveCapacity(expectedTokens)
    }

    mutating func body(_ bytes: UnsafeBufferPointer<UInt8>) {
        guard isEventStream else {
            if wholeBody.count + bytes.count <= Self.largestBody {
                wholeBody.append(contentsOf: bytes)
            } else {
                error = .malformed
            }
            return
        }
        // The scanner is taken out while it calls back into this value.
        var scanner = lines
        lines = EventLineScanner()
        scanner.feed(bytes) { event($0) }
        if scanner.overflowed { error = .malformed }
        lines = scanner
    }

    // MARK: - Events

    private mutating func event(_ payload: UnsafeBufferPointer<UInt8>) {
        if payload.equals("[DONE]") {
            sawDone = true
            return
        }
        var cursor = JSONCursor(payload)
        var hasOutput = false
        var hasChoices = false
        var chunkTokens = 0
        var cumulative: Int?
        cursor.members { cursor, key in
            if key.equals("choices") {
                cursor.elements {
                    hasChoices = true
                    choice(&$0, &hasOutput, &chunkTokens)
                }
            } else if key.equals("usage") {
                if cursor.peek() == UInt8(ascii: "{") { cumulative = usage(&cursor) } else { cursor.skip() }
            } else if key.equals("error") {
                if cursor.peek() != UInt8(ascii: "n") {
                    error = error ?? .errorEvent
                    errorDetail = Array(payload.prefix(2048))
                }
                cursor.skip()
            } else {
                cursor.skip()
            }
        }
        if cursor.failed {
            error = error ?? .malformed
            return
        }
        // Usage in every chunk tells tokens as well; the usage at the end, without choices, does not.
        if hasChoices, let cumulative {
            if chunkTokens == 0 { chunkTokens = max(0, cumulative - lastCumulative) }
            lastCumulative = cumulative
        }
        heldTokens += chunkTokens
        guard hasOutput else { return }
        if firstToken == 0 { firstToken = now }
        if heldTokens > 0 { tellsTokens = true }
        offsets.append(now - sent)
        tokens.append(UInt16(clamping: heldTokens))
        heldTokens = 0
    }

    private mutating func choice(_ cursor: inout JSONCursor, _ hasOutput: inout Bool, _ chunkTokens: inout Int) {
        var index = 0
        var text: UnsafeBufferPointer<UInt8>?
        var reasoning: UnsafeBufferPointer<UInt8>?
        var toolCalls: UnsafeBufferPointer<UInt8>?
        var finish: UnsafeBufferPointer<UInt8>?
        var ids: UnsafeBufferPointer<UInt8>?
        var logprobs: UnsafeBufferPointer<UInt8>?
        cursor.members { cursor, key in
            if key.equals("delta") {
                cursor.members { cursor, key in
                    if key.equals("content") {
                        text = string(&cursor)
                    } else if key.equals("reasoning") || key.equals("reasoning_content") {
                        reasoning = string(&cursor) ?? reasoning
                    } else if key.equals("tool_calls"), cursor.peek() == UInt8(ascii: "[") {
                        toolCalls = cursor.raw()
                    } else {
                        cursor.skip()
                    }
                }
            } else if key.equals("text") {
                text = string(&cursor)
            } else if key.equals("index") {
                index = cursor.count()
            } else if key.equals("finish_reason") {
                finish = string(&cursor)
            } else if key.equals("token_ids"), cursor.peek() == UInt8(ascii: "[") {
                ids = cursor.raw()
            } else if key.equals("logprobs"), cursor.peek() == UInt8(ascii: "{") {
                logprobs = cursor.raw()
            } else {
                cursor.skip()
            }
        }
        guard !cursor.failed, index < Self.mostChoices else { return }
        while choices.count <= index { choices.append(Choice()) }
        if let text, !text.isEmpty {
            hasOutput = true
            choices[index].text.append(contentsOf: text)
            choices[index].pieces.append(Int32(clamping: text.count))
        }
        if let reasoning, !reasoning.isEmpty {
            hasOutput = true
            choices[index].reasoning.append(contentsOf: reasoning)
        }
        if let toolCalls, toolCalls.count > 2 {
            hasOutput = true
            choices[index].toolCalls.append(contentsOf: toolCalls)
            choices[index].toolCalls.append(0x0A)
        }
        if let finish { choices[index].finishReason = Array(finish) }
        if let logprobs, choices[index].logprobs.count < Self.mostLogprobs {
            choices[index].logprobs.append(contentsOf: logprobs)
            choices[index].logprobs.append(0x0A)
        }
        if let ids {
            var list = JSONCursor(ids)
            list.elements { element in
                choices[index].tokenIDs.append(element.count())
                chunkTokens += 1
            }
        }
    }

    /// Nil for null and everything else that is no string, which is skipped.
    private func string(_ cursor: inout JSONCursor) -> UnsafeBufferPointer<UInt8>? {
        if cursor.peek() == UInt8(ascii: "\"") { return cursor.string() }
        cursor.skip()
        return nil
    }

    private mutating func usage(_ cursor: inout JSONCursor) -> Int {
        var completion = 0
        cursor.members { cursor, key in
            if key.equals("prompt_tokens") {
                promptTokens = cursor.count()
            } else if key.equals("completion_tokens") {
                completion = cursor.count()
            } else if key.equals("prompt_tokens_details"), cursor.peek() == UInt8(ascii: "{") {
                cursor.members { cursor, key in
                    if key.equals("cached_tokens") { cachedTokens = cursor.count() } else { cursor.skip() }
                }
            } else {
                cursor.skip()
            }
        }
        completionTokens = completion
        return completion
    }

    /// Tokens of chunks that followed the last visible one.
    mutating func settleTokens() {
        if heldTokens > 0, let last = tokens.indices.last {
            tokens[last] = UInt16(clamping: Int(tokens[last]) + heldTokens)
            tellsTokens = true
        }
        heldTokens = 0
    }
}
