import JSONBytes

/// The vocabulary of `tokenizer.json` while it is being put together: model tokens, added tokens and their ids.
struct VocabularyDraft {
    /// The model's own tokens.
    let ids: ByteStringTable
    private let modelCount: Int
    private(set) var added: [AddedToken] = []
    /// Position in `added` by content.
    private var positions: [[UInt8]: Int] = [:]
    private var lastAddedID = -1
    private var addedBytes = 0
    /// Matching needs a node per byte.
    private static let maximumAddedBytes = 8 << 20

    /// - Parameter texts: what `vocab` of the model has, if it has the right shape.
    init(_ texts: JSONTexts?, in model: TokenizerJSON) throws(TokenizerError) {
        guard let texts, texts.shape == .numbered else { throw try Self.problem(texts, in: model) }
        var entries = [Int32](repeating: -1, count: 1 + Int(texts.numbers.max() ?? -1))
        guard entries.count <= TokenizerJSON.idLimit else { throw Self.badID(of: Self.nameOfLargestID(texts)) }
        for (entry, id) in texts.numbers.enumerated() { entries[Int(id)] = Int32(truncatingIfNeeded: entry) }
        let table = Self.table(entries, of: texts)
        guard table.hasRepetition else {
            (ids, modelCount) = (table, texts.count)
            return
        }
        // The last one of several members with the same name is the one that counts.
        var lastByName: [ArraySlice<UInt8>: Int] = [:]
        for entry in 0..<texts.count { lastByName[texts.bytes[texts.range(entry)]] = entry }
        entries = [Int32](repeating: -1, count: entries.count)
        for entry in lastByName.values.sorted() {
            entries[Int(texts.numbers[entry])] = Int32(truncatingIfNeeded: entry)
        }
        (ids, modelCount) = (Self.table(entries, of: texts), lastByName.count)
    }

    /// - Parameter entries: by id, which text it has; -1 for none.
    private static func table(_ entries: [Int32], of texts: JSONTexts) -> ByteStringTable {
        var builder = ByteStringTable.Builder(capacity: entries.count)
        texts.bytes.withUnsafeBufferPointer { bytes in
            for entry in entries {
                if entry < 0 {
                    builder.append([], isFindable: false)
                } else {
                    builder.append(
                        UnsafeBufferPointer(rebasing: bytes[texts.range(Int(entry))]), isFindable: true)
                }
            }
        }
        return ByteStringTable(builder)
    }

    private static func problem(_ texts: JSONTexts?, in model: TokenizerJSON) throws(TokenizerError) -> TokenizerError {
        if texts == nil {
            for (name, value) in try model.member("vocab").object().pairs where TokenizerJSON.id(value) == nil {
                return badID(of: name)
            }
        }
        return TokenizerError(.malformed, "tokenizer.json: model.vocab should be an object with token ids")
    }

    private static func nameOfLargestID(_ texts: JSONTexts) -> String {
        let entry = texts.numbers.indices.max { texts.numbers[$0] < texts.numbers[$1] } ?? 0
        return String(decoding: texts.bytes[texts.range(entry)], as: UTF8.self)
    }

    private static func badID(of name: String) -> TokenizerError {
        TokenizerError(.malformed, "tokenizer.json: model.vocab: the id of \(name) is not a token id")
    }

    /// Adds a token as `tokenizers` does: one that the model knows keeps its id, others are numbered behind the model's.
    mutating func add(_ token: AddedToken) throws(TokenizerError) {
        guard !token.content.isEmpty else { return }
        addedBytes += token.content.count
        guard addedBytes <= Self.maximumAddedBytes else {
            throw TokenizerError(.malformed, "tokenizer.json: the added tokens are too long")
        }
        var token = token
        if let known = id(of: token.content) {
            token.id = known
        } else {
            let next = lastAddedID >= modelCount ? lastAddedID + 1 : modelCount
            guard next < TokenizerJSON.idLimit else {
                throw TokenizerError(.malformed, "tokenizer.json: too many added tokens")
            }
            token.id = Int32(next)
        }
        lastAddedID = max(lastAddedID, Int(token.id))
        if let position = positions[token.content] {
            added[position] = token
        } else {
            positions[token.content] = added.count
            added.append(token)
        }
    }

