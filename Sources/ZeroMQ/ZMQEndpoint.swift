import CZeroMQ
import Glibc

/// Endpoint strings of listening sockets.
package enum ZMQEndpoint {
    /// The endpoint of a bound stream socket: `tcp://a.b.c.d:port`, `tcp://[v6]:port` or `ipc://path`.
    package static func ofListener(_ descriptor: Int32) throws(ZMQError) -> String {
        let operation = "getsockname of listener \(descriptor)"
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let status = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard status == 0 else { throw ZMQError(code: errno, operation: operation) }
        let family = Int32(storage.ss_family)
        let address = withUnsafeBytes(of: &storage) { raw -> String? in
            switch family {
            case AF_UNIX: return unixPath(raw, length: Int(length)).map { "ipc://\($0)" }
            case AF_INET: return numericHost(raw, AF_INET, addressOffset: 4).map { "tcp://\($0):\(port(raw))" }
            case AF_INET6: return numericHost(raw, AF_INET6, addressOffset: 8).map { "tcp://[\($0)]:\(port(raw))" }
            default: return nil
            }
        }
        guard let address else { throw ZMQError(code: EAFNOSUPPORT, operation: operation) }
        return address
    }

    private static func port(_ raw: UnsafeRawBufferPointer) -> UInt16 {
        UInt16(bigEndian: raw.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
    }

    private static func numericHost(_ raw: UnsafeRawBufferPointer, _ family: Int32, addressOffset: Int) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) { text in
            inet_ntop(family, raw.baseAddress! + addressOffset, text.baseAddress!, socklen_t(text.count))
                .map { String(cString: $0) }
        }
    }

    private static func unixPath(_ raw: UnsafeRawBufferPointer, length: Int) -> String? {
        let start = MemoryLayout<sa_family_t>.size
        guard length > start, length <= raw.count else { return nil }
        let bytes = raw[start..<length]
        // An abstract name starts with NUL (libzmq spells it "@"), a path ends with one.
        if bytes.first == 0 { return "@" + String(decoding: bytes.dropFirst(), as: UTF8.self) }
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
