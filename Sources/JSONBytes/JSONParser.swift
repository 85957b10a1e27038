extension JSONValue {
    /// Parses one JSON text with the leniency of Python's `json.loads`: a byte order mark, `NaN`, `Infinity`,
    /// `-Infinity` and repeated keys (last one wins) are accepted.
    package static func parse(
        _ bytes: UnsafeBufferPointer<UInt8>, limits: JSONLimits = JSONLimits()
    ) throws(JSONError) -> JSONValue {
        try parse(bytes, limits: limits) { parser throws(JSONError) in try parser.parseDocument() }
    }

    /// Parses one JSON text whose member `member` is likely to be a long array of small integers, such as a prompt of
    /// token ids: one number at a time they would cost more than all else of a request.
    /// - Returns: the array as `integers` if it is one of 1 or more plain integers within 0...Int32.max, and then the
    ///   object is without that member; else nil, and the member is where it belongs.
    package static func parse(
        _ bytes: UnsafeBufferPointer<UInt8>, limits: JSONLimits = JSONLimits(), takingIntegersOf member: String?
    ) throws(JSONError) -> (value: JSONValue, integers: [Int32]?) {
        try parse(bytes, limits: limits) { parser throws(JSONError) in
            parser.member = member
            return (try parser.parseDocument(), parser.integers)
        }
    }

    /// Parses one JSON text with members that are likely to be long lists of short texts.
    /// - Returns: those that were, by their names; the value is without them. Any others are where they belong.
    package static func parse(
        _ bytes: UnsafeBufferPointer<UInt8>, limits: JSONLimits = JSONLimits(), taking request: JSONTextsRequest
    ) throws(JSONError) -> (value: JSONValue, texts: [String: JSONTexts]) {
        try parse(bytes, limits: limits) { parser throws(JSONError) in
            parser.request = request
            return (try parser.parseDocument(), parser.texts)
        }
    }

    private static func parse<Result>(
        _ bytes: UnsafeBufferPointer<UInt8>, limits: JSONLimits, body: (inout JSONParser) throws(JSONError) -> Result
    ) throws(JSONError) -> Result {
        guard bytes.count <= limits.maximumBytes else {
            throw JSONError(
                kind: .tooLarge, offset: limits.maximumBytes,
                message: "JSON text of \(bytes.count) bytes is longer than the limit of \(limits.maximumBytes)")
        }
        guard let base = bytes.baseAddress else {
            throw JSONError(kind: .syntax, offset: 0, message: "Expecting value")
        }
        var parser = JSONParser(base: base, count: bytes.count, maximumDepth: limits.maximumDepth)
        do {
            return try body(&parser)
        } catch {
            // Python decodes the whole text before it parses: bad bytes anywhere outrank the first syntax error.
            if let offset = firstInvalidUTF8(bytes) {
                throw JSONError(kind: .invalidUTF8, offset: offset, message: "invalid UTF-8")
            }
            throw error
        }
    }

    package static func parse(_ bytes: [UInt8], limits: JSONLimits = JSONLimits()) throws(JSONError) -> JSONValue {
        try bytes.withUnsafeBufferPointer { buffer throws(JSONError) in try parse(buffer, limits: limits) }
    }

    package static func parse(_ text: String, limits: JSONLimits = JSONLimits()) throws(JSONError) -> JSONValue {
        var text = text
        let result = text.withUTF8 { buffer in
            Result { () throws(JSONError) in try parse(buffer, limits: limits) }
        }
        return try result.get()
    }
}

/// Recursive descent over bytes; recursion is bounded by `maximumDepth`.
struct JSONParser {
    let base: UnsafePointer<UInt8>
    let count: Int
    let maximumDepth: Int
    var position = 0
    var depth = 0
    /// The member of the outermost object whose integers are taken out.
    var member: String?
    var integers: [Int32]?
    /// The members of an object in the outermost one that are taken out as texts.
    var request: JSONTextsRequest?
    var texts: [String: JSONTexts] = [:]
    private var isInParent = false
    /// Reused for strings with escapes.
    var scratch: [UInt8] = []

    init(base: UnsafePointer<UInt8>, count: Int, maximumDepth: Int) {
        self.base = base
        self.count = count
        self.maximumDepth = maximumDepth
    }

    mutating func parseDocument() throws(JSONError) -> JSONValue {
        if count >= 3, base[0] == 0xEF, base[1] == 0xBB, base[2] == 0xBF { position = 3 }
        skipWhitespace()
        let value = try parseValue()
        skipWhitespace()
        guard position == count else { throw syntax("Extra data", at: position) }
        return value
    }

