import Glibc
import JSONBytes

/// The pipe over which a child tells where it has bound its sockets: one JSON object such as
/// `{"input_address": "tcp://...", "output_address": "tcp://..."}`, then the end of the file.
package final class AddressReport {
    package enum Result: Equatable {
        /// In the order of the names.
        case addresses([String])
        case endOfFile
        case unusable(String)
    }

    private static let longest = 64 << 10
    private let readEnd: FileDescriptor
    private var writeEnd: FileDescriptor?
    private let names: [String]
    private let loop: EventLoop
    private var bytes: [UInt8] = []
    package private(set) var result: Result?

    package init(names: [String] = ["input_address", "output_address"], loop: EventLoop) throws {
        self.names = names
        self.loop = loop
        (readEnd, writeEnd) = try FileDescriptor.pipe(readsWithoutBlocking: true)
        loop.watch(readEnd.rawValue) { [unowned self] in drain() }
    }

    deinit { close() }

    package var childEnd: Int32 { writeEnd?.rawValue ?? -1 }

    /// To be called after the spawn: without it the end of the child would not be the end of the file.
    package func spawned() { writeEnd = nil }

    package var isComplete: Bool { result != nil }

    /// Reads what is there now.
    package func drain() {
        var chunk = [UInt8](repeating: 0, count: 4096)
        while readEnd.isOpen {
            let count = retryingInterrupts { read(readEnd.rawValue, &chunk, chunk.count) }
            if count < 0, errno == EAGAIN { return }
            if count > 0 {
                bytes += chunk[..<count]
                if bytes.count <= Self.longest { continue }
                result = .unusable("more than \(Self.longest) bytes")
            } else {
                result = parse()
            }
            close()
        }
    }

    private func close() {
        guard readEnd.isOpen else { return }
        loop.unwatch(readEnd.rawValue)
        readEnd.close()
    }

    private func parse() -> Result {
        if bytes.isEmpty { return .endOfFile }
        guard
            let object =
                (try? JSONValue.parse(
                    String(decoding: bytes, as: UTF8.self), limits: JSONLimits(maximumDepth: 4)))?.objectValue
        else { return .unusable("not a JSON object") }
        var found: [String] = []
        for name in names {
            guard let text = object[name]?.stringValue, text.hasPrefix("tcp://") || text.hasPrefix("ipc://") else {
                return .unusable("no \(name) that begins with tcp:// or ipc://")
            }
            found.append(text)
        }
        return .addresses(found)
    }
}
