import Glibc
import JSONBytes

/// Everything a ``Tokenizer`` is made of.
struct TokenizerParts {
    var normalizer: Normalizer?
    var preTokenizer: PreTokenizer
    var model: BytePairModel
    var postProcessor: PostProcessor
    var decoder: TokenDecoder
    var texts: TokenTexts
    var names: TokenNames
    /// Ids of added tokens.
    var idsByContent: [[UInt8]: Int32]
    var rawAddedTokens: AddedTokenMatcher
    var normalizedAddedTokens: AddedTokenMatcher
    var bosTokenID: Int32?
    var eosTokenID: Int32?
    var spaceMarker: String?
    var maxBytesPerToken: Int?
}

extension Tokenizer {
    /// The largest published `tokenizer.json` has about 35 MB.
    private static let maximumFileBytes = 256 << 20
    private static let maximumConfigBytes = 16 << 20

    /// Loads `tokenizer.json` and, where present, `tokenizer_config.json` from a model folder.
    package static func load(folder: String) throws(TokenizerError) -> Tokenizer {
        let path = folder + "/tokenizer.json"
        guard let file = try readFile(path, limit: maximumFileBytes) else {
            let missing = access(folder, F_OK) == 0 ? path : "model folder \(folder)"
            throw TokenizerError(.unreadable, "\(missing) does not exist")
        }
        let config = try readFile(folder + "/tokenizer_config.json", limit: maximumConfigBytes)
        return try Tokenizer(tokenizerJSON: file, tokenizerConfigJSON: config)
    }

    /// Builds a tokenizer from the contents of `tokenizer.json` and `tokenizer_config.json`.
    package convenience init(
        tokenizerJSON: [UInt8], tokenizerConfigJSON: [UInt8]? = nil
    ) throws(TokenizerError) {
        let (file, texts) = try Self.parse(
            tokenizerJSON, name: "tokenizer.json", taking: JSONTextsRequest(["vocab", "merges"], of: "model"))
        var config: TokenizerConfig?
        if let tokenizerConfigJSON {
            config = TokenizerConfig(
                try Self.parse(
                    tokenizerConfigJSON, name: "tokenizer_config.json", taking: JSONTextsRequest([], of: "")
                ).value)
        }
        self.init(try TokenizerParts(TokenizerJSON(file, path: ""), texts: texts, config: config))
    }

    private static func parse(
        _ bytes: [UInt8], name: String, taking request: JSONTextsRequest
    ) throws(TokenizerError) -> (value: JSONValue, texts: [String: JSONTexts]) {
        let limits = JSONLimits(maximumDepth: 64, maximumBytes: maximumFileBytes)
        do {
            return try bytes.withUnsafeBufferPointer { bytes throws(JSONError) in
                try JSONValue.parse(bytes, limits: limits, taking: request)
            }
        } catch {
            throw TokenizerError(.malformed, "\(name): \(error.message) at byte \(error.offset)")
        }
    }
}

/// The fields of `tokenizer_config.json` that matter here.
struct TokenizerConfig {
    var bosToken: [UInt8]?
    var eosToken: [UInt8]?
    /// Set when the file says whether to add them: `transformers` then ignores the post-processor of the other file.
    var addsBOS: Bool?
    var addsEOS: Bool?
    /// Tokens that `tokenizer.json` may lack, by id.
    var addedTokens: [AddedToken] = []

    init(_ json: JSONValue) {
        bosToken = Self.content(json["bos_token"])
        eosToken = Self.content(json["eos_token"])
        if let flag = json["add_bos_token"] { addsBOS = flag.boolValue ?? false }
        if let flag = json["add_eos_token"] { addsEOS = flag.boolValue ?? false }
        var tokens: [AddedToken] = []
        for (key, value) in json["added_tokens_decoder"]?.objectValue?.pairs ?? [] {
            guard let id = Int32(key), let content = Self.content(value) else { continue }
            var token = AddedToken(id: id, content: content)
            token.isSingleWord = value["single_word"]?.boolValue ?? false
            token.stripsLeft = value["lstrip"]?.boolValue ?? false
            token.stripsRight = value["rstrip"]?.boolValue ?? false
            token.isSpecial = value["special"]?.boolValue ?? false
            token.isNormalized = value["normalized"]?.boolValue ?? !token.isSpecial
            tokens.append(token)
        }
        addedTokens = tokens.sorted { $0.id < $1.id }
        for named in [bosToken, eosToken] {
            guard let named, !addedTokens.contains(where: { $0.content == named }) else { continue }
            addedTokens.append(AddedToken(id: -1, content: named, isSpecial: true))
        }
    }

    /// Tokens are spelled as strings or as objects with `content`.
    private static func content(_ json: JSONValue?) -> [UInt8]? {
        guard let text = json?.stringValue ?? json?["content"]?.stringValue, !text.isEmpty else { return nil }
        return Array(text.utf8)
    }
}

