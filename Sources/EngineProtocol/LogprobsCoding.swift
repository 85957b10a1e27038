import MessagePack

extension LogprobRows {
    /// `[token ids, logprobs, ranks, ...]`: two arrays [P, K+1] and one [P]; elements after the third are passed over.
    init(decoding reader: inout MessagePackReader, frames: any FrameSource) throws(MessagePackError) {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count >= 3 else { throw MessagePackError(.invalid("logprobs of \(count) elements"), offset: start) }
        let ids = try EncodedArray(decoding: &reader, frames: frames)
        let values = try EncodedArray(decoding: &reader, frames: frames)
        let ranks = try EncodedArray(decoding: &reader, frames: frames)
        try reader.skip(count - 3)
        guard ids.shape.count == 2, values.shape == ids.shape, ranks.shape == [ids.shape[0]],
            // Rows without columns would let a tiny message claim any number of rows.
            ids.shape[1] > 0 || ids.shape[0] == 0
        else {
            throw MessagePackError(
                .invalid("logprob shapes \(ids.shape), \(values.shape), \(ranks.shape)"), offset: start)
        }
        guard let idValues = ids.int32Values(), let floats = values.floatValues(), let rankValues = ranks.int32Values()
        else { throw MessagePackError(.invalid("logprob element types or values"), offset: start) }
        self.init(
            rows: ids.shape[0], columns: ids.shape[1], tokenIDs: idValues, logprobs: floats, ranks: rankValues)
    }
}

extension LogprobRows? {
    func encode(
        into payload: inout [UInt8], _ auxiliary: inout [[UInt8]],
        types: (ids: String, logprobs: String, ranks: String), elements: Int
    ) {
        guard let rows = self else {
            payload.packNil()
            return
        }
        payload.packArrayHeader(elements)
        let shape = [rows.rows, rows.columns]
        EngineArray.encode(types.ids, shape, EngineArray.bytes(rows.tokenIDs), into: &payload, &auxiliary)
        EngineArray.encode(
            types.logprobs, shape, EngineArray.bytes(rows.logprobs.map { Int32(bitPattern: $0.bitPattern) }),
            into: &payload, &auxiliary)
        let ranks =
            types.ranks == "<i8" ? EngineArray.bytes(rows.ranks.map { Int64($0) }) : EngineArray.bytes(rows.ranks)
        EngineArray.encode(types.ranks, [rows.rows], ranks, into: &payload, &auxiliary)
        for _ in 3..<elements { payload.packNil() }
    }
}
