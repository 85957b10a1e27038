import JSONBytes

/// A Hugging Face tokenizer (`tokenizer.json` with a BPE model): text to ids and back, with the ids that the PyPI
/// package `tokenizers` gives. Immutable; safe to use from any thread.
package final class Tokenizer: Sendable {
    let normalizer: Normalizer?
    let preTokenizer: PreTokenizer
    let model: BytePairModel
    let postProcessor: PostProcessor
    let decoder: TokenDecoder
    let texts: TokenTexts
    let names: TokenNames
    private let idsByContent: [[UInt8]: Int32]
    private let rawAddedTokens: AddedTokenMatcher
    private let normalizedAddedTokens: AddedTokenMatcher

    /// `bos_token` of `tokenizer_config.json`.
    package let bosTokenID: Int32?
    /// `eos_token` of `tokenizer_config.json`.
    package let eosTokenID: Int32?
    /// The replacement character of a `Metaspace` pre-tokenizer, which marks spaces in ``tokenString(_:)``.
    package let spaceMarker: String?
    /// An upper bound of the UTF-8 bytes of input that one token stands for, nil when there is none. (White space that
    /// an added token with `lstrip` or `rstrip` swallows does not count.)
    package let maxBytesPerToken: Int?

    /// Longest text in bytes; positions inside it are 32-bit.
    private static let maximumTextBytes = 1 << 30

    init(_ parts: TokenizerParts) {
        normalizer = parts.normalizer
        preTokenizer = parts.preTokenizer
        model = parts.model
        postProcessor = parts.postProcessor
        decoder = parts.decoder
        texts = parts.texts
        names = parts.names
        idsByContent = parts.idsByContent
        rawAddedTokens = parts.rawAddedTokens
        normalizedAddedTokens = parts.normalizedAddedTokens
        bosTokenID = parts.bosTokenID
        eosTokenID = parts.eosTokenID
        spaceMarker = parts.spaceMarker
        maxBytesPerToken = parts.maxBytesPerToken
    }

    // MARK: Vocabulary

    /// The largest id plus one, added tokens included. Ids below it may be unused.
    package var vocabularySize: Int { texts.count }

    /// Whether ``encode(_:addSpecialTokens:stoppingAfter:)-(String,_,_)`` can put the beginning-of-sequence token first.
    package var addsBOS: Bool { bosTokenID != nil && postProcessor.prefix.first == bosTokenID }

    /// The token as the vocabulary spells it, for example `Ġthe`; nil for ids that stand for nothing.
    package func tokenString(_ id: Int32) -> String? {
        names[id].map { String(decoding: $0, as: UTF8.self) }
    }

    /// The id of a token in the vocabulary's spelling.
    package func id(forToken token: String) -> Int32? { idsByContent[Array(token.utf8)] ?? names.model.id(of: token) }

    /// `added_tokens`: id and text, by id.
    package var addedTokens: [(id: Int32, content: String)] {
        idsByContent.map { (id: $0.value, content: String(decoding: $0.key, as: UTF8.self)) }.sorted { $0.id < $1.id }
    }

    package func exists(_ id: Int32) -> Bool { texts.flags(id).contains(.exists) }

    /// Whether `skipSpecialTokens` leaves this token out.
    package func isSpecial(_ id: Int32) -> Bool { texts.flags(id).contains(.special) }

    // MARK: Encoding

    /// The least number of tokens that a text of `utf8Count` bytes can have, without tokenizing it: a prompt for which
    /// this is above the context length can be refused at once.
    package func minimumTokenCount(utf8Count: Int) -> Int {
        guard let maxBytesPerToken, maxBytesPerToken > 0 else { return 0 }
        return utf8Count / maxBytesPerToken
    }

    /// The ids of `text`. Bytes that are not UTF-8 count as U+FFFD.
    /// - Parameters:
    ///   - addSpecialTokens: whether the post-processor adds its tokens, such as the beginning of the sequence.
    ///   - limit: stops soon after this many tokens; a result that is longer than the limit may be incomplete.
    /// - Throws: ``TokenizerError/Code/tooComplex`` for texts beyond 1 GiB or beyond the matching limit of a split
    ///   pattern.
    package func encode(
        _ text: UnsafeBufferPointer<UInt8>, addSpecialTokens: Bool, stoppingAfter limit: Int = .max
    ) throws(TokenizerError) -> [Int32] {
        guard text.count <= Self.maximumTextBytes else {
            throw TokenizerError(.tooComplex, "a text of \(text.count) bytes is too long to be tokenized")
        }
        guard isValidUTF8(text) else {
            var repaired = String(decoding: text, as: UTF8.self)
            let result = repaired.withUTF8 { repaired in
                Result { () throws(TokenizerError) in
                    try encodeValid(repaired, addSpecialTokens: addSpecialTokens, limit: limit)
                }
            }
            return try result.get()
        }
        return try encodeValid(text, addSpecialTokens: addSpecialTokens, limit: limit)
    }

    /// The ids of `text`.
    package func encode(
        _ text: String, addSpecialTokens: Bool, stoppingAfter limit: Int = .max
    ) throws(TokenizerError) -> [Int32] {
        var text = text
        let result = text.withUTF8 { text in
            Result { () throws(TokenizerError) in
                try encode(text, addSpecialTokens: addSpecialTokens, stoppingAfter: limit)
            }
        }
        return try result.get()
    }

    private func encodeValid(
        _ text: UnsafeBufferPointer<UInt8>, addSpecialTokens: Bool, limit: Int
    ) throws(TokenizerError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(min(text.count / 3, limit) + 8)
        if addSpecialTokens { ids += postProcessor.prefix }
        let scratch = MergeScratch()
        try rawAddedTokens.forEachSection(of: text) { section throws(TokenizerError) in
            if ids.count > limit { return }
            switch section {
            case .token(let id): ids.append(id)
            case .text(let range):
                let section = UnsafeBufferPointer(rebasing: text[range])
                let isStart = range.lowerBound == 0
                guard let normalizer else {
                    return try encodeNormalized(section, isStart, limit, scratch, &ids)
                }
                var normalized = Array(section)
                try normalizer.apply(to: &normalized)
                try normalized.withUnsafeBufferPointer { normalized throws(TokenizerError) in
                    try encodeNormalized(normalized, isStart, limit, scratch, &ids)
                }
            }
        }
        if addSpecialTokens { ids += postProcessor.suffix }
        return ids
    }

    private func encodeNormalized(
        _ text: UnsafeBufferPointer<UInt8>, _ isStart: Bool, _ limit: Int, _ scratch: MergeScratch, _ ids: inout [Int32]
    ) throws(TokenizerError) {
        if normalizedAddedTokens.isEmpty { return try encodePlain(text, isStart, limit, scratch, &ids) }
        try normalizedAddedTokens.forEachSection(of: text) { section throws(TokenizerError) in
            if ids.count > limit { return }
            switch section {
            case .token(let id): ids.append(id)
            case .text(let range):
                try encodePlain(
                    UnsafeBufferPointer(rebasing: text[range]), isStart && range.lowerBound == 0, limit, scratch, &ids)
            }
        }
    }

    private func encodePlain(
        _ text: UnsafeBufferPointer<UInt8>, _ isStart: Bool, _ limit: Int, _ scratch: MergeScratch, _ ids: inout [Int32]
    ) throws(TokenizerError) {
        let model = model
        try preTokenizer.forEachPiece(of: text, isStart: isStart) { piece in
            if ids.count <= limit { model.encode(piece, scratch: scratch, into: &ids) }
        }
    }

    // MARK: Decoding

    /// The text of a token that means the same wherever it stands, as nearly all do that are raw bytes; nil for others.
    package func standaloneText(_ id: Int32) -> String? {
        guard case .byteLevel = decoder.joining, texts.flags(id).isSuperset(of: [.exists, .valid]) else { return nil }
        return String(decoding: texts[id], as: UTF8.self)
    }

    /// The text of `ids`; ids outside the vocabulary stand for nothing.
    package func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool) -> String {
        var detokenizer = IncrementalDetokenizer(self, skipSpecialTokens: skipSpecialTokens, runLimit: .max)
        var bytes: [UInt8] = []
        for id in ids { detokenizer.append(id, into: &bytes) }
        detokenizer.finish(into: &bytes)
        return String(decoding: bytes, as: UTF8.self)
    }
}
