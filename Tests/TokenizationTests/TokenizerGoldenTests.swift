import Testing
import Tokenization

@Suite struct TokenizerGoldenTests {
    @Test(arguments: GoldenTokenizer.names)
    func encodesLikeTokenizers(name: String) throws {
        let golden = try GoldenTokenizer(name)
        #expect(golden.encodings.count >= 60)
        for entry in golden.encodings {
            let ids = try golden.tokenizer.encode(entry.text, addSpecialTokens: false)
            #expect(ids == entry.ids, "\(name): \(entry.text.debugDescription)")
            let full = try golden.tokenizer.encode(entry.text, addSpecialTokens: true)
            #expect(full == entry.withSpecialTokens, "\(name): \(entry.text.debugDescription)")
        }
    }

    @Test(arguments: GoldenTokenizer.names)
    func decodesLikeTokenizers(name: String) throws {
        let golden = try GoldenTokenizer(name)
        for entry in golden.encodings {
            let all = golden.tokenizer.decode(entry.withSpecialTokens, skipSpecialTokens: false)
            #expect(sameBytes(all, entry.decoded), "\(name): \(entry.text.debugDescription)")
            let skipped = golden.tokenizer.decode(entry.withSpecialTokens, skipSpecialTokens: true)
            #expect(sameBytes(skipped, entry.decodedWithoutSpecialTokens), "\(name): \(entry.text.debugDescription)")
        }
        for entry in golden.decodings {
            let all = golden.tokenizer.decode(entry.ids, skipSpecialTokens: false)
            #expect(sameBytes(all, entry.all), "\(name): \(entry.ids)")
            let skipped = golden.tokenizer.decode(entry.ids, skipSpecialTokens: true)
            #expect(sameBytes(skipped, entry.skipped), "\(name): \(entry.ids)")
        }
    }

    @Test(arguments: GoldenTokenizer.names)
    func knowsTheVocabulary(name: String) throws {
        let golden = try GoldenTokenizer(name)
        #expect(golden.tokenizer.vocabularySize == golden.vocabularySize)
        for (id, string) in golden.strings {
            let found = try #require(golden.tokenizer.tokenString(id))
            #expect(sameBytes(found, string))
            #expect(golden.tokenizer.id(forToken: string) == id)
        }
        #expect(golden.tokenizer.tokenString(Int32(golden.vocabularySize)) == nil)
        #expect(golden.tokenizer.tokenString(-1) == nil)
    }
}
