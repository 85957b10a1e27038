import NIOSSL

/// OpenSSL's notation for cipher suites of TLS 1.2 (`ssl_ciphers`), such as `ECDHE+AESGCM:!AES128`.
///
/// Evaluated here because the TLS library ends the process when nothing is left of a list. OpenSSL skips words that it
/// does not know; here they are errors, for a typing mistake should not decide what is encrypted how.
package struct TLSCipherList {
    private struct Suite {
        let name: String
        let cipher: NIOTLSCipher
        /// Groups that it belongs to.
        let groups: Set<String>

        init(_ name: String, _ cipher: NIOTLSCipher) {
            self.name = name
            self.cipher = cipher
            let parts = Set(name.split(separator: "-").map(String.init))
            var groups: Set<String> = ["ALL", "DEFAULT", "HIGH", "TLSv1.2", parts.contains("ECDSA") ? "ECDSA" : "aRSA"]
            if parts.contains("ECDHE") {
                groups.formUnion(["ECDHE", "EECDH", "kECDHE", "kEECDH"])
            } else {
                groups.insert("kRSA")
            }
            if parts.contains("ECDSA") { groups.insert("aECDSA") } else { groups.insert("RSA") }
            for size in ["AES128", "AES256"] where parts.contains(size) { groups.formUnion(["AES", size]) }
            if parts.contains("GCM") { groups.insert("AESGCM") }
            if parts.contains("CHACHA20") { groups.insert("CHACHA20") }
            if parts.contains("SHA") { groups.formUnion(["SHA", "SHA1", "TLSv1", "SSLv3"]) }
            self.groups = groups
        }

        func fits(_ word: Substring) -> Bool { name == word || groups.contains(String(word)) }
    }

    /// In the library's own order of preference. Suites of pre-shared keys are left out: there are no such keys.
    private static let known = [
        Suite("ECDHE-ECDSA-AES128-GCM-SHA256", .TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        Suite("ECDHE-RSA-AES128-GCM-SHA256", .TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        Suite("ECDHE-ECDSA-AES256-GCM-SHA384", .TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        Suite("ECDHE-RSA-AES256-GCM-SHA384", .TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        Suite("ECDHE-ECDSA-CHACHA20-POLY1305", .TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        Suite("ECDHE-RSA-CHACHA20-POLY1305", .TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
        Suite("ECDHE-ECDSA-AES128-SHA", .TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA),
        Suite("ECDHE-RSA-AES128-SHA", .TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA),
        Suite("ECDHE-ECDSA-AES256-SHA", .TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA),
        Suite("ECDHE-RSA-AES256-SHA", .TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA),
        Suite("AES128-GCM-SHA256", .TLS_RSA_WITH_AES_128_GCM_SHA256),
        Suite("AES256-GCM-SHA384", .TLS_RSA_WITH_AES_256_GCM_SHA384),
        Suite("AES128-SHA", .TLS_RSA_WITH_AES_128_CBC_SHA),
        Suite("AES256-SHA", .TLS_RSA_WITH_AES_256_CBC_SHA),
    ]

    /// Groups without a member here; excluding them is common and changes nothing.
    private static let emptyGroups: Set<Substring> = [
        "aNULL", "eNULL", "NULL", "EXPORT", "LOW", "MEDIUM", "DES", "3DES", "RC4", "MD5", "PSK", "kPSK", "SRP", "DSS",
        "aDSS", "DH",
        "ADH", "AECDH", "DHE", "EDH", "kDHE", "kEDH", "CAMELLIA", "SEED", "IDEA", "ARIA", "SHA256", "SHA384", "AESCCM",
        "COMPLEMENTOFDEFAULT",
    ]

    /// Not empty, best first.
    package let ciphers: [NIOTLSCipher]

    package init(_ text: String) throws(ServerSetupError) {
        var chosen: [Suite] = []
        var excluded: Set<String> = []
        for word in text.split(whereSeparator: { ":, ".contains($0) }) {
            // Sorting by strength is the order of preference in any case.
            if word == "@STRENGTH" { continue }
            let sign = word.first.flatMap { "!-+".contains($0) ? $0 : nil }
            let parts = (sign == nil ? word : word.dropFirst()).split(separator: "+", omittingEmptySubsequences: false)
            for part in parts where !Self.emptyGroups.contains(part) && !Self.known.contains(where: { $0.fits(part) }) {
                throw ServerSetupError("ssl_ciphers: '\(part)' is no cipher suite or group that this server knows")
            }
            let members = Self.known.filter { suite in parts.allSatisfy { suite.fits($0) } }
            let names = Set(members.map(\.name))
            switch sign {
            case "!":
                excluded.formUnion(names)
                chosen.removeAll { names.contains($0.name) }
            case "-": chosen.removeAll { names.contains($0.name) }
            case "+": chosen = chosen.filter { !names.contains($0.name) } + chosen.filter { names.contains($0.name) }
            default:
                let present = Set(chosen.map(\.name))
                chosen += members.filter { !present.contains($0.name) && !excluded.contains($0.name) }
            }
        }
        guard !chosen.isEmpty else { throw ServerSetupError("ssl_ciphers: no cipher suite is left by '\(text)'") }
        ciphers = chosen.map(\.cipher)
    }
}
