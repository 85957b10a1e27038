/// Turns token ids into text one at a time, such that all deltas together are the decoding of all ids.
///
/// U+FFFD appears only where the full decoding has it: bytes that may still become a character are held back. In
/// tokenizers with byte fallback that means a whole run of byte tokens, because one wrong byte spoils all of it; what
/// is beyond ``byteRunLimit`` bytes is judged separately.
///
/// A detokenizer may be primed with a prompt, so that the continuation reads as it does behind the prompt (leading
/// spaces are kept, a character begun by the prompt is completed): vLLM's prefix and read offsets.
package struct IncrementalDetokenizer: Sendable {
    /// Longest run of byte tokens that is held back, in bytes.
    package static let byteRunLimit = 256

    private let tokenizer: Tokenizer
    private let texts: TokenTexts
    private let joining: TokenDecoder.Joining
    private let skipSpecialTokens: Bool
    private let runLimit: Int
    /// Byte-level: an incomplete UTF-8 sequence. Byte fallback: the current run of byte tokens.
    private var pending: [UInt8] = []
    /// How many leading scalars may still be stripped.
    private var stripsLeft: Int
    private var isFirst = true

    package init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool) {
        self.init(tokenizer, skipSpecialTokens: skipSpecialTokens, runLimit: Self.byteRunLimit)
    }

    init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool, runLimit: Int) {
        self.tokenizer = tokenizer
        self.skipSpecialTokens = skipSpecialTokens
        self.runLimit = runLimit
        texts = tokenizer.texts
        joining = tokenizer.decoder.joining
        stripsLeft = tokenizer.decoder.strip?.count ?? 0
        pending.reserveCapacity(16)
    }

    /// Continues after `prompt`: nothing of the prompt is ever emitted, except an incomplete character at its end.
    package init(
        _ tokenizer: Tokenizer, continuing prompt: some BidirectionalCollection<Int32>, skipSpecialTokens: Bool
    ) {
        self.init(tokenizer, skipSpecialTokens: skipSpecialTokens)
        prime(prompt)
    }

    /// Whether bytes are being held back.
    package var hasPending: Bool { !pending.isEmpty }

    /// Appends the text that `id` completes. Ids outside the vocabulary stand for nothing, as in vLLM.
    package mutating func append(_ id: Int32, into output: inout [UInt8]) {
        let flags = texts.flags(id)
        guard flags.contains(.exists), !(skipSpecialTokens && flags.contains(.special)) else { return }
        let text = texts[id]
        switch joining {
        case .byteLevel:
            if pending.isEmpty, flags.contains(.valid) {
                output.append(contentsOf: text)
            } else {
                appendLossy(text, into: &output)
            }
        case .strings(let byteFallback):
            if byteFallback, flags.contains(.byte) {
                pending.append(contentsOf: text)
                if pending.count >= runLimit { flushLongRun(into: &output) }
                return
            }
            if !pending.isEmpty { flushRun(into: &output) }
            if isFirst, let dropped = tokenizer.decoder.droppedInFirst {
                var name = tokenizer.names[id] ?? []
                replaceAll(dropped, with: [], in: &name)
                output.append(contentsOf: name)
            } else if stripsLeft > 0 {
                appendStripped(text, into: &output)
            } else {
                output.append(contentsOf: text)
            }
            isFirst = false
        case .spaces:
            if !isFirst { output.append(0x20) }
            isFirst = false
            output.append(contentsOf: text)
        }
    }

    /// Appends what is held back; an incomplete character is U+FFFD then, as in the full decoding.
    package mutating func finish(into output: inout [UInt8]) {
        if pending.isEmpty { return }
        switch joining {
        case .byteLevel:
            // What is pending is one truncated sequence.
            output.append(contentsOf: replacementCharacter)
            pending.removeAll(keepingCapacity: true)
        case .strings: flushRun(into: &output)
        case .spaces: break
        }
    }

    // MARK: Byte level

    private mutating func appendLossy(_ text: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
        pending.append(contentsOf: text)
        let rest = pending.withUnsafeBufferPointer { Self.appendComplete($0, into: &output) }
        pending.removeFirst(pending.count - rest)
    }

    /// Appends `bytes` with U+FFFD for each maximal part that is not UTF-8.
    /// - Returns: the length of the incomplete sequence at the end, which is not appended.
    private static func appendComplete(_ bytes: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) -> Int {
        var copied = 0
        var index = 0
        while index < bytes.count {
            switch UTF8Step(bytes, at: index) {
            case .valid(let length): index += length
            case .invalid(let length):
                output.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[copied..<index]))
                output.append(contentsOf: replacementCharacter)
                index += length
                copied = index
            case .truncated:
                output.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[copied..<index]))
                return bytes.count - index
            }
        }
        output.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[copied..<index]))
        return 0
    }

    // MARK: Strings

    /// Ends a run of byte tokens: all of it is text, or every byte of it is U+FFFD.
    private mutating func flushRun(into output: inout [UInt8]) {
        let text =
            pending.withUnsafeBufferPointer { Self.validPrefix($0) == $0.count }
            ? pending : pending.flatMap { _ in replacementCharacter }
        pending.removeAll(keepingCapacity: true)
        text.withUnsafeBufferPointer { appendStripped($0, into: &output) }
        isFirst = false
    }

    /// Passes on the complete characters of a run that has become too long to be held back.
    private mutating func flushLongRun(into output: inout [UInt8]) {
        let (valid, isTruncated) = pending.withUnsafeBufferPointer { bytes -> (Int, Bool) in
            let valid = Self.validPrefix(bytes)
            guard valid < bytes.count, case .truncated = UTF8Step(bytes, at: valid) else { return (valid, false) }
            return (valid, true)
        }
        guard isTruncated else { return flushRun(into: &output) }
        let tail = Array(pending[valid...])
        pending.removeLast(tail.count)
        flushRun(into: &output)
        pending.append(contentsOf: tail)
    }

    private static func validPrefix(_ bytes: UnsafeBufferPointer<UInt8>) -> Int {
        var index = 0
        while index < bytes.count, case .valid(let length) = UTF8Step(bytes, at: index) { index += length }
        return index
    }

    private mutating func appendStripped(_ text: UnsafeBufferPointer<UInt8>, into output: inout [UInt8]) {
        var start = 0
        if stripsLeft > 0, let strip = tokenizer.decoder.strip {
            while stripsLeft > 0, text[start...].starts(with: strip.scalar) {
                start += strip.scalar.count
                stripsLeft -= 1
            }
            if start < text.count { stripsLeft = 0 }
        }
        output.append(contentsOf: UnsafeBufferPointer(rebasing: text[start...]))
    }

    // MARK: Priming

    private mutating func prime(_ prompt: some BidirectionalCollection<Int32>) {
        var ignored: [UInt8] = []
        // What depends on being first is settled by the first tokens,
        if stripsLeft > 0 || tokenizer.decoder.droppedInFirst != nil || tokenizer.decoder.joinsWithSpaces {
            for id in prompt {
                append(id, into: &ignored)
                if stripsLeft == 0, !isFirst { break }
            }
            pending.removeAll(keepingCapacity: true)
        }
        // what is still pending by the last ones.
        var tail: [UInt8] = []
        for id in prompt.reversed() {
            let flags = texts.flags(id)
            guard flags.contains(.exists), !(skipSpecialTokens && flags.contains(.special)) else { continue }
            switch joining {
            case .byteLevel: tail.insert(contentsOf: texts[id], at: 0)
            case .strings(byteFallback: true) where flags.contains(.byte): tail.insert(contentsOf: texts[id], at: 0)
            default:
                keepTruncated(tail)
                return
            }
            if case .byteLevel = joining, tail.count >= 4 { break }
            if tail.count >= Self.byteRunLimit { break }
        }
        keepTruncated(tail)
    }

    private mutating func keepTruncated(_ tail: [UInt8]) {
        var ignored: [UInt8] = []
        let rest = tail.withUnsafeBufferPointer { Self.appendComplete($0, into: &ignored) }
        pending = Array(tail.suffix(rest))
    }
}

extension TokenDecoder {
    var joinsWithSpaces: Bool { if case .spaces = joining { true } else { false } }
}
