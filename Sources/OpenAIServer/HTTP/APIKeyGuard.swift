import NIOHTTP1

/// vLLM's bearer-token check: guards the API prefixes, leaves probes and pre-flight requests open.
package struct APIKeyGuard: Sendable {
    private let keys: [[UInt8]]
    private static let guardedPrefixes = ["/v1", "/v2", "/inference"]

    package init(keys: [String]) {
        self.keys = keys.map { Array($0.utf8) }
    }

    /// - Parameter path: without the root path.
    package func allows(method: HTTPMethod, path: String, headers: HTTPHeaders) -> Bool {
        guard !keys.isEmpty, method != .OPTIONS, Self.guardedPrefixes.contains(where: { path.hasPrefix($0) }) else {
            return true
        }
        guard let header = headers.first(name: "authorization") else { return false }
        let parts = header.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return false }
        let token = Array(parts[1].utf8)
        var found = false
        // Every key is compared, so that the time tells nothing about which one was close.
        for key in keys { found = Self.equal(key, token) || found }
        return found
    }

    /// Takes a time that depends on the length of `token` only.
    static func equal(_ key: [UInt8], _ token: [UInt8]) -> Bool {
        var difference = key.count ^ token.count
        for (index, byte) in token.enumerated() {
            difference |= Int(byte ^ (key.isEmpty ? 0 : key[index % key.count]))
        }
        return difference == 0
    }
}
