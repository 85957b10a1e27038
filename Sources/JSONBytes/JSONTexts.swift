/// Many short texts of one member of a document, in one block: as values of their own, the vocabulary of a tokenizer
/// would be the larger part of the time that its file takes.
package struct JSONTexts: Sendable {
    package enum Shape: Sendable, Equatable {
        /// `["a", "b"]`
        case strings
        /// `[["a", "b"], ["c", "d"]]`; `texts` has two for each.
        case pairs
        /// `{"a": 1, "b": 2}`; `texts` has the keys, repeated ones too, and `numbers` their values.
        case numbered
    }

    package let shape: Shape
    /// The texts one behind the other: UTF-8, without escapes.
    package private(set) var bytes: [UInt8] = []
    /// Where each text ends.
    package private(set) var ends: [UInt32] = []
    package private(set) var numbers: [Int32] = []

    /// - Parameter size: bytes of the JSON text, which `bytes` cannot exceed.
    fileprivate init(_ shape: Shape, size: Int) {
        self.shape = shape
        bytes.reserveCapacity(min(size, 1 << 24))
        ends.reserveCapacity(min(size / 8, 1 << 20))
    }

    package var count: Int { ends.count }

    package func range(_ index: Int) -> Range<Int> { Int(index == 0 ? 0 : ends[index - 1])..<Int(ends[index]) }

    fileprivate mutating func append(_ text: UnsafeBufferPointer<UInt8>) {
        bytes.append(contentsOf: text)
        ends.append(UInt32(truncatingIfNeeded: bytes.count))
    }

    fileprivate mutating func append(_ number: Int32) { numbers.append(number) }

    /// Whether each text for itself is UTF-8.
    fileprivate var isValid: Bool {
        bytes.withUnsafeBufferPointer { all in
            var start = 0
            for end in ends {
                // A text that went on with a character of the one before it would look right in the block.
                if start < Int(end), all[start] & 0xC0 == 0x80 { return false }
                start = Int(end)
            }
            return firstInvalidUTF8(all) == nil
        }
    }
}

/// Which members of which object of the outermost object are taken out as ``JSONTexts``.
package struct JSONTextsRequest: Sendable {
    package let parent: String
    package let members: [String]

    package init(_ members: [String], of parent: String) {
        self.parent = parent
        self.members = members
    }
}

extension JSONParser {
    /// - Returns: nil, with the position unchanged, when the value has none of the shapes, or something is wrong with it.
    mutating func parseTexts() -> JSONTexts? {
        let (start, startDepth) = (position, depth)
        if let texts = try? parseTextsOfAnyShape(), texts.isValid { return texts }
        (position, depth) = (start, startDepth)
        return nil
    }

    /// The value is something else.
    private struct Mismatch: Error {}

    private mutating func parseTextsOfAnyShape() throws -> JSONTexts {
        let size = count - position
        guard size <= Int(UInt32.max) else { throw Mismatch() }
        switch current {
        case UInt8(ascii: "{"):
            var texts = JSONTexts(.numbered, size: size)
            var isFirst = true
            while try nextEntry(&isFirst, closing: UInt8(ascii: "}")) {
                try parseText(into: &texts)
                try parseColon()
                guard let number = parseSmallInteger() else { throw Mismatch() }
                texts.append(number)
            }
            return texts
        case UInt8(ascii: "["):
            var isFirst = true
            guard try nextEntry(&isFirst, closing: UInt8(ascii: "]")) else { return JSONTexts(.strings, size: 0) }
            let isPairs = current == UInt8(ascii: "[")
            var texts = JSONTexts(isPairs ? .pairs : .strings, size: size)
            repeat {
                if isPairs { try parsePair(into: &texts) } else { try parseText(into: &texts) }
            } while try nextEntry(&isFirst, closing: UInt8(ascii: "]"))
            return texts
        default: throw Mismatch()
        }
    }

    private mutating func parsePair(into texts: inout JSONTexts) throws {
        guard current == UInt8(ascii: "[") else { throw Mismatch() }
        let before = texts.count
        var isFirst = true
        while try nextEntry(&isFirst, closing: UInt8(ascii: "]")) { try parseText(into: &texts) }
        guard texts.count == before + 2 else { throw Mismatch() }
    }

    private mutating func parseText(into texts: inout JSONTexts) throws {
        guard current == UInt8(ascii: "\"") else { throw Mismatch() }
        let start = position + 1
        let special = firstStringSpecial(base, from: start, count: count)
        if special < count, base[special] == UInt8(ascii: "\"") {
            texts.append(UnsafeBufferPointer(start: base + start, count: special - start))
            position = special + 1
        } else {
            var text = try parseString()
            text.withUTF8 { texts.append($0) }
        }
    }

    private mutating func parseSmallInteger() -> Int32? {
        let first = position
        var value = 0
        while position < count, base[position] &- 0x30 < 10, position &- first < 10 {
            value = value &* 10 &+ Int(base[position] &- 0x30)
            position &+= 1
        }
        guard position > first, base[first] != 0x30 || position == first + 1, value <= Int(Int32.max) else {
            return nil
        }
        return Int32(truncatingIfNeeded: value)
    }
}