    private func syntax(_ message: String, at offset: Int) -> JSONError {
        JSONError(kind: .syntax, offset: offset, message: message)
    }

    var current: UInt8 { position < count ? base[position] : 0 }

    private mutating func skipWhitespace() {
        while position < count {
            switch base[position] {
            case 0x20, 0x0A, 0x0D, 0x09: position += 1
            default: return
            }
        }
    }

    private mutating func parseValue() throws(JSONError) -> JSONValue {
        switch current {
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "{"): return try parseObject()
        case UInt8(ascii: "["): return try parseArray()
        case UInt8(ascii: "t") where take("true"): return .bool(true)
        case UInt8(ascii: "f") where take("false"): return .bool(false)
        case UInt8(ascii: "n") where take("null"): return .null
        case UInt8(ascii: "N") where take("NaN"): return .number(JSONNumber(text: "NaN"))
        case UInt8(ascii: "I") where take("Infinity"): return .number(JSONNumber(text: "Infinity"))
        case UInt8(ascii: "-") where take("-Infinity"): return .number(JSONNumber(text: "-Infinity"))
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return .number(try parseNumber())
        default: throw syntax("Expecting value", at: position)
        }
    }

    private mutating func take(_ word: StaticString) -> Bool {
        let length = word.utf8CodeUnitCount
        guard count - position >= length else { return false }
        for index in 0..<length where base[position + index] != word.utf8Start[index] { return false }
        position += length
        return true
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        if depth > maximumDepth {
            throw JSONError(
                kind: .tooDeep, offset: position, message: "more than \(maximumDepth) levels of arrays and objects")
        }
    }

    /// Goes into an array or object at its first entry, then behind each to the next.
    /// - Returns: false behind the closing bracket.
    mutating func nextEntry(_ isFirst: inout Bool, closing: UInt8) throws(JSONError) -> Bool {
        if isFirst {
            isFirst = false
            try enter()
            position += 1
            skipWhitespace()
            if current != closing { return true }
        } else {
            skipWhitespace()
            if current == UInt8(ascii: ",") {
                position += 1
                skipWhitespace()
                return true
            }
            guard current == closing else { throw syntax("Expecting ',' delimiter", at: position) }
        }
        position += 1
        depth -= 1
        return false
    }

    /// Behind a key, to its value.
    mutating func parseColon() throws(JSONError) {
        skipWhitespace()
        guard current == UInt8(ascii: ":") else { throw syntax("Expecting ':' delimiter", at: position) }
        position += 1
        skipWhitespace()
    }

    private mutating func parseArray() throws(JSONError) -> JSONValue {
        var values: [JSONValue] = []
        var isFirst = true
        while try nextEntry(&isFirst, closing: UInt8(ascii: "]")) { values.append(try parseValue()) }
        return .array(values)
    }

    /// - Returns: nil, with the position unchanged, when the value is anything else than a plain list of integers.
    private mutating func parseIntegers() -> [Int32]? {
        guard current == UInt8(ascii: "["), depth < maximumDepth else { return nil }
        var values: [Int32] = []
        // No element is shorter than two bytes; the guess keeps most prompts from being copied as they grow.
        values.reserveCapacity(min((count - position) / 4, 1 << 14))
        let (base, count) = (base, count)
        var at = position &+ 1
        while true {
            while at < count, isWhitespace(base[at]) { at &+= 1 }
            let first = at
            var value = 0
            if count &- at >= 8, let digits = Self.leadingDigits(base + at) {
                value = digits.value
                at &+= digits.count
            } else {
                while at < count, base[at] &- 0x30 < 10, at &- first < 10 {
                    value = value &* 10 &+ Int(base[at] &- 0x30)
                    at &+= 1
                }
            }
            guard at > first, base[first] != 0x30 || at == first &+ 1, value <= Int(Int32.max) else { return nil }
            values.append(Int32(truncatingIfNeeded: value))
            while at < count, isWhitespace(base[at]) { at &+= 1 }
            guard at < count else { return nil }
            let separator = base[at]
            at &+= 1
            if separator == UInt8(ascii: ",") { continue }
            guard separator == UInt8(ascii: "]") else { return nil }
            position = at
            return values
        }
    }

    /// The number that eight bytes begin with, without a branch per digit; nil if all of them are digits.
    @inline(__always)
    private static func leadingDigits(_ bytes: UnsafePointer<UInt8>) -> (value: Int, count: Int)? {
        let word = UInt64(littleEndian: UnsafeRawPointer(bytes).loadUnaligned(as: UInt64.self))
        let values = word ^ 0x3030_3030_3030_3030
        // The high bit of every byte up to the first that is no digit, and of that one.
        let others = (values &+ 0x7676_7676_7676_7676 | values) & 0x8080_8080_8080_8080
        guard others != 0 else { return nil }
        let count = others.trailingZeroBitCount / 8
        guard count > 0 else { return (0, 0) }
        // As if zeros stood in front: then pairs, fours and all eight are added up.
        var sum = values << UInt64(64 &- 8 &* count)
        sum = sum &* 10 &+ sum >> 8
        let low = (sum & 0x0000_00FF_0000_00FF) &* 0x000F_4240_0000_0064
        let high = (sum >> 16 & 0x0000_00FF_0000_00FF) &* 0x0000_2710_0000_0001
        return (Int((low &+ high) >> 32), count)
    }

    @inline(__always)
    private func isWhitespace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }

    private mutating func parseObject() throws(JSONError) -> JSONValue {
        var object = JSONObject()
        var isFirst = true
        while try nextEntry(&isFirst, closing: UInt8(ascii: "}")) {
            guard current == UInt8(ascii: "\"") else {
                throw syntax("Expecting property name enclosed in double quotes", at: position)
            }
            let key = try parseString()
            try parseColon()
            object[key] = try depth <= 2 ? takeOrParse(key) : parseValue()
        }
        return .object(object)
    }

    /// The value of a member near the top, which may be one of those that are taken out.
    /// - Returns: nil if it was.
    private mutating func takeOrParse(_ key: String) throws(JSONError) -> JSONValue? {
        if depth == 1, let member, key == member {
            integers = parseIntegers()
            if integers != nil { return nil }
        }
        guard let request else { return try parseValue() }
        if depth == 1, key == request.parent {
            // A repeated object counts alone.
            texts = [:]
            isInParent = true
            defer { isInParent = false }
            return try parseValue()
        }
        if depth == 2, isInParent, request.members.contains(key) {
            texts[key] = parseTexts()
            if texts[key] != nil { return nil }
        }
        return try parseValue()
    }

    private mutating func parseNumber() throws(JSONError) -> JSONNumber {
        let start = position
        if current == UInt8(ascii: "-") { position += 1 }
        if current == UInt8(ascii: "0") {
            position += 1
        } else if !skipDigits() {
            throw syntax("Expecting value", at: start)
        }
        // As in Python, a point or exponent without digits after it is not part of the number.
        if current == UInt8(ascii: ".") {
            position += 1
            if !skipDigits() {
                position -= 1
                return number(from: start)
            }
        }
        if current | 0x20 == UInt8(ascii: "e") {
            let mark = position
            position += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
            if !skipDigits() { position = mark }
        }
        return number(from: start)
    }

    private mutating func skipDigits() -> Bool {
        let start = position
        while position < count, base[position] &- 0x30 < 10 { position += 1 }
        return position > start
    }

    private func number(from start: Int) -> JSONNumber {
        JSONNumber(
            text: String(decoding: UnsafeBufferPointer(start: base + start, count: position - start), as: UTF8.self))
    }

    /// Reads a string whose opening quote is at `position`.
    mutating func parseString() throws(JSONError) -> String {
        let opening = position
        let start = position + 1
        var special = firstStringSpecial(base, from: start, count: count)
        if special < count, base[special] == UInt8(ascii: "\"") {
            position = special + 1
            return try string(UnsafeBufferPointer(start: base + start, count: special - start), at: start)
        }
        scratch.removeAll(keepingCapacity: true)
        var copied = start
        while special < count {
            scratch.append(contentsOf: UnsafeBufferPointer(start: base + copied, count: special - copied))
            switch base[special] {
            case UInt8(ascii: "\""):
                position = special + 1
                return try scratch.withUnsafeBufferPointer { buffer throws(JSONError) in
                    try string(buffer, at: start)
                }
            case UInt8(ascii: "\\"):
                position = special
                try parseEscape(opening: opening)
                copied = position
                special = firstStringSpecial(base, from: position, count: count)
            default: throw syntax("Invalid control character at", at: special)
            }
        }
        throw syntax("Unterminated string starting at", at: opening)
    }

    private func string(_ bytes: UnsafeBufferPointer<UInt8>, at offset: Int) throws(JSONError) -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw JSONError(kind: .invalidUTF8, offset: offset, message: "invalid UTF-8")
        }
        return text
    }

    /// Reads one escape into `scratch`; `position` is at its backslash and moves behind it.
    private mutating func parseEscape(opening: Int) throws(JSONError) {
        let backslash = position
        position += 1
        guard position < count else { throw syntax("Unterminated string starting at", at: opening) }
        let letter = base[position]
        position += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): scratch.append(letter)
        case UInt8(ascii: "n"): scratch.append(0x0A)
        case UInt8(ascii: "t"): scratch.append(0x09)
        case UInt8(ascii: "r"): scratch.append(0x0D)
        case UInt8(ascii: "b"): scratch.append(0x08)
        case UInt8(ascii: "f"): scratch.append(0x0C)
        case UInt8(ascii: "u"): appendScalar(try parseUnicodeEscape(backslash: backslash))
        default: throw syntax("Invalid \\escape", at: backslash)
        }
    }

    /// Reads the digits after `\u`, and the second half of a surrogate pair.
    private mutating func parseUnicodeEscape(backslash: Int) throws(JSONError) -> UInt32 {
        let first = try parseHex4()
        guard first & 0xF800 == 0xD800 else { return first }
        if first < 0xDC00, count - position >= 6, base[position] == UInt8(ascii: "\\"),
            base[position + 1] == UInt8(ascii: "u")
        {
            position += 2
            let second = try parseHex4()
            if second & 0xFC00 == 0xDC00 { return 0x10000 + (first - 0xD800) << 10 + (second - 0xDC00) }
        }
        throw JSONError(kind: .loneSurrogate, offset: backslash, message: "unpaired surrogate in \\u escape")
    }

    private mutating func parseHex4() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        guard count - position >= 4 else { throw syntax("Invalid \\uXXXX escape", at: position - 1) }
        for index in position..<position + 4 {
            let byte = base[index]
            let digit: UInt8
            switch byte {
            case 0x30...0x39: digit = byte - 0x30
            case 0x41...0x46: digit = byte - 0x41 + 10
            case 0x61...0x66: digit = byte - 0x61 + 10
            default: throw syntax("Invalid \\uXXXX escape", at: position - 1)
            }
            value = value << 4 | UInt32(digit)
        }
        position += 4
        return value
    }

    private mutating func appendScalar(_ value: UInt32) {
        switch value {
        case 0..<0x80: scratch.append(UInt8(value))
        case 0x80..<0x800:
            scratch.append(UInt8(0xC0 | value >> 6))
            scratch.append(UInt8(0x80 | value & 0x3F))
        case 0x800..<0x10000:
            scratch.append(UInt8(0xE0 | value >> 12))
            scratch.append(UInt8(0x80 | value >> 6 & 0x3F))
            scratch.append(UInt8(0x80 | value & 0x3F))
        default:
            scratch.append(UInt8(0xF0 | value >> 18 & 0x07))
            scratch.append(UInt8(0x80 | value >> 12 & 0x3F))
            scratch.append(UInt8(0x80 | value >> 6 & 0x3F))
            scratch.append(UInt8(0x80 | value & 0x3F))
        }
    }
}

/// Offset of the first byte that does not belong to a well-formed UTF-8 sequence.
func firstInvalidUTF8(_ bytes: UnsafeBufferPointer<UInt8>) -> Int? {
    let raw = UnsafeRawBufferPointer(bytes)
    var offset = 0
    while offset < raw.count {
        if offset &+ 8 <= raw.count,
            raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
        {
            offset &+= 8
            continue
        }
        // What is not ASCII ends at the latest where ASCII begins.
        let start = offset
        while offset < raw.count, raw[offset] >= 0x80 { offset &+= 1 }
        if start == offset {
            offset &+= 1
        } else if let invalid = firstInvalidSequence(bytes[start..<offset]) {
            return start + invalid
        }
    }
    return nil
}

private func firstInvalidSequence(_ bytes: Slice<UnsafeBufferPointer<UInt8>>) -> Int? {
    var decoder = UTF8.ForwardParser()
    var iterator = bytes.makeIterator()
    var offset = 0
    while true {
        switch decoder.parseScalar(from: &iterator) {
        case .valid(let encoded): offset += encoded.count
        case .error: return offset
        case .emptyInput: return nil
        }
    }
}
