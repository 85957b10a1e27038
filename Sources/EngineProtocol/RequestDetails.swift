import MessagePack

/// A numeric array that is passed on and not computed with (vLLM: a numpy array or a tensor in main memory).
package struct EngineArray: Sendable, Equatable {
    /// The wire's name: numpy's (`<i4`, `|u1`) of arrays, torch's (`int32`, `bfloat16`) of tensors.
    package var type: String
    package var shape: [Int]
    /// All elements, the last dimension's next to each other.
    package var bytes: [UInt8]
    package init(type: String, shape: [Int], bytes: [UInt8]) {
        self.type = type
        self.shape = shape
        self.bytes = bytes
    }
}

/// Which tokens were left to choose from at each of some positions (vLLM: `SamplingMaskLists`).
package struct SamplingMask: Sendable, Equatable {
    /// The sets one after another.
    package var tokenIDs: [Int32]
    /// Where the sets begin in ``tokenIDs``, and the end: one more than there are sets. Nil: there is one.
    package var offsets: [Int32]?

    package init(tokenIDs: [Int32], offsets: [Int32]? = nil) {
        self.tokenIDs = tokenIDs
        self.offsets = offsets
    }

    package var count: Int { offsets.map { $0.count - 1 } ?? 1 }

    /// - Parameter position: `0..<count`
    package subscript(position: Int) -> ArraySlice<Int32> {
        guard let offsets else { return tokenIDs[...] }
        return tokenIDs[Int(offsets[position])..<Int(offsets[position + 1])]
    }

    /// `[token ids, offsets or nil, nil]`
    init(decoding reader: inout MessagePackReader, frames: any FrameSource) throws(MessagePackError) {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count >= 1 else { throw MessagePackError(.invalid("empty sampling mask"), offset: start) }
        let ids = try EncodedArray(decoding: &reader, frames: frames)
        guard ids.shape.count == 1, let values = ids.int32Values() else {
            throw MessagePackError(.invalid("token ids of a sampling mask"), offset: start)
        }
        self.init(tokenIDs: values)
        if count >= 2, try !reader.skipNil() {
            let array = try EncodedArray(decoding: &reader, frames: frames)
            guard array.shape.count == 1, let bounds = array.int32Values(), let first = bounds.first, first >= 0,
                let last = bounds.last, last <= values.count, zip(bounds, bounds.dropFirst()).allSatisfy(<=)
            else { throw MessagePackError(.invalid("offsets of a sampling mask"), offset: start) }
            offsets = bounds
        }
        try reader.skip(max(0, count - 2))
    }

    func encode(into payload: inout [UInt8], _ auxiliary: inout [[UInt8]]) {
        payload.packArrayHeader(3)
        EngineArray.encode("<i4", [tokenIDs.count], EngineArray.bytes(tokenIDs), into: &payload, &auxiliary)
        if let offsets {
            EngineArray.encode(
                "<i8", [offsets.count], EngineArray.bytes(offsets.map { Int64($0) }), into: &payload, &auxiliary)
        } else {
            payload.packNil()
        }
        payload.packNil()
    }
}

/// How far speculation was right in one sequence (vLLM: `RequestSpecDecodeMetrics`).
package struct RequestSpecDecodeMetrics: Sendable, Equatable {
    /// The most tokens that are drafted at once.
    package var numSpecTokens = 0
    /// At index n the steps of which n drafted tokens were accepted.
    package var histogram: [Int] = []
    package var numDraftTokens = 0
    /// By step; only if the engine was asked for details.
    package var perStepAccepted: [Int] = []
    package var perStepDrafted: [Int] = []
    package init() {}

    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            switch key {
            case "num_spec_tokens": numSpecTokens = try reader.readInt()
            case "histogram": histogram = try reader.readInts()
            case "num_draft_tokens": numDraftTokens = try reader.readInt()
            case "per_step_accepted": perStepAccepted = try reader.readInts()
            case "per_step_drafted": perStepDrafted = try reader.readInts()
            default: try reader.skip()
            }
        }
    }

    func encode(into payload: inout [UInt8]) {
        payload.packMapHeader(5)
        payload.pack(key: "num_spec_tokens")
        payload.pack(numSpecTokens)
        payload.pack(key: "histogram")
        payload.pack(integers: histogram)
        payload.pack(key: "num_draft_tokens")
        payload.pack(numDraftTokens)
        payload.pack(key: "per_step_accepted")
        payload.pack(integers: perStepAccepted)
        payload.pack(key: "per_step_drafted")
        payload.pack(integers: perStepDrafted)
    }
}

extension [UInt8] {
    mutating func pack(integers values: [Int]) {
        packArrayHeader(values.count)
        for value in values { pack(value) }
    }
}
