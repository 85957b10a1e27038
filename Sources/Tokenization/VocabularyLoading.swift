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

    init(_ json: TokenizerJSON) throws(TokenizerError) {
        let pairs = try json.object().pairs
        var modelNames: [String?] = []
        modelNames.reserveCapacity(pairs.count)
        for (name, value) in pairs {
            guard let id = TokenizerJSON.id(value) else {
                throw TokenizerError(.malformed, "tokenizer.json: \(json.path): the id of \(name) is not a token id")
            }
            while modelNames.count <= Int(id) { modelNames.append(nil) }
            modelNames[Int(id)] = name
        }
        modelCount = pairs.count
        var builder = ByteStringTable.Builder(capacity: modelNames.count)
        for index in modelNames.indices {
            if modelNames[index] == nil {
                builder.append([], isFindable: false)
            } else {
                modelNames[index]!.withUTF8 { builder.append($0, isFindable: true) }
            }
        }
        ids = ByteStringTable(builder)
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
    static func load(_ json: TokenizerJSON, ids: ByteStringTable) throws(TokenizerError) -> MergeTable {
        guard let entries = json.value.arrayValue else { throw json.malformed("an array") }
        let table = MergeTable(capacity: entries.count)
        var joined: [UInt8] = []
        for (rank, entry) in entries.enumerated() {
            joined.removeAll(keepingCapacity: true)
            let split: Int
            switch entry {
            case .string(let text):
                joined.append(contentsOf: text.utf8)
                guard let space = joined.firstIndex(of: 0x20), !joined[(space + 1)...].contains(0x20) else {
                    throw TokenizerError(.malformed, "tokenizer.json: \(json.path)[\(rank)] should be two tokens")
                }
                joined.remove(at: space)
                split = space
            case .array(let pair):
                guard pair.count == 2, let left = pair[0].stringValue, let right = pair[1].stringValue else {
                    fallthrough
                }
                joined.append(contentsOf: left.utf8)
                split = joined.count
                joined.append(contentsOf: right.utf8)
            default: throw TokenizerError(.malformed, "tokenizer.json: \(json.path)[\(rank)] should be two tokens")
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
                    .malformed, "tokenizer.json: \(json.path)[\(rank)] has a token that is not in the vocabulary")
            }
            table.insert(left, right, rank: UInt32(truncatingIfNeeded: rank), result: result)
        }
        return table
    }
}
