import Glibc

/// A nameless file in which engines of ours note how far loading is and our frontends look when a probe asks: 64 bytes for
/// each engine, a percentage and what it does (`blas-engine --progress-fd`).
package final class LoadProgress {
    /// Through which our frontend learns the number of its descriptor.
    static let variable = "VLLM_ENGINE_PROGRESS_FD"
    private static let recordSize = 64

    let descriptor: FileDescriptor

    package init(in directory: RuntimeDirectory) throws {
        let path = try directory.write("", to: "load-progress")
        descriptor = FileDescriptor(owning: open(path, O_RDWR | O_CLOEXEC))
        unlink(path)
        guard descriptor.isOpen else {
            throw SupervisionError(.failure, "cannot open \(path): \(describeErrno(errno))")
        }
    }

    /// A new process begins anew.
    func reset(rank: Int) {
        let record = [UInt8](repeating: 0, count: Self.recordSize)
        _ = pwrite(descriptor.rawValue, record, record.count, off_t(rank * Self.recordSize))
    }
}
