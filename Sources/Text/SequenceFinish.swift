import EngineProtocol

/// How a sequence ended, in the words of the API.
package struct SequenceFinish: Sendable, Equatable {
    /// `stop`, `length`, `abort`, `repetition` or `error`.
    package var reason: String
    /// The matched stop string or stop token id; nil for EOS and length.
    package var stopReason: StopReason?
    package init(reason: String, stopReason: StopReason?) {
        self.reason = reason
        self.stopReason = stopReason
    }
}

/// What `OutputProcessor.process(_:into:)` says beside the text it appended.
package struct OutputProcessorResult: Sendable {
    /// Set when the sequence has ended.
    package var finish: SequenceFinish?
    /// A stop string matched before the engine finished: the engine has to be told to stop.
    package var mustAbortEngine: Bool
    /// How many of the output's tokens count, from the first on; fewer than it has when a stop string ends earlier.
    package var tokenCount: Int
    package init(finish: SequenceFinish?, mustAbortEngine: Bool, tokenCount: Int) {
        self.finish = finish
        self.mustAbortEngine = mustAbortEngine
        self.tokenCount = tokenCount
    }
}
