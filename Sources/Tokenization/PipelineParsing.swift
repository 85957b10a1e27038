import JSONBytes

/// The parts of `tokenizer.json` around the model. Whatever is not implemented is an error that names it.
extension Normalizer {
    init(_ json: TokenizerJSON) throws(TokenizerError) {
        let type = try json.type()
        switch type {
        case "Sequence":
            var parts: [Normalizer] = []
            for part in try json.member("normalizers").elements() { parts.append(try Normalizer(part)) }
            self = .sequence(parts)
        case "NFC": self = .nfc
        case "NFD": self = .nfd
        case "Lowercase": self = .lowercase
        case "Strip":
            self = .strip(
                left: try json.bool("strip_left", default: true), right: try json.bool("strip_right", default: true))
        case "Prepend": self = .prepend(try Self.insertion(json.member("prepend")))
        case "Replace": self = try Self.replacement(json)
        default: throw json.unsupported("normalizer \(type)")
        }
    }

    /// Text that may be inserted many times: a long one would let a short prompt fill the memory.
    private static func insertion(_ json: TokenizerJSON) throws(TokenizerError) -> [UInt8] {
        let content = Array(try json.string().utf8)
        guard content.count <= 256 else { throw json.unsupported("a text of \(content.count) bytes to insert") }
        return content
    }

    /// Reads `Replace`, which normalisers and decoders share.
    static func replacement(_ json: TokenizerJSON) throws(TokenizerError) -> Normalizer {
        let content = try insertion(json.member("content"))
        let pattern = try json.member("pattern")
        if let literal = pattern["String"] {
            let old = Array(try literal.string().utf8)
            guard !old.isEmpty else { throw literal.malformed("a string that is not empty") }
            return .replace(old, with: content)
        }
        return .replaceMatches(try RegularExpression(try pattern.member("Regex").string()), with: content)
    }
}

/// What `pre_tokenizer` says.
struct PreTokenizerDescription {
    var stages: [PreTokenizerStage] = []
    var isByteLevel = false
    /// `replacement` of the first `Metaspace`, as vLLM looks for it when it shows single tokens.
    var metaspace: String?

    mutating func add(_ json: TokenizerJSON) throws(TokenizerError) {
        let type = try json.type()
        guard !isByteLevel || type == "Sequence" else { throw json.unsupported("\(type) behind ByteLevel") }
        switch type {
        case "Sequence":
            for part in try json.member("pretokenizers").elements() { try add(part) }
        case "ByteLevel":
            if try json.bool("add_prefix_space", default: true) { stages.append(.prefixSpace) }
            if try json.bool("use_regex", default: true) { stages.append(.split(.known(.gpt2), .isolated)) }
            isByteLevel = true
        case "Split":
            let name = try json.member("behavior").string()
            guard let behavior = SplitBehavior(rawValue: name) else { throw json.unsupported("behavior \(name)") }
            let matcher = try Self.matcher(try json.member("pattern"))
            let inverted = try json.bool("invert", default: false)
            stages.append(.split(inverted ? .inverted(matcher) : matcher, behavior))
        case "Digits":
            let individual = try json.bool("individual_digits", default: false)
            stages.append(.split(.digit, individual ? .isolated : .contiguous))
        case "Metaspace":
            let replacement = try json["replacement"]?.string() ?? "▁"
            guard replacement.unicodeScalars.count == 1 else { throw json.malformed("one character") }
            metaspace = metaspace ?? replacement
            stages.append(
                .metaspace(
                    replacement: Array(replacement.utf8), prepend: try PrependScheme(json),
                    split: try json.bool("split", default: true)))
        default: throw json.unsupported("pre-tokenizer \(type)")
        }
    }

    private static func matcher(_ json: TokenizerJSON) throws(TokenizerError) -> SplitMatcher {
        if let literal = json["String"] {
            let text = Array(try literal.string().utf8)
            guard !text.isEmpty else { throw literal.malformed("a string that is not empty") }
            return .literal(text)
        }
        let pattern = try json.member("Regex").string()
        if let known = KnownSplitPattern(text: pattern) { return .known(known) }
        return .regularExpression(try RegularExpression(pattern))
    }
}

extension PrependScheme {
    /// Newer files have `prepend_scheme`, older ones `add_prefix_space`.
    init(_ json: TokenizerJSON) throws(TokenizerError) {
        if let name = json["prepend_scheme"] {
            guard let scheme = PrependScheme(rawValue: try name.string()) else {
                throw name.malformed("always, first or never")
            }
            self = scheme
        } else {
            self = try json.bool("add_prefix_space", default: true) ? .always : .never
        }
    }
}

/// Ids that are put around a sequence when special tokens are wanted.
struct PostProcessor: Sendable, Equatable {
    var prefix: [Int32] = []
    var suffix: [Int32] = []

    init(prefix: [Int32] = [], suffix: [Int32] = []) {
        self.prefix = prefix
        self.suffix = suffix
    }

    init(_ json: TokenizerJSON) throws(TokenizerError) {
        try add(json)
    }

