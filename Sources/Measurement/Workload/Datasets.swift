import JSONBytes
import Supervision

/// Prompts from files, in the shapes that `vllm bench serve` reads.
package enum Datasets {
    private static let largestFile = 1 << 30

    /// JSON lines with `prompt` or `messages`, optionally `output_tokens`, and for traces `timestamp` (from any origin)
    /// with `input_length` and `output_length`, perhaps `hash_ids`, in place of a prompt.
    /// - Parameters:
    ///   - unit: of timestamps, in seconds.
    ///   - chunk: tokens that each of a trace's `hash_ids` stands for; prompts with the same ones share their beginnings.
    package static func lines(
        path: String, limit: Int, outputTokens: Int?, maker: PromptMaker, seed: UInt64, unit: Double = 0.001,
        chunk: Int = 16
    ) throws -> [Workload.Item] {
        guard let text = ProcessInfo.readFile(path, limit: largestFile) else {
            throw WorkloadError("cannot read \(path)")
        }
        var items: [Workload.Item] = []
        var origin: Double?
        var traced = TracedPrompts(maker: maker, seed: seed, chunk: chunk)
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            if line.allSatisfy(\.isWhitespace) { continue }
            if items.count == limit { break }
            func fail(_ reason: String) -> WorkloadError { WorkloadError("\(path), line \(number + 1): \(reason)") }
            guard let object = (try? JSONValue.parse(String(line)))?.objectValue else { throw fail("no JSON object") }
            let wanted =
                outputTokens ?? object["output_tokens"]?.numberValue?.intValue
                ?? object["output_length"]?.numberValue?.intValue ?? 256
            guard wanted > 0 else { throw fail("output_tokens must be at least 1") }
            let prompt: Workload.Item.Prompt
            if let messages = object["messages"] {
                guard messages.arrayValue?.isEmpty == false else { throw fail("messages must be a list") }
                prompt = .messages(messages)
            } else if let text = object["prompt"]?.stringValue {
                prompt = .text(text)
            } else if let length = object["input_length"]?.numberValue?.intValue, (1...1_000_000).contains(length) {
                let hashes = object["hash_ids"]?.arrayValue ?? []
                prompt = .text(traced.text(tokens: length, hashes: hashes, own: UInt64(number)))
            } else {
                throw fail("needs prompt, messages or input_length")
            }
            var item = Workload.Item(prompt: prompt, outputTokens: wanted)
            if let stamp = object["timestamp"]?.numberValue?.doubleValue {
                let from = origin ?? stamp
                origin = from
                guard stamp >= from, (stamp - from) * unit < 1e6 else { throw fail("timestamp goes backwards") }
                item.arrival = Nanoseconds((stamp - from) * unit * 1e9)
            }
            items.append(item)
        }
        guard !items.isEmpty else { throw WorkloadError("\(path) has no prompts") }
        return items
    }

    /// A ShareGPT file: the first turn is the prompt, the length of the second is the length of the answer.
    package static func shareGPT(
        path: String, limit: Int, outputTokens: Int?, maker: PromptMaker
    ) throws -> [Workload.Item] {
        guard let text = ProcessInfo.readFile(path, limit: largestFile),
            let list = (try? JSONValue.parse(text))?.arrayValue
        else { throw WorkloadError("\(path) is not a JSON list") }
        var items: [Workload.Item] = []
        for entry in list where items.count < limit {
            guard let turns = entry["conversations"]?.arrayValue, turns.count >= 2,
                let prompt = turns[0]["value"]?.stringValue, let answer = turns[1]["value"]?.stringValue
            else { continue }
            let wanted = outputTokens ?? maker.tokenCount(answer)
            // As vLLM: too short ones tell nothing.
            guard wanted >= 4, maker.tokenCount(prompt) >= 4 else { continue }
            items.append(Workload.Item(prompt: .text(prompt), outputTokens: wanted))
        }
        guard !items.isEmpty else { throw WorkloadError("\(path) has no conversations") }
        return items
    }
}

/// Prompts of traces that tell lengths and, by their hashes, which beginnings were the same.
private struct TracedPrompts {
    let maker: PromptMaker
    let seed: UInt64
    /// Tokens of a hash.
    let chunk: Int
    private var chunks: [UInt64: String] = [:]

    init(maker: PromptMaker, seed: UInt64, chunk: Int) {
        self.maker = maker
        self.seed = seed
        self.chunk = chunk
    }

    /// - Parameter own: seed of what no hash stands for.
    mutating func text(tokens: Int, hashes: [JSONValue], own: UInt64) -> String {
        let hashes = hashes.prefix((tokens + chunk - 1) / chunk).compactMap(\.numberValue?.intValue)
        var parts: [String] = []
        for (place, hash) in hashes.enumerated() {
            let size = min(chunk, tokens - place * chunk)
            let key = UInt64(bitPattern: Int64(hash)) &* 0x9E37_79B9 &+ UInt64(size) << 48
            let part = chunks[key] ?? maker.text(tokens: size, seed: seed &+ key)
            chunks[key] = part
            parts.append(part)
        }
        let rest = tokens - hashes.count * chunk
        if rest > 0 { parts.append(maker.text(tokens: rest, seed: seed &+ own)) }
        return parts.joined(separator: " ")
    }
}