    func id(of content: [UInt8]) -> Int32? {
        content.withUnsafeBufferPointer { ids.id(of: $0) } ?? positions[content].map { added[$0].id }
    }

    func isAdded(_ content: [UInt8]) -> Bool { positions[content] != nil }

    /// What the ids are called. As in `tokenizers`, an added token that is searched in the normalised text is called by
    /// its normalised content.
    func names(_ normalizer: Normalizer?) throws(TokenizerError) -> TokenNames {
        var names = TokenNames(model: ids, added: [:])
        for token in added { names.added[token.id] = try token.searched(normalizer) }
        return names
    }
}

/// The vocabulary's spelling of each token.
struct TokenNames: Sendable {
    let model: ByteStringTable
    /// Names that take precedence over the model's.
    var added: [Int32: [UInt8]]

    var count: Int { max(model.count, added.keys.max().map { Int($0) + 1 } ?? 0) }

    /// nil for ids without a name.
    subscript(id: Int32) -> [UInt8]? {
        if let name = added[id] { return name }
        guard id >= 0, Int(id) < model.count, model.isFindable(Int(id)) else { return nil }
        return Array(model[Int(id)])
    }
}

extension AddedToken {
    /// The content as it is looked for in a text.
    func searched(_ normalizer: Normalizer?) throws(TokenizerError) -> [UInt8] {
        var content = content
        if isNormalized { try normalizer?.apply(to: &content) }
        return content
    }
}

extension MergeTable {
    /// Reads `merges`, either `"a b"` or `["a", "b"]`.
    /// - Parameter texts: what they are, if they have one of these shapes.
    static func load(
        _ texts: JSONTexts?, in model: TokenizerJSON, ids: ByteStringTable
    ) throws(TokenizerError) -> MergeTable {
        guard let texts, texts.shape != .numbered else { throw try problem(in: model, hasTexts: texts != nil) }
        let isPair = texts.shape == .pairs
        let count = isPair ? texts.count / 2 : texts.count
        let table = MergeTable(capacity: count)
        var joined: [UInt8] = []
        for rank in 0..<count {
            let range =
                isPair ? texts.range(2 * rank).lowerBound..<texts.range(2 * rank + 1).upperBound : texts.range(rank)
            joined.removeAll(keepingCapacity: true)
            joined.append(contentsOf: texts.bytes[range])
            let split: Int
            if isPair {
                split = texts.range(2 * rank).count
            } else {
                guard let space = joined.firstIndex(of: 0x20), joined.lastIndex(of: 0x20) == space else {
                    throw notTwoTokens(rank)
                }
                joined.remove(at: space)
                split = space
            }
            let found = joined.withUnsafeBufferPointer { bytes -> (Int32, Int32, Int32)? in
                guard let base = bytes.baseAddress, let left = ids.id(of: base, count: split),
                    let right = ids.id(of: base + split, count: bytes.count - split),
                    let result = ids.id(of: base, count: bytes.count)
                else { return nil }
                return (left, right, result)
            }
            guard let (left, right, result) = found else {
                throw TokenizerError(
                    .malformed, "tokenizer.json: model.merges[\(rank)] has a token that is not in the vocabulary")
            }
            table.insert(left, right, rank: UInt32(truncatingIfNeeded: rank), result: result)
        }
        return table
    }

    private static func problem(in model: TokenizerJSON, hasTexts: Bool) throws(TokenizerError) -> TokenizerError {
        guard !hasTexts, let entries = try model.member("merges").value.arrayValue else {
            return TokenizerError(.malformed, "tokenizer.json: model.merges should be an array")
        }
        let good = entries.prefix { entry in
            entry.stringValue != nil || entry.arrayValue?.map { $0.stringValue != nil } == [true, true]
        }
        // If every entry is good for itself, strings and pairs are mixed, which `tokenizers` refuses, too.
        return notTwoTokens(good.count < entries.count ? good.count : 0)
    }

    private static func notTwoTokens(_ rank: Int) -> TokenizerError {
        TokenizerError(.malformed, "tokenizer.json: model.merges[\(rank)] should be two tokens")
    }
}