    private mutating func add(_ json: TokenizerJSON) throws(TokenizerError) {
        let type = try json.type()
        switch type {
        case "Sequence":
            for part in try json.member("processors").elements() { try add(part) }
        // It only corrects character offsets.
        case "ByteLevel": break
        case "TemplateProcessing": try addTemplate(json)
        case "BertProcessing", "RobertaProcessing":
            prefix.insert(try Self.namedID(json.member("cls")), at: 0)
            suffix.append(try Self.namedID(json.member("sep")))
        default: throw json.unsupported("post-processor \(type)")
        }
    }

    private mutating func addTemplate(_ json: TokenizerJSON) throws(TokenizerError) {
        var before: [Int32] = []
        var after: [Int32] = []
        var sequences = 0
        for piece in try json.member("single").elements() {
            if let sequence = piece["Sequence"] {
                guard try sequence.member("id").string() == "A", sequences == 0 else {
                    throw piece.unsupported("a template that does not contain the text exactly once")
                }
                sequences += 1
                continue
            }
            let name = try piece.member("SpecialToken").member("id").string()
            let ids = try json.member("special_tokens").member(name).member("ids").elements()
            for id in ids {
                if sequences == 0 { before.append(try id.id()) } else { after.append(try id.id()) }
            }
        }
        guard sequences == 1 else {
            throw json.unsupported("a template that does not contain the text exactly once")
        }
        prefix = before + prefix
        suffix += after
    }

    /// `["<s>", 0]`
    private static func namedID(_ json: TokenizerJSON) throws(TokenizerError) -> Int32 {
        let pair = try json.elements()
        guard pair.count == 2 else { throw json.malformed("a pair of a token and its id") }
        return try pair[1].id()
    }
}

/// What `decoder` says: per-token steps for loading, the rest for run time.
struct DecoderDescription {
    /// Applied to each token's string, in order.
    var steps: [Step] = []
    var decoder = TokenDecoder(joining: .spaces)

    enum Step {
        case replace(Normalizer)
        case strip(scalar: [UInt8], start: Int, stop: Int)
    }

    init(_ json: TokenizerJSON?) throws(TokenizerError) {
        guard let json else { return }
        var parts: [TokenizerJSON] = []
        try Self.flatten(json, into: &parts)
        var byteFallback = false
        var isFused = false
        decoder.joining = .strings(byteFallback: false)
        for part in parts {
            let type = try part.type()
            switch type {
            case "ByteLevel", "Metaspace":
                guard parts.count == 1 else { throw part.unsupported("decoder \(type) together with others") }
                if type == "ByteLevel" {
                    decoder.joining = .byteLevel
                } else {
                    try addMetaspace(part)
                }
                return
            case "Replace":
                guard !byteFallback, !isFused else { throw part.unsupported("decoder Replace at this place") }
                steps.append(.replace(try Normalizer.replacement(part)))
            case "ByteFallback":
                guard !isFused else { throw part.unsupported("decoder ByteFallback behind Fuse") }
                byteFallback = true
            case "Fuse": isFused = true
            case "Strip":
                let scalar = Array(try part.member("content").string().utf8)
                let start = try part["start"]?.count() ?? 0
                let stop = try part["stop"]?.count() ?? 0
                guard !scalar.isEmpty, scalar.count == sequenceLength(scalar[0]) else {
                    throw part.malformed("an object with one character as content")
                }
                if isFused {
                    guard stop == 0, decoder.strip == nil else {
                        throw part.unsupported("decoder Strip at the end of the text")
                    }
                    decoder.strip = (scalar, start)
                } else {
                    guard !byteFallback else { throw part.unsupported("decoder Strip at this place") }
                    steps.append(.strip(scalar: scalar, start: start, stop: stop))
                }
            default: throw part.unsupported("decoder \(type)")
            }
        }
        decoder.joining = .strings(byteFallback: byteFallback)
    }

    private mutating func addMetaspace(_ json: TokenizerJSON) throws(TokenizerError) {
        let replacement = Array((try json["replacement"]?.string() ?? "▁").utf8)
        guard !replacement.isEmpty else { throw json.malformed("an object with a replacement") }
        steps.append(.replace(.replace(replacement, with: [0x20])))
        if try PrependScheme(json) != .never { decoder.droppedInFirst = replacement }
    }

    private static func flatten(
        _ json: TokenizerJSON, into parts: inout [TokenizerJSON]
    ) throws(TokenizerError) {
        guard try json.type() == "Sequence" else { return parts.append(json) }
        for part in try json.member("decoders").elements() { try flatten(part, into: &parts) }
    }

    /// The text that one token contributes.
    func text(of name: [UInt8]) throws(TokenizerError) -> [UInt8] {
        var text = name
        for step in steps {
            switch step {
            case .replace(let replacement): try replacement.apply(to: &text)
            case .strip(let scalar, let start, let stop):
                for _ in 0..<start where text.starts(with: scalar) { text.removeFirst(scalar.count) }
                for _ in 0..<stop where text.suffix(scalar.count).elementsEqual(scalar) {
                    text.removeLast(scalar.count)
                }
            }
        }
        return text
    }
}
