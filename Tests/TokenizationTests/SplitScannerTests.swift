import TestSupport
import Testing
import Tokenization

/// The scanners against PCRE2 with the same patterns.
@Suite struct SplitScannerTests {
    @Test(arguments: KnownSplitPattern.texts.map(\.text))
    func agreesWithTheRegularExpression(text: String) throws {
        let pattern = try #require(KnownSplitPattern(text: text))
        let expression = SplitMatcher.regularExpression(try RegularExpression(text))
        var generator = SeededGenerator(seed: 7)
        for sample in try GoldenTokenizer.corpus().map(Self.knownToPCRE2) {
            #expect(try pieces(.known(pattern), sample) == pieces(expression, sample), "\(sample.debugDescription)")
        }
        for _ in 0..<6000 {
            let sample = Self.randomText(&generator)
            let expected = try pieces(expression, sample)
            let found = try pieces(.known(pattern), sample)
            #expect(found == expected, "\(sample.debugDescription)")
            if found != expected { return }
        }
    }

    @Test func otherSpellingsAreNotRecognised() {
        for (_, text) in KnownSplitPattern.texts {
            #expect(KnownSplitPattern(text: text + " ") == nil)
            #expect(KnownSplitPattern(text: "(?:\(text))") == nil)
        }
    }

    private struct Stretch: Equatable {
        var range: Range<Int>
        var isMatch: Bool
    }

    private func pieces(_ matcher: SplitMatcher, _ text: String) throws -> [Stretch] {
        var stretches: [Stretch] = []
        let bytes = Array(text.utf8)
        try bytes.withUnsafeBufferPointer { buffer in
            try matcher.forEachStretch(of: buffer) { range, isMatch throws(TokenizerError) in
                stretches.append(Stretch(range: range, isMatch: isMatch))
            }
        }
        #expect(stretches.map(\.range.count).reduce(0, +) == bytes.count)
        return stretches
    }

    /// PCRE2 10.42 knows Unicode 14; newer characters are replaced.
    private static func knownToPCRE2(_ text: String) -> String {
        var result = ""
        result.unicodeScalars.append(contentsOf: text.unicodeScalars.map { isKnown($0) ? $0 : "?" })
        return result
    }

    private static func isKnown(_ scalar: Unicode.Scalar) -> Bool {
        guard let age = scalar.properties.age else { return false }
        return age.major <= 14
    }

    private static let pools: [[Unicode.Scalar]] = [
        Array("abcXYZ".unicodeScalars), Array("'sStTrReEvVmMlLdDſ".unicodeScalars), Array("0123456789".unicodeScalars),
        Array(" \t\n\r\u{B}\u{85}\u{A0}\u{2028}\u{3000}\u{180E}".unicodeScalars), Array("   \n".unicodeScalars),
        Array("'\"!?.,;:-_/\\()[]{}<>@#$%^&*+=~`|".unicodeScalars), Array("äÖßñ ÉжЖΩωǅʰª".unicodeScalars),
        Array("字漢一かなカナー한글龥龦".unicodeScalars), Array("\u{301}\u{308}\u{20DD}\u{93F}\u{E31}".unicodeScalars),
        Array("😀👍\u{1F3FD}\u{200D}❤\u{FE0F}€→½²Ⅷ①٣".unicodeScalars),
        Array("\u{0}\u{7}\u{7F}\u{200B}\u{FEFF}\u{E000}".unicodeScalars),
    ]

    private static func randomText(_ generator: inout SeededGenerator) -> String {
        var text = ""
        for _ in 0..<Int.random(in: 1...12, using: &generator) {
            if Int.random(in: 0..<8, using: &generator) == 0 {
                let value = UInt32.random(in: 0..<0x30000, using: &generator)
                if let scalar = Unicode.Scalar(value), isKnown(scalar) { text.unicodeScalars.append(scalar) }
                continue
            }
            let pool = pools.randomElement(using: &generator)!
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                text.unicodeScalars.append(pool.randomElement(using: &generator)!)
            }
        }
        return text
    }
}
