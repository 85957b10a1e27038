/// Why a text is not acceptable JSON.
package struct JSONError: Error, Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// The text does not follow the grammar.
        case syntax
        /// The text is not UTF-8; reported in preference to any syntax error, because Python decodes first.
        case invalidUTF8
        /// A `\ud800`-style escape without its other half. Python's reader takes it and fails later, when encoding.
        case loneSurrogate
        /// Arrays and objects nested deeper than `JSONLimits.maximumDepth`.
        case tooDeep
        /// More bytes than `JSONLimits.maximumBytes`.
        case tooLarge
    }

    package let kind: Kind
    /// Bytes before the place Python's reader would report (for an unterminated string: its opening quote).
    package let offset: Int
    /// What is wrong, without the position.
    package let message: String

    package init(kind: Kind, offset: Int, message: String) {
        self.kind = kind
        self.offset = offset
        self.message = message
    }

    /// The same place counted in Unicode scalars, as Python counts, not counting a byte order mark at the start.
    /// - Parameter bytes: the text that was parsed.
    package func characterOffset(in bytes: some Collection<UInt8>) -> Int {
        var count = 0
        for byte in bytes.prefix(offset) where byte & 0xC0 != 0x80 { count += 1 }
        return bytes.starts(with: byteOrderMark) && count > 0 ? count - 1 : count
    }
}

let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

/// What a parser accepts from an untrusted source.
package struct JSONLimits: Sendable {
    /// Nesting of arrays and objects. Python's reader takes several hundred levels and refuses a thousand.
    package var maximumDepth: Int
    package var maximumBytes: Int

    package init(maximumDepth: Int = 512, maximumBytes: Int = .max) {
        self.maximumDepth = maximumDepth
        self.maximumBytes = maximumBytes
    }
}
