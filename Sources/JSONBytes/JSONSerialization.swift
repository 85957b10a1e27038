/// How `json.dumps` lays out a value.
package struct JSONStyle: Sendable, Equatable {
    /// Between an element and the next one.
    package var itemSeparator: String
    /// Between a key and its value.
    package var keySeparator: String
    /// One level of indentation; nil keeps everything on one line.
    package var indent: String?
    /// Write characters outside ASCII as `\uXXXX`.
    package var ensureASCII: Bool
    package var sortKeys: Bool

    package init(
        itemSeparator: String, keySeparator: String, indent: String? = nil, ensureASCII: Bool = false,
        sortKeys: Bool = false
    ) {
        self.itemSeparator = itemSeparator
        self.keySeparator = keySeparator
        self.indent = indent
        self.ensureASCII = ensureASCII
        self.sortKeys = sortKeys
    }

    /// `separators=(",", ":"), ensure_ascii=False`: what an HTTP answer uses.
    package static let compact = JSONStyle(itemSeparator: ",", keySeparator: ":")

    /// The defaults of Python's `json.dumps` except for `ensure_ascii`: `", "` and `": "`; with `indent`, items are
    /// separated by `","` and a line break.
    package static func python(
        indent: String? = nil, ensureASCII: Bool = false, sortKeys: Bool = false
    ) -> JSONStyle {
        JSONStyle(
            itemSeparator: indent == nil ? ", " : ",", keySeparator: ": ", indent: indent, ensureASCII: ensureASCII,
            sortKeys: sortKeys)
    }
}

extension ByteSink {
    /// Appends a whole value. Numbers keep their spelling.
    package mutating func appendJSON(_ value: JSONValue, style: JSONStyle = .compact) {
        appendJSON(value, style: style, depth: 0)
    }

    /// Appends a string with quotes; with `ensureASCII`, everything outside printable ASCII is escaped.
    package mutating func appendJSONString(_ text: String, ensureASCII: Bool) {
        guard ensureASCII else { return appendJSONString(text) }
        appendByte(0x22)
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0..<0x20, 0x22, 0x5C: appendJSONEscape(UInt8(scalar.value))
            case 0x20..<0x7F: appendByte(UInt8(scalar.value))
            default: for unit in UTF16.encode(scalar)! { appendUnicodeEscape(unit) }
            }
        }
        appendByte(0x22)
    }

    private mutating func appendJSON(_ value: JSONValue, style: JSONStyle, depth: Int) {
        switch value {
        case .null: appendJSONNull()
        case .bool(let value): appendJSONBool(value)
        case .number(let number): appendUTF8(number.text)
        case .string(let text): appendJSONString(text, ensureASCII: style.ensureASCII)
        case .array(let values):
            appendByte(UInt8(ascii: "["))
            for (index, element) in values.enumerated() {
                if index > 0 { appendUTF8(style.itemSeparator) }
                appendLineBreak(style: style, depth: depth + 1)
                appendJSON(element, style: style, depth: depth + 1)
            }
            if !values.isEmpty { appendLineBreak(style: style, depth: depth) }
            appendByte(UInt8(ascii: "]"))
        case .object(let object):
            let pairs =
                style.sortKeys
                ? object.pairs.sorted { $0.key.unicodeScalars.lexicographicallyPrecedes($1.key.unicodeScalars) }
                : object.pairs
            appendByte(UInt8(ascii: "{"))
            for (index, pair) in pairs.enumerated() {
                if index > 0 { appendUTF8(style.itemSeparator) }
                appendLineBreak(style: style, depth: depth + 1)
                appendJSONString(pair.key, ensureASCII: style.ensureASCII)
                appendUTF8(style.keySeparator)
                appendJSON(pair.value, style: style, depth: depth + 1)
            }
            if !pairs.isEmpty { appendLineBreak(style: style, depth: depth) }
            appendByte(UInt8(ascii: "}"))
        }
    }

    private mutating func appendLineBreak(style: JSONStyle, depth: Int) {
        guard let indent = style.indent else { return }
        appendByte(0x0A)
        for _ in 0..<depth { appendUTF8(indent) }
    }
}

extension JSONValue {
    /// The value as text in the given style.
    package func serialized(style: JSONStyle = .compact) -> String {
        var bytes: [UInt8] = []
        bytes.appendJSON(self, style: style)
        return String(decoding: bytes, as: UTF8.self)
    }
}
