import Glibc
import Supervision

/// Follows the file that `blas-engine --stamps` writes, see Engine/README.md.
final class StampReader {
    static let recordBytes = 24
    private let path: String
    private var offset = 0
    /// Since the last `skip`.
    private(set) var traffic = EngineTraffic()

    init(path: String) { self.path = path }

    /// Skips what was written before a block.
    func skip() {
        offset = size
        traffic = EngineTraffic()
    }

    private var size: Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) / Self.recordBytes * Self.recordBytes : 0
    }

    /// Everything new, by seed.
    func read() -> [UInt64: EngineStamps] {
        let end = size
        guard end > offset else { return [:] }
        let file = FileDescriptor(owning: open(path, O_RDONLY | O_CLOEXEC))
        guard file.isOpen else { return [:] }
        var bytes = [UInt8](repeating: 0, count: end - offset)
        var filled = 0
        while filled < bytes.count {
            let start = filled
            let count = bytes.withUnsafeMutableBytes { raw in
                pread(file.rawValue, raw.baseAddress.map { $0 + start }, raw.count - start, off_t(offset + start))
            }
            if count <= 0 { break }
            filled += count
        }
        offset += filled / Self.recordBytes * Self.recordBytes
        return Self.parse(bytes[..<(filled / Self.recordBytes * Self.recordBytes)], &traffic)
    }

    private static func parse(_ bytes: ArraySlice<UInt8>, _ traffic: inout EngineTraffic) -> [UInt64: EngineStamps] {
        var stamps: [UInt64: EngineStamps] = [:]
        bytes.withUnsafeBytes { raw in
            for start in stride(from: 0, to: raw.count - recordBytes + 1, by: recordBytes) {
                let time = raw.loadUnaligned(fromByteOffset: start, as: Int64.self)
                let seed = raw.loadUnaligned(fromByteOffset: start + 8, as: UInt64.self)
                let kind = raw.loadUnaligned(fromByteOffset: start + 16, as: UInt32.self)
                let count = raw.loadUnaligned(fromByteOffset: start + 20, as: UInt32.self)
                switch kind {
                case 0: stamps[seed] = EngineStamps(received: time)
                case 1 where count > 0:
                    // Without its beginning a request is of no use.
                    stamps[seed]?.steps.append(time)
                    stamps[seed]?.stepTokens.append(UInt16(clamping: count))
                case 2:
                    traffic.requests += 1
                    traffic.requestBytes += Int(count)
                case 3: traffic.outputBytes += Int(count)
                default: break
                }
            }
        }
        return stamps
    }
}
