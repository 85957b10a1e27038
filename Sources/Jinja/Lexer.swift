struct Token: Sendable, Equatable {
    enum Kind: Sendable, Equatable {
        case data, name, string, integer, float, symbol
        case blockBegin, blockEnd, variableBegin, variableEnd, end
    }

    var kind: Kind
    /// Data, the unescaped string, the identifier, the operator, or the digits without underscores.
    var text: String
    var line: Int
}

/// Splits a template into tokens with `trim_blocks` and `lstrip_blocks` on and trailing newline removed, the way chat
/// templates are compiled by Hugging Face libraries.
struct Lexer {
    private let source: [UInt8]
    private var position = 0
    private var line = 1
    private var tokens: [Token] = []
    /// Whether everything before `position` ends with a line break (or nothing is before it).
    private var lineStarting = true

    init(_ text: String) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var previous: UInt8 = 0
        for byte in text.utf8 {
            if byte == 0x0A, previous == 0x0D {
                previous = byte
                continue
            }
            bytes.append(byte == 0x0D ? 0x0A : byte)
            previous = byte
        }
        if bytes.last == 0x0A { bytes.removeLast() }
        source = bytes
    }

    static func tokenize(_ text: String) throws(TemplateError) -> [Token] {
        var lexer = Lexer(text)
        try lexer.lexRoot()
        return lexer.tokens
    }

    private func fail(_ message: String) -> TemplateError { TemplateError(.syntax, message, line: line) }

    private func starts(with text: StaticString, at offset: Int) -> Bool {
        guard offset + text.utf8CodeUnitCount <= source.count else { return false }
        for index in 0..<text.utf8CodeUnitCount where source[offset + index] != text.utf8Start[index] { return false }
        return true
    }

    private func byte(at offset: Int) -> UInt8 { offset < source.count ? source[offset] : 0 }

    private func scalar(at offset: Int) -> (scalar: Unicode.Scalar, length: Int) {
        let first = source[offset]
        if first < 0x80 { return (Unicode.Scalar(first), 1) }
        let length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2
        var value = UInt32(first) & (0x7F >> UInt32(length))
        for index in 1..<length { value = value << 6 | UInt32(byte(at: offset + index) & 0x3F) }
        return (Unicode.Scalar(value) ?? "\u{FFFD}", length)
    }

    private func afterSpace(_ start: Int) -> Int {
        var offset = start
        while offset < source.count {
            let (scalar, length) = scalar(at: offset)
            guard scalar.isPythonSpace else { break }
            offset += length
        }
        return offset
    }

    /// Moves to `offset`, counting lines and remembering whether a new one starts there.
    private mutating func advance(to offset: Int) {
        for index in position..<offset where source[index] == 0x0A { line += 1 }
        if offset > position { lineStarting = source[offset - 1] == 0x0A }
        position = offset
    }

    private mutating func add(_ kind: Token.Kind, _ text: String = "") {
        tokens.append(Token(kind: kind, text: text, line: line))
    }

    // MARK: Text between tags

    private mutating func lexRoot() throws(TemplateError) {
        while position < source.count {
            guard let tag = nextTag() else {
                add(.data, String(decoding: source[position...], as: UTF8.self))
                advance(to: source.count)
                break
            }
            let sign = byte(at: tag + 2)
            let bodyStart = sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") ? tag + 3 : tag + 2
            let opener = source[tag + 1]
            addData(upTo: tag, sign: sign, isVariable: opener == UInt8(ascii: "{"))
            switch opener {
            case UInt8(ascii: "#"):
                advance(to: bodyStart)
                try skipComment()
            case UInt8(ascii: "%"):
                if let rawStart = rawBodyStart(bodyStart) {
                    advance(to: rawStart)
                    try lexRaw()
                } else {
                    add(.blockBegin)
                    advance(to: bodyStart)
                    try lexTag(closer: "%}", end: .blockEnd)
                }
            default:
                add(.variableBegin)
                advance(to: bodyStart)
                try lexTag(closer: "}}", end: .variableEnd)
            }
        }
        add(.end)
    }

    private func nextTag() -> Int? {
        var offset = position
        while offset + 1 < source.count {
            if source[offset] == UInt8(ascii: "{") {
                let next = source[offset + 1]
                if next == UInt8(ascii: "{") || next == UInt8(ascii: "%") || next == UInt8(ascii: "#") { return offset }
            }
            offset += 1
        }
        return nil
    }

    /// Adds the text before a tag, stripped as the tag's sign and `lstrip_blocks` ask.
    private mutating func addData(upTo tag: Int, sign: UInt8, isVariable: Bool) {
        var end = tag
        if sign == UInt8(ascii: "-") {
            let text = String(decoding: source[position..<tag], as: UTF8.self)
            end = position + text.stripped(left: false).utf8.count
        } else if sign != UInt8(ascii: "+"), !isVariable {
            let lineStart = source[position..<tag].lastIndex(of: 0x0A).map { $0 + 1 }
            if lineStart != nil || lineStarting {
                let start = lineStart ?? position
                if afterSpace(start) >= tag { end = start }
            }
        }
        if end > position { add(.data, String(decoding: source[position..<end], as: UTF8.self)) }
        advance(to: tag)
    }

    private mutating func skipComment() throws(TemplateError) {
        var offset = position
        while offset < source.count {
            if starts(with: "#}", at: offset) {
                let before = offset > position ? source[offset - 1] : 0
                if before == UInt8(ascii: "-") {
                    advance(to: afterSpace(offset + 2))
                } else if before != UInt8(ascii: "+"), byte(at: offset + 2) == 0x0A {
                    advance(to: offset + 3)
                } else {
                    advance(to: offset + 2)
                }
                return
            }
            offset += 1
        }
        throw fail("Missing end of comment tag")
    }

    // MARK: raw

    /// Where the text of a `raw` block starts when the tag whose inside starts at `offset` opens one.
    private func rawBodyStart(_ offset: Int) -> Int? {
        let word = afterSpace(offset)
        guard starts(with: "raw", at: word) else { return nil }
        let close = afterSpace(word + 3)
        if starts(with: "%}", at: close) { return close + 2 }
        if starts(with: "-%}", at: close) { return afterSpace(close + 3) }
        return nil
    }

    private mutating func lexRaw() throws(TemplateError) {
        var offset = position
        while offset < source.count {
            if starts(with: "{%", at: offset) {
                let sign = byte(at: offset + 2)
                let hasSign = sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+")
                let word = afterSpace(offset + (hasSign ? 3 : 2))
                if starts(with: "endraw", at: word), let end = blockEnd(at: afterSpace(word + 6)) {
                    addData(upTo: offset, sign: sign, isVariable: false)
                    advance(to: end)
                    return
                }
            }
            offset += 1
        }
        throw fail("Missing end of raw directive")
    }

    /// The offset behind a block's closing `%}` at `offset`, with the white space it swallows.
    private func blockEnd(at offset: Int) -> Int? {
        if starts(with: "+%}", at: offset) { return offset + 3 }
        if starts(with: "-%}", at: offset) { return afterSpace(offset + 3) }
        guard starts(with: "%}", at: offset) else { return nil }
        return byte(at: offset + 2) == 0x0A ? offset + 3 : offset + 2
    }

    private func variableEnd(at offset: Int) -> Int? {
        if starts(with: "-}}", at: offset) { return afterSpace(offset + 3) }
        return starts(with: "}}", at: offset) ? offset + 2 : nil
    }

    // MARK: Inside a tag

    private mutating func lexTag(closer: StaticString, end: Token.Kind) throws(TemplateError) {
        var brackets: [UInt8] = []
        while position < source.count {
            if brackets.isEmpty, let close = end == .blockEnd ? blockEnd(at: position) : variableEnd(at: position) {
                add(end)
                advance(to: close)
                return
            }
            let (first, length) = scalar(at: position)
            if first.isPythonSpace {
                advance(to: position + length)
            } else if first.isASCIIDigit {
                lexNumber()
            } else if first.isPythonWordCharacter {
                try lexName()
            } else if first == "\"" || first == "'" {
                try lexString(quote: UInt8(first.value))
            } else {
                try lexSymbol(&brackets)
            }
        }
        // Left open: the parser reports what it misses, with the line.
    }

    private mutating func lexName() throws(TemplateError) {
        var end = position
        var isIdentifier = true
        while end < source.count {
            let (scalar, length) = scalar(at: end)
            guard scalar.isPythonWordCharacter || scalar.properties.isXIDContinue else { break }
            let allowed =
                end == position ? scalar.properties.isXIDStart || scalar == "_" : scalar.properties.isXIDContinue
            if !allowed { isIdentifier = false }
            end += length
        }
        guard isIdentifier else { throw fail("Invalid character in identifier") }
        add(.name, String(decoding: source[position..<end], as: UTF8.self))
        advance(to: end)
    }

    private func digits(from start: Int, where accept: (UInt8) -> Bool, underscores: Bool = true) -> Int {
        var offset = start
        while offset < source.count {
            if accept(source[offset]) {
                offset += 1
            } else if underscores, source[offset] == UInt8(ascii: "_"), accept(byte(at: offset + 1)) {
                offset += 2
            } else {
                break
            }
        }
        return offset
    }

    private mutating func lexNumber() {
        let isDecimal: (UInt8) -> Bool = { $0 >= 0x30 && $0 <= 0x39 }
        let whole = digits(from: position, where: isDecimal)
        let afterDot = position > 0 && source[position - 1] == UInt8(ascii: ".")
        if !afterDot {
            var end = whole
            var isFloat = false
            if byte(at: end) == UInt8(ascii: "."), isDecimal(byte(at: end + 1)) {
                end = digits(from: end + 1, where: isDecimal)
                isFloat = true
            }
            if byte(at: end) | 0x20 == UInt8(ascii: "e") {
                let sign = byte(at: end + 1)
                let start = sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") ? end + 2 : end + 1
                if isDecimal(byte(at: start)) {
                    end = digits(from: start, where: isDecimal)
                    isFloat = true
                }
            }
            if isFloat { return addNumber(.float, end: end) }
        }
        var end = whole
        if source[position] == UInt8(ascii: "0") {
            let (accept, isPrefix): ((UInt8) -> Bool, Bool) =
                switch byte(at: position + 1) | 0x20 {
                case UInt8(ascii: "b"): ({ $0 == 0x30 || $0 == 0x31 }, true)
                case UInt8(ascii: "o"): ({ $0 >= 0x30 && $0 <= 0x37 }, true)
                case UInt8(ascii: "x"): ({ isDecimal($0) || ($0 | 0x20 >= 0x61 && $0 | 0x20 <= 0x66) }, true)
                default: ({ $0 == 0x30 }, false)
                }
            if isPrefix {
                let stop = digits(from: position + 2, where: accept)
                end = stop > position + 2 ? stop : position + 1
            } else {
                end = digits(from: position, where: accept)
            }
        }
        addNumber(.integer, end: end)
    }

    private mutating func addNumber(_ kind: Token.Kind, end: Int) {
        add(kind, String(decoding: source[position..<end].filter { $0 != UInt8(ascii: "_") }, as: UTF8.self))
        advance(to: end)
    }

    private mutating func lexSymbol(_ brackets: inout [UInt8]) throws(TemplateError) {
        let two: [StaticString] = ["//", "**", "==", "!=", ">=", "<="]
        for symbol in two where starts(with: symbol, at: position) {
            add(.symbol, symbol.description)
            return advance(to: position + 2)
        }
        let symbol = source[position]
        let text = String(decoding: [symbol], as: UTF8.self)
        switch symbol {
        case UInt8(ascii: "{"): brackets.append(UInt8(ascii: "}"))
        case UInt8(ascii: "("): brackets.append(UInt8(ascii: ")"))
        case UInt8(ascii: "["): brackets.append(UInt8(ascii: "]"))
        case UInt8(ascii: "}"), UInt8(ascii: ")"), UInt8(ascii: "]"):
            guard let expected = brackets.popLast() else { throw fail("unexpected '\(text)'") }
            guard expected == symbol else {
                throw fail("unexpected '\(text)', expected '\(String(decoding: [expected], as: UTF8.self))'")
            }
        case UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "/"), UInt8(ascii: "*"), UInt8(ascii: "%"),
            UInt8(ascii: "~"), UInt8(ascii: ">"), UInt8(ascii: "<"), UInt8(ascii: "="), UInt8(ascii: "."),
            UInt8(ascii: ":"), UInt8(ascii: "|"), UInt8(ascii: ","), UInt8(ascii: ";"):
            break
        default:
            throw fail("unexpected char \(pythonRepr(String(scalar(at: position).scalar)))")
        }
        add(.symbol, text)
        advance(to: position + 1)
    }

    // MARK: String literals

    private mutating func lexString(quote: UInt8) throws(TemplateError) {
        var end = position + 1
        while end < source.count, source[end] != quote { end += source[end] == UInt8(ascii: "\\") ? 2 : 1 }
        guard end < source.count else { throw fail("unexpected char \(quote == 0x22 ? "'\"'" : "\"'\"")") }
        add(.string, try unescape(source[(position + 1)..<end]))
        advance(to: end + 1)
    }

    /// Python's `unicode-escape` decoding.
    private func unescape(_ bytes: ArraySlice<UInt8>) throws(TemplateError) -> String {
        guard bytes.contains(UInt8(ascii: "\\")) else { return String(decoding: bytes, as: UTF8.self) }
        var result: [UInt8] = []
        var index = bytes.startIndex
        while index < bytes.endIndex {
            let byte = bytes[index]
            index += 1
            guard byte == UInt8(ascii: "\\"), index < bytes.endIndex else {
                result.append(byte)
                continue
            }
            let letter = bytes[index]
            index += 1
            switch letter {
            case 0x0A: break
            case UInt8(ascii: "\\"), UInt8(ascii: "'"), UInt8(ascii: "\""): result.append(letter)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "a"): result.append(0x07)
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "v"): result.append(0x0B)
            case UInt8(ascii: "0")...UInt8(ascii: "7"):
                var value = UInt32(letter - 0x30)
                var count = 1
                while count < 3, index < bytes.endIndex, bytes[index] >= 0x30, bytes[index] <= 0x37 {
                    value = value << 3 | UInt32(bytes[index] - 0x30)
                    index += 1
                    count += 1
                }
                try append(value, to: &result)
            case UInt8(ascii: "x"): try append(try hex(bytes, &index, count: 2), to: &result)
            case UInt8(ascii: "u"): try append(try hex(bytes, &index, count: 4), to: &result)
            case UInt8(ascii: "U"): try append(try hex(bytes, &index, count: 8), to: &result)
            case UInt8(ascii: "N"): throw TemplateError(.unsupported, "\\N{...} escapes are not supported", line: line)
            default:
                result.append(UInt8(ascii: "\\"))
                result.append(letter)
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    private func hex(_ bytes: ArraySlice<UInt8>, _ index: inout Int, count: Int) throws(TemplateError) -> UInt32 {
        let end = index + count
        guard end <= bytes.endIndex, let value = UInt32(String(decoding: bytes[index..<end], as: UTF8.self), radix: 16),
            bytes[index] != UInt8(ascii: "+"), bytes[index] != UInt8(ascii: "-")
        else { throw fail("truncated \\\(count == 2 ? "x" : count == 4 ? "u" : "U") escape in string") }
        index = end
        return value
    }

    private func append(_ value: UInt32, to result: inout [UInt8]) throws(TemplateError) {
        guard let scalar = Unicode.Scalar(value) else { throw fail("illegal Unicode character in string") }
        result.append(contentsOf: String(scalar).utf8)
    }
}