extension TokenizerParts {
    /// - Parameter texts: the members of `model` that are not in the file's value.
    init(_ file: TokenizerJSON, texts: [String: JSONTexts], config: TokenizerConfig?) throws(TokenizerError) {
        let modelJSON = try file.member("model")
        try Self.checkModel(modelJSON, hasMerges: texts["merges"] != nil || modelJSON["merges"] != nil)
        normalizer = nil
        if let json = file["normalizer"] { normalizer = try Normalizer(json) }
        var splitting = PreTokenizerDescription()
        if let json = file["pre_tokenizer"] { try splitting.add(json) }
        preTokenizer = PreTokenizer(stages: splitting.stages)
        spaceMarker = splitting.metaspace
        postProcessor = PostProcessor()
        if let json = file["post_processor"] { postProcessor = try PostProcessor(json) }
        let decoding = try DecoderDescription(file["decoder"])
        decoder = decoding.decoder

        var vocabulary = try VocabularyDraft(texts["vocab"], in: modelJSON)
        for json in try file["added_tokens"]?.elements() ?? [] { try vocabulary.add(try AddedToken(json)) }
        for token in config?.addedTokens ?? [] where !vocabulary.isAdded(token.content) { try vocabulary.add(token) }
        bosTokenID = config?.bosToken.flatMap { vocabulary.id(of: $0) }
        eosTokenID = config?.eosToken.flatMap { vocabulary.id(of: $0) }
        if let config, config.addsBOS != nil || config.addsEOS != nil {
            postProcessor = PostProcessor(
                prefix: config.addsBOS == true ? [bosTokenID].compactMap { $0 } : [],
                suffix: config.addsEOS == true ? [eosTokenID].compactMap { $0 } : [])
        }

        let pieces = Self.pieces(vocabulary, isByteLevel: splitting.isByteLevel)
        let options = try Self.options(modelJSON, vocabulary, isByteLevel: splitting.isByteLevel)
        if !splitting.isByteLevel, !options.ignoreMerges, Self.marksOnlyWordStarts(vocabulary.ids) {
            preTokenizer.stages.append(.wordStarts(marker: Self.spaceMarker))
        }
        let merges = try MergeTable.load(texts["merges"], in: modelJSON, ids: vocabulary.ids)
        model = BytePairModel(pieces: pieces, merges: merges, options: options)
        names = try vocabulary.names(normalizer)
        self.texts = try Self.texts(names, vocabulary.added, decoding, pieces: splitting.isByteLevel ? pieces : nil)
        idsByContent = Dictionary(vocabulary.added.map { ($0.content, $0.id) }, uniquingKeysWith: { $1 })

        var normalized: [AddedToken] = []
        for var token in vocabulary.added where token.isNormalized {
            token.content = try token.searched(normalizer)
            normalized.append(token)
        }
        rawAddedTokens = AddedTokenMatcher(vocabulary.added.filter { !$0.isNormalized })
        normalizedAddedTokens = AddedTokenMatcher(normalized)
        let isComplete = options.covers(pieces)
        let longest = max(pieces.longest, 4, vocabulary.added.map(\.content.count).max() ?? 0)
        let shrinkage = normalizer.map(\.maximumShrinkage) ?? 1
        maxBytesPerToken =
            isComplete && preTokenizer.keepsEverything ? shrinkage.map { longest * $0 } : nil
    }

    /// Offsets into the texts of all tokens have 32 bits.
    private static let maximumTextBytes = 1 << 30

    /// SentencePiece's character for a space.
    private static let spaceMarker = Array("▁".utf8)

    /// Whether the marker is a token, and never inside of another behind something else.
    private static func marksOnlyWordStarts(_ ids: ByteStringTable) -> Bool {
        guard spaceMarker.withUnsafeBufferPointer({ ids.id(of: $0) }) != nil else { return false }
        return (0..<ids.count).allSatisfy { id in
            let token = ids[id]
            var index = 0
            while token[index...].starts(with: spaceMarker) { index += spaceMarker.count }
            while index < token.count {
                if token[index...].starts(with: spaceMarker) { return false }
                index += sequenceLength(token[index])
            }
            return true
        }
    }

