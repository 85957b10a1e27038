import Synchronization

/// Accepted draft tokens by their place in the draft (vLLM: `vllm:spec_decode_num_accepted_tokens_per_pos`).
///
/// How long drafts are is known when an engine tells of the first ones. Longer ones later get a block of their own; the
/// page adds the blocks up.
final class AcceptedPositions: Sendable {
    /// Places that are counted; no drafter in use comes near. It bounds what a broken engine can make us keep.
    static let limit = 256

    private let memory: MetricMemory
    private let blocks = Mutex<[Int: MetricCells]>([:])

    init(memory: MetricMemory) { self.memory = memory }

    /// - Parameter counts: deltas, from the first place on.
    func add(_ counts: [Int], engine: Int) {
        let places = min(counts.count, Self.limit)
        guard places > 0 else { return }
        blocks.withLock { blocks in
            let cells: MetricCells
            if let known = blocks[engine], known.count >= places {
                cells = known
            } else {
                cells = memory.block(.acceptedPositions, labels: ["\(engine)"], count: places)
                blocks[engine] = cells
            }
            for place in 0..<places where counts[place] > 0 { cells.add(UInt64(counts[place]), at: place) }
        }
    }
}

extension MetricReading {
    /// As many as there are places in the longest drafts.
    func acceptedPositions(engine: Int) -> [UInt64] {
        var result: [UInt64] = []
        for block in blocks where block.kind == .acceptedPositions && block.labels == ["\(engine)"] {
            let cells = block.cells
            guard cells.count <= AcceptedPositions.limit else { continue }
            while result.count < cells.count { result.append(0) }
            for place in 0..<cells.count { result[place] &+= cells.integer(at: place) }
        }
        return result
    }
}
