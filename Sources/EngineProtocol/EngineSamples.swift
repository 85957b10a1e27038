import MessagePack

/// A block of the cache that was given up (vLLM: `KVCacheEvictionEvent`). Seconds.
package struct KVCacheEvictionEvent: Sendable, Equatable {
    package var lifetime = 0.0
    /// Since its last use.
    package var idle = 0.0
    /// Between its last uses.
    package var reuseGaps: [Double] = []
    package init() {}

    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "lifetime_seconds": lifetime = try reader.readDouble()
            case "idle_seconds": idle = try reader.readDouble()
            case "reuse_gaps_seconds":
                reuseGaps = try reader.readArray { r throws(MessagePackError) in try r.readDouble() }
            default: try reader.skip()
            }
        }
    }

    func encode(into output: inout [UInt8]) {
        output.packMapHeader(3)
        output.pack(key: "lifetime_seconds")
        output.pack(lifetime)
        output.pack(key: "idle_seconds")
        output.pack(idle)
        output.pack(key: "reuse_gaps_seconds")
        output.packArrayHeader(reuseGaps.count)
        for gap in reuseGaps { output.pack(gap) }
    }
}

/// An estimate of the work since the previous message (vLLM: `PerfStats`).
package struct PerfStats: Sendable, Equatable {
    package var flopsPerGPU = 0
    package var readBytesPerGPU = 0
    package var writeBytesPerGPU = 0
    package init() {}

    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "num_flops_per_gpu": flopsPerGPU = try reader.readInt()
            case "num_read_bytes_per_gpu": readBytesPerGPU = try reader.readInt()
            case "num_write_bytes_per_gpu": writeBytesPerGPU = try reader.readInt()
            default: try reader.skip()
            }
        }
    }

    func encode(into output: inout [UInt8]) {
        output.packMapHeader(3)
        output.pack(key: "num_flops_per_gpu")
        output.pack(flopsPerGPU)
        output.pack(key: "num_read_bytes_per_gpu")
        output.pack(readBytesPerGPU)
        output.pack(key: "num_write_bytes_per_gpu")
        output.pack(writeBytesPerGPU)
    }
}

extension MessagePackReader {
    mutating func readCounts() throws(MessagePackError) -> [String: Int] {
        var counts: [String: Int] = [:]
        for _ in 0..<(try readMapHeader()) {
            let name = try readString()
            counts[name] = try readInt()
        }
        return counts
    }
}

extension [UInt8] {
    mutating func pack(counts: [String: Int]) {
        packMapHeader(counts.count)
        for (name, count) in counts.sorted(by: { $0.key < $1.key }) {
            pack(name)
            pack(count)
        }
    }
}
