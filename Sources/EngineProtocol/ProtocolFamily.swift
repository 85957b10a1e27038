/// Groups of vLLM releases that speak the same wire format. vLLM negotiates nothing: both ends must agree beforehand.
package enum ProtocolFamily: Int, Sendable, CaseIterable, Comparable, CustomStringConvertible {
    case v0_22 = 22
    case v0_25 = 25
    case v0_28 = 28
    case v0_30 = 30
    case v0_32 = 32
    case v0_33 = 33

    package static let newest = ProtocolFamily.v0_33

    /// The family of a release such as `0.32.0`, `v0.33.1.dev4+gabc` or `0.29.1`; releases above the newest known one
    /// count as the newest. Nil for older releases and for text that is not a release number.
    package init?(vllmVersion: String) {
        var text = vllmVersion.utf8[...]
        if text.first == UInt8(ascii: "v") { text.removeFirst() }
        guard let major = Self.takeNumber(&text), text.popFirst() == UInt8(ascii: "."),
            let minor = Self.takeNumber(&text)
        else { return nil }
        if major > 0 {
            self = .newest
            return
        }
        guard let family = Self.allCases.last(where: { $0.rawValue <= minor }) else { return nil }
        self = family
    }

    /// A family named by the user: `0.32`, or any release of it.
    package init?(name: String) { self.init(vllmVersion: name) }

    private static func takeNumber(_ text: inout Substring.UTF8View) -> Int? {
        let digits = text.prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
        text = text[digits.endIndex...]
        // Five digits are enough for any release and cannot overflow.
        guard digits.count <= 5 else { return nil }
        return Int(Substring(digits))
    }

    package static func < (a: ProtocolFamily, b: ProtocolFamily) -> Bool { a.rawValue < b.rawValue }

    package var description: String { "0.\(rawValue)" }

    /// Elements of an `EngineCoreRequest` array.
    var requestLength: Int { self < .v0_28 ? 20 : self < .v0_32 ? 21 : 22 }

    /// Elements of a full `EngineCoreOutput` array.
    var outputLength: Int {
        switch self {
        case .v0_22, .v0_25: 13
        case .v0_28: 16
        case .v0_30: 17
        case .v0_32: 18
        case .v0_33: 19
        }
    }

    /// Most elements of an `EngineCoreOutputs` array that its frontends accept.
    var outputsLength: Int { self < .v0_32 ? 8 : 9 }

    /// `ec_transfer_params` came in at position 9 and moved everything after it.
    var hasECTransferParams: Bool { self >= .v0_28 }

    /// Elements of a prompt-logprobs array.
    var promptLogprobsLength: Int { self < .v0_30 ? 4 : 5 }

    /// Whether a coordinator publishes the cache usage with each engine's counts.
    var coordinatorCountsHaveCacheUsage: Bool { self >= .v0_28 }

    /// Whether a frontend tells the coordinator about the first request after an idle phase (later engines do it).
    package var frontendStartsWaves: Bool { self < .v0_33 }

    /// The utility method behind `/pause`.
    package var pauseMethod: String { self < .v0_33 ? "pause_scheduler" : "pause_generation" }

    /// Whether the engine compiles a `choice` constraint with the xgrammar backend by itself.
    var engineCompilesChoices: Bool { self >= .v0_33 }
}
