import Glibc

/// How far the engines of this machine are with loading, as they note it in a file that the supervisor shares with them: 64
/// bytes for each engine, a percentage and what it does (`blas-engine --progress-fd`).
package struct LoadProgress: Sendable {
    private static let recordSize = 64

    private let descriptor: Int32
    private let ranks: Range<Int>

    package init(descriptor: Int32, ranks: Range<Int>) {
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        self.descriptor = descriptor
        self.ranks = ranks
    }

    package struct Report: Equatable, Sendable, CustomStringConvertible {
        package let phase: String
        package let percent: Int

        package var description: String { "\(phase), \(percent) %" }
    }

    /// Of the engine that has most to do; nil if none has noted that it has something to do.
    package func current() -> Report? {
        ranks.compactMap(report).filter { $0.percent < 100 }.min { $0.percent < $1.percent }
    }

    private func report(ofRank rank: Int) -> Report? {
        withUnsafeTemporaryAllocation(byteCount: Self.recordSize, alignment: 1) { record in
            let count = pread(descriptor, record.baseAddress, record.count, off_t(rank * Self.recordSize))
            guard count > 1, record[1] != 0 else { return nil }
            let phase = record[1..<count].prefix { $0 != 0 }
            return Report(phase: String(decoding: phase, as: UTF8.self), percent: min(Int(record[0]), 100))
        }
    }
}
