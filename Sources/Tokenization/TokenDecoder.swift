/// How tokens become text (the `decoder` of `tokenizer.json`, reduced to what happens at run time; everything that only
/// depends on one token is applied once, when the tokenizer is loaded).
struct TokenDecoder: Sendable {
    enum Joining: Sendable {
        /// Token texts are raw bytes; invalid UTF-8 becomes U+FFFD after all have been put together.
        case byteLevel
        /// Token texts are strings. With byte fallback a run of byte tokens is decoded as a whole: when it is not
        /// valid UTF-8, every byte of it becomes U+FFFD.
        case strings(byteFallback: Bool)
        /// No decoder: tokens with spaces between them.
        case spaces
    }

    var joining: Joining
    /// `Strip`: up to `count` times `scalar` (its UTF-8 bytes) is dropped at the very start of the text.
    var strip: (scalar: [UInt8], count: Int)?
    /// `Metaspace`: these bytes are dropped everywhere in the first token (elsewhere they are spaces).
    var droppedInFirst: [UInt8]?
}

/// Per-token data for decoding.
final class TokenTexts: @unchecked Sendable {
    struct Flags: OptionSet {
        let rawValue: UInt8
        /// The id means something.
        static let exists = Flags(rawValue: 1)
        static let special = Flags(rawValue: 2)
        /// A byte token such as `<0xE2>`; its text is that byte.
        static let byte = Flags(rawValue: 4)
        /// The text is valid UTF-8 on its own.
        static let valid = Flags(rawValue: 8)
    }

    let count: Int
    private let flags: UnsafeMutablePointer<Flags>
    private let texts: ByteStringTable

    init(texts: ByteStringTable, flags: [Flags]) {
        self.texts = texts
        count = texts.count
        self.flags = .allocate(capacity: max(1, count))
        for (index, value) in flags.enumerated() { self.flags[index] = value }
    }

    deinit { flags.deallocate() }

    /// Empty for ids that do not exist.
    @inline(__always)
    func flags(_ id: Int32) -> Flags {
        id >= 0 && Int(id) < count ? flags[Int(id)] : []
    }

    /// Bytes of an existing id; for a byte token the byte.
    @inline(__always)
    subscript(id: Int32) -> UnsafeBufferPointer<UInt8> { texts[Int(id)] }
}
