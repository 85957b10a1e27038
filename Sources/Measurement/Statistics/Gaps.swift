/// Gaps between the outputs of one stream, and what is derived from them. All times in seconds.
///
/// Gaps are pooled over streams, never averaged per stream first: an average hides the stall a reader sees (a single 0.5 s
/// stop in 100 tokens becomes 5 ms).
package enum Gaps {
    /// One gap per chunk after the first: the time since the chunk before it. What `vllm bench serve` calls ITL.
    /// - Parameter arrivals: ascending arrival times of the chunks that carry output.
    package static func perChunk(arrivals: [Double]) -> [Double] {
        zip(arrivals.dropFirst(), arrivals).map { $0 - $1 }
    }

    /// One gap per token after the first. Tokens that arrive in one chunk are seen at once: the first of them has the chunk's
    /// gap, the others 0. The sum is the time from first to last token.
    /// - Parameter tokens: tokens in each chunk; a chunk without any (text held back) has no gap, its time counts to the next.
    package static func perToken(arrivals: [Double], tokens: [Int]) -> [Double] {
        var gaps: [Double] = []
        var last: Double?
        for (arrival, count) in zip(arrivals, tokens) where count > 0 {
            if let last { gaps.append(arrival - last) }
            gaps.append(contentsOf: repeatElement(0, count: count - 1))
            last = arrival
        }
        return gaps
    }

    /// Time per output token after the first: (last − first) / (tokens − 1); nil below two tokens.
    package static func timePerOutputToken(first: Double, last: Double, tokens: Int) -> Double? {
        tokens > 1 ? (last - first) / Double(tokens - 1) : nil
    }
}
