import JSONBytes

/// Access to the fields of `tokenizer.json` with errors that name the place.
struct TokenizerJSON {
    let value: JSONValue
    /// For messages, for example `pre_tokenizer.pretokenizers[1]`.
    let path: String

    init(_ value: JSONValue, path: String) {
        self.value = value
        self.path = path
    }

    subscript(key: String) -> TokenizerJSON? {
        guard let member = value[key], !member.isNull else { return nil }
        return TokenizerJSON(member, path: path.isEmpty ? key : "\(path).\(key)")
    }

    func malformed(_ expected: String) -> TokenizerError {
        TokenizerError(.malformed, "tokenizer.json: \(path.isEmpty ? "the file" : path) should be \(expected)")
    }

    func unsupported(_ what: String) -> TokenizerError {
        TokenizerError(.unsupported, "tokenizer.json: \(path): \(what) is not supported")
    }

    func member(_ key: String) throws(TokenizerError) -> TokenizerJSON {
        guard let found = self[key] else {
            throw TokenizerError(.malformed, "tokenizer.json: \(path.isEmpty ? key : "\(path).\(key)") is missing")
        }
        return found
    }

    func type() throws(TokenizerError) -> String { try member("type").string() }

    func string() throws(TokenizerError) -> String {
        guard let text = value.stringValue else { throw malformed("a string") }
        return text
    }

    func bool(_ key: String, default fallback: Bool) throws(TokenizerError) -> Bool {
        guard let found = self[key] else { return fallback }
        guard let flag = found.value.boolValue else { throw found.malformed("true or false") }
        return flag
    }

    func object() throws(TokenizerError) -> JSONObject {
        guard let object = value.objectValue else { throw malformed("an object") }
        return object
    }

    func elements() throws(TokenizerError) -> [TokenizerJSON] {
        guard let array = value.arrayValue else { throw malformed("an array") }
        return array.enumerated().map { TokenizerJSON($1, path: "\(path)[\($0)]") }
    }

    /// A token id: not negative and small enough for tables.
    func id() throws(TokenizerError) -> Int32 {
        guard let id = Self.id(value) else { throw malformed("a token id") }
        return id
    }

    func count() throws(TokenizerError) -> Int {
        guard let number = value.numberValue?.intValue, (0...1_000_000).contains(number) else {
            throw malformed("a small number")
        }
        return number
    }

    /// Tables are indexed by id, so that a huge id in a file must not allocate gigabytes.
    static let idLimit = 1 << 22

    static func id(_ value: JSONValue) -> Int32? {
        guard let number = value.numberValue?.intValue, (0..<idLimit).contains(number) else { return nil }
        return Int32(number)
    }
}
