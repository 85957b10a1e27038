import Glibc
import Logging

/// Puts changed certificate files to use for new connections (vLLM: `SSLCertRefresher`).
///
/// The files are looked at, links followed, instead of being watched by the kernel: whatever is replaced, the file, a
/// link to it or a folder above it, and on whatever file system, is seen the same way.
package final class CertificateRefresh {
    /// What tells two states of a file apart; nil = it cannot be looked at.
    private struct Stamp: Equatable {
        var device: UInt
        var inode: UInt
        var size: Int
        var changed: [Int]
    }

    /// How often to call ``check()``. A change is used once two looks in a row agree: certificate and key are replaced
    /// one after the other.
    package static let interval = 0.25

    private let settings: TLSSettings
    private let box: TLSContextBox
    private let logger: Logger
    /// Of the files as they were read last, usable or not.
    private var read: [Stamp?]
    private var seen: [Stamp?]

    package init(_ settings: TLSSettings, box: TLSContextBox, logger: Logger) {
        self.settings = settings
        self.box = box
        self.logger = logger
        read = settings.files.map(Self.stamp)
        seen = read
    }

    /// Reads the files if they have changed and the change is over. Files that cannot be used leave everything as it
    /// is and cost one line in the log.
    package func check() {
        let now = settings.files.map(Self.stamp)
        defer { seen = now }
        guard now == seen, now != read else { return }
        read = now
        do {
            box.replace(try settings.makeContext())
            logger.info("new connections use the changed certificate \(settings.certificateFile)")
        } catch {
            logger.error("the changed certificate is not used, the old one stays: \(error)")
        }
    }

    private static func stamp(_ path: String) -> Stamp? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Stamp(
            device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
            changed: [
                status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
            ])
    }
}
