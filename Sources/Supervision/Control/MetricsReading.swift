import Glibc

/// What `vllm-engine top` takes from Prometheus pages: sums over labels, and histograms.
package struct MetricsReading: Sendable {
    private var sums: [String: Double] = [:]
    /// By name: upper bound to the number of values up to it.
    private var buckets: [String: [Double: Double]] = [:]

    package init() {}

    /// Adds a page. Lines that are no samples are skipped.
    package mutating func add(page: String) {
        for line in page.split(separator: "\n") where !line.hasPrefix("#") {
            guard let blank = line.lastIndex(of: " "), let value = Double(line[line.index(after: blank)...]) else {
                continue
            }
            let series = line[..<blank]
            let name = String(series.prefix { $0 != "{" })
            if name.hasSuffix("_bucket"), let start = series.index(afterASCII: "le=\"") {
                let text = series[start...].prefix { $0 != "\"" }
                let bound = text == "+Inf" ? Double.infinity : Double(text) ?? .nan
                if !bound.isNaN { buckets[String(name.dropLast(7)), default: [:]][bound, default: 0] += value }
            } else {
                sums[name, default: 0] += value
            }
        }
    }

    package func value(_ name: String) -> Double? { sums[name] }

    /// The value below which a part of the values lies, as far as the buckets tell; those of `earlier` do not count.
    package func quantile(_ part: Double, of name: String, since earlier: MetricsReading?) -> Double? {
        guard let counts = buckets[name] else { return nil }
        let before = earlier?.buckets[name] ?? [:]
        let cumulative = counts.map { (bound: $0.key, count: $0.value - (before[$0.key] ?? 0)) }
            .sorted { $0.bound < $1.bound }
        guard let total = cumulative.last?.count, total > 0 else { return nil }
        var lower = (bound: 0.0, count: 0.0)
        for bucket in cumulative {
            if bucket.count >= part * total {
                guard bucket.bound.isFinite else { return lower.bound }
                let width = bucket.count - lower.count
                return width <= 0
                    ? bucket.bound
                    : lower.bound + (bucket.bound - lower.bound) * (part * total - lower.count) / width
            }
            lower = bucket
        }
        return lower.bound
    }
}

/// One GET over plain HTTP, bounded in time and size.
enum PageRequest {
    private static let mostBytes = 16 << 20

    /// The body of a 200 answer; nil for anything else.
    static func get(_ path: String, at address: SocketAddress, timeout: Duration = .seconds(2)) -> String? {
        guard let socket = try? makeStreamSocket(address.family) else { return nil }
        let deadline = ContinuousClock.now + timeout
        var limit = timeval(tv_sec: Int(timeout.components.seconds), tv_usec: 0)
        setsockopt(socket.rawValue, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        // HTTP/1.0: the answer is not chunked and ends with the connection.
        let request = Array("GET \(path) HTTP/1.0\r\nHost: localhost\r\n\r\n".utf8)
        guard address.withPointer({ connect(socket.rawValue, $0, $1) }) == 0,
            send(socket.rawValue, request, request.count, Int32(MSG_NOSIGNAL)) == request.count
        else { return nil }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < mostBytes {
            var entry = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, (deadline - .now).pollMilliseconds) > 0 else { return nil }
            let count = recv(socket.rawValue, &chunk, chunk.count, 0)
            guard count >= 0 else { return nil }
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        let text = String(decoding: bytes, as: UTF8.self)
        guard text.prefix(12).hasSuffix(" 200") else { return nil }
        var index = bytes.startIndex
        let end = Array("\r\n\r\n".utf8)
        while index + 4 <= bytes.endIndex {
            if bytes[index..<index + 4].elementsEqual(end) {
                return String(decoding: bytes[(index + 4)...], as: UTF8.self)
            }
            index += 1
        }
        return nil
    }
}
