import EngineProtocol
import Tokenization

/// Turns the engine's outputs for one sequence into text (vLLM: `IncrementalDetokenizer` and `check_stop_strings`).
///
/// A value that belongs to one event loop. Concatenating everything it appends gives the text of the sequence; text is
/// held back only while it may still become a stop string or a whole character.
package struct OutputProcessor: Sendable {
    package struct Options: Sendable {
        package var stop = StopStrings.none
        /// Leaves the stop string in the text, and the text of a stop token.
        package var includesStop = false
        /// Stop strings that end within this many tokens do not count.
        package var minTokens = 0
        package var skipsSpecialTokens = true

        package init() {}
    }

    private let options: Options
    private var detokenizer: IncrementalDetokenizer
    private var matcher: StopStringMatcher
    /// Text that is not appended yet, because it may be the beginning of a stop string.
    private var held: [UInt8] = []
    /// Text of one token.
    private var piece: [UInt8] = []

    /// Tokens so far that count, a stop token included.
    package private(set) var tokenCount = 0
    package private(set) var isFinished = false

    /// - Parameter prompt: the tokens before the sequence. They decide whether the text starts with a space and
    ///   complete a character that the prompt has begun.
    package init(_ model: TextModel, prompt: some BidirectionalCollection<Int32>, options: Options) {
        self.options = options
        detokenizer = IncrementalDetokenizer(
            model.tokenizer, continuing: prompt, skipSpecialTokens: options.skipsSpecialTokens)
        matcher = StopStringMatcher(options.stop)
    }

    /// Appends the text that `output` adds. Outputs behind the end are ignored.
    package mutating func process(_ output: EngineCoreOutput, into text: inout [UInt8]) -> OutputProcessorResult {
        guard !isFinished else { return OutputProcessorResult(finish: nil, mustAbortEngine: false, tokenCount: 0) }
        let ids = output.tokens
        // The token that stopped the engine comes last; its text is not part of the answer.
        let visible = output.finishReason == .stop && !options.includesStop ? max(0, ids.count - 1) : ids.count
        for index in 0..<visible {
            tokenCount += 1
            guard let match = append(ids[index], into: &text) else { continue }
            return stopped(by: match, output, tokens: index + 1)
        }
        tokenCount += ids.count - visible
        guard let reason = output.finishReason else {
            return OutputProcessorResult(finish: nil, mustAbortEngine: false, tokenCount: ids.count)
        }
        if let match = flush(into: &text) { return stopped(by: match, output, tokens: ids.count) }
        isFinished = true
        return OutputProcessorResult(
            finish: SequenceFinish(reason: reason.text, stopReason: output.stopReason), mustAbortEngine: false,
            tokenCount: ids.count)
    }

    private mutating func stopped(
        by match: StopStringMatcher.Match, _ output: EngineCoreOutput, tokens: Int
    ) -> OutputProcessorResult {
        isFinished = true
        return OutputProcessorResult(
            finish: SequenceFinish(reason: FinishReason.stop.text, stopReason: .text(match.text)),
            mustAbortEngine: output.finishReason == nil, tokenCount: tokens)
    }

    private mutating func append(_ id: Int32, into text: inout [UInt8]) -> StopStringMatcher.Match? {
        if options.stop.isEmpty {
            detokenizer.append(id, into: &text)
            return nil
        }
        piece.removeAll(keepingCapacity: true)
        detokenizer.append(id, into: &piece)
        return pass(into: &text)
    }

    /// Everything that was held back is text after all, unless what the detokenizer still has completes a stop string.
    private mutating func flush(into text: inout [UInt8]) -> StopStringMatcher.Match? {
        piece.removeAll(keepingCapacity: true)
        detokenizer.finish(into: &piece)
        if let match = pass(into: &text) { return match }
        text.append(contentsOf: held)
        held.removeAll()
        return nil
    }

    /// Appends what `piece` makes certain.
    private mutating func pass(into text: inout [UInt8]) -> StopStringMatcher.Match? {
        if piece.isEmpty { return nil }
        let match = matcher.scan(piece, ignoring: tokenCount <= options.minTokens)
        if options.includesStop {
            text.append(contentsOf: piece[..<(match?.end ?? piece.count)])
            return match
        }
        held.append(contentsOf: match == nil ? piece[...] : piece[..<match!.end])
        let certain = held.count - (match?.length ?? matcher.heldBack)
        text.append(contentsOf: held[..<certain])
        if match == nil { held.removeFirst(certain) } else { held.removeAll() }
        return match
    }
}

extension FinishReason {
    /// The API's word.
    package var text: String {
        switch self {
        case .stop: "stop"
        case .length: "length"
        case .abort: "abort"
        case .error: "error"
        case .repetition: "repetition"
        }
    }
}