    private static func checkModel(_ json: TokenizerJSON, hasMerges: Bool) throws(TokenizerError) {
        // Old files leave the type out of BPE models.
        let type = try json["type"]?.string() ?? (hasMerges ? "BPE" : "without a type")
        guard type == "BPE" else { throw json.unsupported("model \(type)") }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if let affix = json[key], try !affix.string().isEmpty { throw json.unsupported(key) }
        }
        if let dropout = json["dropout"], dropout.value.numberValue?.doubleValue != 0 {
            throw json.unsupported("dropout")
        }
    }

    private static func options(
        _ json: TokenizerJSON, _ vocabulary: VocabularyDraft, isByteLevel: Bool
    ) throws(TokenizerError) -> BytePairModel.Options {
        var options = BytePairModel.Options(isByteLevel: isByteLevel)
        options.ignoreMerges = try json.bool("ignore_merges", default: false)
        options.fuseUnknown = try json.bool("fuse_unk", default: false)
        if let unknown = json["unk_token"] {
            let name = try unknown.string()
            guard let id = vocabulary.ids.id(of: name) else {
                throw unknown.malformed("in the vocabulary, which has no \(name)")
            }
            options.unknownID = id
        }
        if try json.bool("byte_fallback", default: false) {
            options.byteFallback = (0..<256).map { vocabulary.ids.id(of: byteTokenName(UInt8($0))) }
        }
        return options
    }

    /// What the model matches in the text.
    private static func pieces(_ vocabulary: VocabularyDraft, isByteLevel: Bool) -> ByteStringTable {
        guard isByteLevel else { return vocabulary.ids }
        var builder = ByteStringTable.Builder(capacity: vocabulary.ids.count)
        for id in 0..<vocabulary.ids.count {
            builder.appendByteLevel(vocabulary.ids[id], isFindable: vocabulary.ids.isFindable(id))
        }
        return ByteStringTable(builder)
    }

    /// - Parameter pieces: of a byte-level model, which are the texts of its tokens, too.
    private static func texts(
        _ names: TokenNames, _ added: [AddedToken], _ decoding: DecoderDescription, pieces: ByteStringTable?
    ) throws(TokenizerError) -> TokenTexts {
        var texts = ByteStringTable.Builder(capacity: names.count)
        var flags = [TokenTexts.Flags](repeating: [], count: names.count)
        var text: [UInt8] = []
        for id in 0..<names.count {
            let isModel = id < names.model.count && names.model.isFindable(id)
            let override = names.added[Int32(id)]
            guard isModel || override != nil else {
                texts.append([], isFindable: false)
                continue
            }
            flags[id] = .exists
            switch decoding.decoder.joining {
            case .byteLevel:
                if let pieces, override == nil {
                    let piece = pieces[id]
                    if isValidUTF8(piece) { flags[id].insert(.valid) }
                    texts.append(piece, isFindable: false)
                    continue
                }
                text.removeAll(keepingCapacity: true)
                let name = override ?? Array(names.model[id])
                if !name.withUnsafeBufferPointer({ ByteLevelAlphabet.decode($0, into: &text) }) { text = name }
            case .strings(let byteFallback):
                text = try decoding.text(of: override ?? Array(names.model[id]))
                if byteFallback, let byte = byteTokenValue(text) {
                    text = [byte]
                    flags[id].insert(.byte)
                }
            case .spaces: text = override ?? Array(names.model[id])
            }
            if text.withUnsafeBufferPointer({ isValidUTF8($0) }) { flags[id].insert(.valid) }
            texts.append(text, isFindable: false)
            guard texts.bytes.count <= maximumTextBytes else {
                throw TokenizerError(.malformed, "tokenizer.json: the decoder makes the vocabulary too long")
            }
        }
        // A special token whose name was changed by the normaliser is not recognised as special, as in `tokenizers`.
        for token in added where token.isSpecial && names.added[token.id] == token.content {
            flags[Int(token.id)].insert(.special)
        }
        return TokenTexts(texts: ByteStringTable(texts), flags: flags)
    }
}

extension AddedToken {
    init(_ json: TokenizerJSON) throws(TokenizerError) {
        id = try json.member("id").id()
        content = Array(try json.member("content").string().utf8)
        isSingleWord = try json.bool("single_word", default: false)
        stripsLeft = try json.bool("lstrip", default: false)
        stripsRight = try json.bool("rstrip", default: false)
        isSpecial = try json.bool("special", default: false)
        isNormalized = try json.bool("normalized", default: !isSpecial)
    }
}

extension BytePairModel.Options {
    /// Whether every character of a text ends up in some token of bounded length.
    fileprivate func covers(_ pieces: ByteStringTable) -> Bool {
        if isByteLevel {
            return (UInt8.min...UInt8.max).allSatisfy { byte in
                withUnsafePointer(to: byte) { pieces.id(of: $0, count: 1) } != nil
            }
        }
        if let byteFallback, !byteFallback.contains(nil) { return true }
        return unknownID != nil && !fuseUnknown
    }
}

extension PreTokenizer {
    /// Whether no stage throws text away.
    fileprivate var keepsEverything: Bool {
        !stages.contains { if case .split(_, .removed) = $0 { true } else { false } }
    }
}

private let hexDigits = Array("0123456789ABCDEF".utf8)

/// `<0x0A>`
private func byteTokenName(_ byte: UInt8) -> String {
    String(decoding: [0x3C, 0x30, 0x78, hexDigits[Int(byte >> 4)], hexDigits[Int(byte & 15)], 0x3E], as: UTF8.self)
}

/// The byte that a name like `<0x0a>` or `<0x0A>` stands for.
private func byteTokenValue(_ name: [UInt8]) -> UInt8? {
    guard name.count == 6, name.starts(with: Array("<0x".utf8)), name[5] == 0x3E else { return nil }
    return UInt8(String(decoding: name[3..<5], as: UTF8.self), radix: 16)
}
