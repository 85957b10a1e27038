/// What happens to a text before it is split: the `normalizer` of `tokenizer.json`.
enum Normalizer: Sendable {
    case sequence([Normalizer])
    case nfc
    case nfd
    case lowercase
    /// Puts `text` in front of anything that is not empty.
    case prepend([UInt8])
    /// Replaces every occurrence of a non-empty byte string.
    case replace([UInt8], with: [UInt8])
    case replaceMatches(RegularExpression, with: [UInt8])
    case strip(left: Bool, right: Bool)

    /// Rewrites `text`, which is and stays valid UTF-8.
    func apply(to text: inout [UInt8]) throws(TokenizerError) {
        switch self {
        case .sequence(let parts): for part in parts { try part.apply(to: &text) }
        case .nfc: CanonicalNormalization.shared.compose(&text)
        case .nfd: CanonicalNormalization.shared.decompose(&text)
        case .lowercase: Self.lowercase(&text)
        case .prepend(let prefix): if !text.isEmpty { text.insert(contentsOf: prefix, at: 0) }
        case .replace(let old, let new): replaceAll(old, with: new, in: &text)
        case .replaceMatches(let expression, let new):
            var output: [UInt8] = []
            var position = 0
            try text.withUnsafeBufferPointer { bytes throws(TokenizerError) in
                try expression.forEachMatch(in: bytes) { start, end throws(TokenizerError) in
                    output += bytes[position..<start]
                    output += new
                    position = end
                }
                output += bytes[position...]
            }
            text = output
        case .strip(let left, let right): Self.strip(&text, left: left, right: right)
        }
    }

    /// The largest factor by which this can shrink a text (in bytes), nil when there is no such factor.
    var maximumShrinkage: Int? {
        switch self {
        case .sequence(let parts):
            var product = 1
            for part in parts {
                guard let factor = part.maximumShrinkage else { return nil }
                product *= factor
                if product > 1000 { return nil }
            }
            return product
        // Three Hangul letters of 3 bytes become one syllable of 3 bytes; the Kelvin sign of 3 bytes becomes K.
        case .nfc, .nfd, .lowercase: return 3
        case .prepend: return 1
        case .replace(let old, let new):
            return new.isEmpty ? nil : max(1, (old.count + new.count - 1) / new.count)
        case .replaceMatches, .strip: return nil
        }
    }

    private static func lowercase(_ text: inout [UInt8]) {
        var output: [UInt8] = []
        output.reserveCapacity(text.count)
        for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
            if scalar.isASCII {
                let byte = UInt8(scalar.value)
                output.append(byte &- 0x41 < 26 ? byte | 0x20 : byte)
            } else {
                output += Array(scalar.properties.lowercaseMapping.utf8)
            }
        }
        text = output
    }

    private static func strip(_ text: inout [UInt8], left: Bool, right: Bool) {
        let classes = CharacterClasses.shared
        let kept = text.withUnsafeBufferPointer { bytes -> Range<Int> in
            var start = 0
            var end = bytes.count
            guard let base = bytes.baseAddress else { return 0..<0 }
            while left, start < end {
                let (scalar, length) = decodeScalar(base, at: start)
                guard classes[scalar].meets(.space) else { break }
                start += length
            }
            while right, end > start {
                var previous = end - 1
                while base[previous] & 0xC0 == 0x80 { previous -= 1 }
                guard classes[decodeScalar(base, at: previous).scalar].meets(.space) else { break }
                end = previous
            }
            return start..<end
        }
        text = Array(text[kept])
    }
}

/// Replaces every occurrence of `old` (not empty), left to right.
func replaceAll(_ old: [UInt8], with new: [UInt8], in text: inout [UInt8]) {
    guard let first = old.first, text.contains(first) else { return }
    var output: [UInt8] = []
    output.reserveCapacity(text.count + text.count / 2)
    text.withUnsafeBufferPointer { bytes in
        var index = 0
        while index < bytes.count {
            if bytes[index] == first, bytes.count - index >= old.count,
                bytes[index..<index + old.count].elementsEqual(old)
            {
                output.append(contentsOf: new)
                index += old.count
            } else {
                output.append(bytes[index])
                index += 1
            }
        }
    }
    text = output
}
