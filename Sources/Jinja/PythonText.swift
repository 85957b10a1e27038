import Glibc

// Python's view of text: code points, not grapheme clusters, and Python's own idea of what is white space. Swift's
// `Character` API would merge "\r\n" and compare by canonical equivalence, so nothing here uses it.

extension Unicode.Scalar {
    /// `str.isspace`, which is also what a regular expression's `\s` matches.
    var isPythonSpace: Bool {
        switch value {
        case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000:
            true
        default: false
        }
    }

    /// Where `str.splitlines` breaks.
    var isPythonLineBreak: Bool {
        switch value {
        case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    /// `str.isprintable` for one character: everything that `repr` does not escape.
    var isPythonPrintable: Bool {
        if isASCII { return value >= 0x20 && value < 0x7F }
        switch properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
            .spaceSeparator:
            return false
        default: return true
        }
    }

    var isPythonWordCharacter: Bool {
        if isASCII { return value == 0x5F || isASCIIDigit || isASCIILetter }
        return properties.isAlphabetic || properties.numericType != nil
            || properties.generalCategory == .letterNumber
    }

    var isASCIIDigit: Bool { value >= 0x30 && value <= 0x39 }
    var isASCIILetter: Bool { (value | 0x20) >= 0x61 && (value | 0x20) <= 0x7A }
}

extension String {
    init(scalars: some Sequence<Unicode.Scalar>) {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        self = String(view)
    }

    /// `len(text)`.
    var pythonLength: Int { unicodeScalars.count }

    func stripped(left: Bool, right: Bool, where drop: (Unicode.Scalar) -> Bool) -> String {
        let scalars = unicodeScalars
        var start = scalars.startIndex
        var end = scalars.endIndex
        if left { while start < end, drop(scalars[start]) { scalars.formIndex(after: &start) } }
        if right {
            while start < end {
                let before = scalars.index(before: end)
                guard drop(scalars[before]) else { break }
                end = before
            }
        }
        if start == scalars.startIndex, end == scalars.endIndex { return self }
        return String(self[start..<end])
    }

    /// `text.strip(chars)` and its one-sided forms; nil strips white space.
    func stripped(of characters: String? = nil, left: Bool = true, right: Bool = true) -> String {
        guard let characters else { return stripped(left: left, right: right) { $0.isPythonSpace } }
        let set = Set(characters.unicodeScalars)
        return stripped(left: left, right: right) { set.contains($0) }
    }

    /// `text.splitlines()`.
    func lines(keepingEnds: Bool = false) -> [String] {
        let scalars = unicodeScalars
        var lines: [String] = []
        var start = scalars.startIndex
        var index = start
        while index < scalars.endIndex {
            let scalar = scalars[index]
            var next = scalars.index(after: index)
            guard scalar.isPythonLineBreak else {
                index = next
                continue
            }
            if scalar == "\r", next < scalars.endIndex, scalars[next] == "\n" { next = scalars.index(after: next) }
            lines.append(String(self[start..<(keepingEnds ? next : index)]))
            start = next
            index = next
        }
        if start < scalars.endIndex { lines.append(String(self[start...])) }
        return lines
    }

    var pythonUppercased: String { mapScalars { $0.properties.uppercaseMapping } }

    var pythonLowercased: String {
        let scalars = Array(unicodeScalars)
        guard scalars.contains("\u{3A3}") else { return mapScalars { $0.properties.lowercaseMapping } }
        // Capital sigma is the one letter whose lower case depends on its neighbours.
        var result = ""
        for (index, scalar) in scalars.enumerated() {
            if scalar == "\u{3A3}" {
                let before = scalars[..<index].last { !$0.properties.isCaseIgnorable }
                let after = scalars[(index + 1)...].first { !$0.properties.isCaseIgnorable }
                let isFinal = before?.properties.isCased == true && after?.properties.isCased != true
                result += isFinal ? "\u{3C2}" : "\u{3C3}"
            } else {
                result += scalar.properties.lowercaseMapping
            }
        }
        return result
    }

    /// `text.capitalize()`.
    var pythonCapitalized: String {
        guard let first = unicodeScalars.first else { return self }
        return first.properties.titlecaseMapping
            + String(String.UnicodeScalarView(unicodeScalars.dropFirst())).pythonLowercased
    }

    private func mapScalars(_ mapping: (Unicode.Scalar) -> String) -> String {
        var result = ""
        result.reserveCapacity(utf8.count)
        for scalar in unicodeScalars { result += mapping(scalar) }
        return result
    }

    func repeated(_ count: Int) -> String { count > 0 ? String(repeating: self, count: count) : "" }
}

/// A search for one byte string in others, linear in the worst case.
package struct ByteSearch {
    private let needle: [UInt8]
    /// Knuth-Morris-Pratt failure table; empty for short needles, where plain comparison is faster and its worst case
    /// is bounded by the needle's length.
    private let failure: [Int]

    package init(_ text: String) { self.init(Array(text.utf8)) }

    init(_ needle: [UInt8]) {
        self.needle = needle
        var table: [Int] = []
        if needle.count > 16 {
            table = [Int](repeating: 0, count: needle.count)
            var length = 0
            for index in 1..<needle.count {
                while length > 0, needle[index] != needle[length] { length = table[length - 1] }
                if needle[index] == needle[length] { length += 1 }
                table[index] = length
            }
        }
        failure = table
    }

    /// Offset of the first occurrence at or after `start`.
    package func first(in haystack: UnsafeBufferPointer<UInt8>, from start: Int = 0) -> Int? {
        guard let firstByte = needle.first else { return start <= haystack.count ? start : nil }
        guard haystack.count - start >= needle.count, let base = haystack.baseAddress else { return nil }
        if !failure.isEmpty { return knuthMorrisPratt(haystack, from: start) }
        var offset = start
        let last = haystack.count - needle.count
        while offset <= last {
            guard let hit = memchr(base + offset, Int32(firstByte), last - offset + 1) else { return nil }
            offset = UnsafeRawPointer(hit) - UnsafeRawPointer(base)
            if memcmp(base + offset, needle, needle.count) == 0 { return offset }
            offset += 1
        }
        return nil
    }

    private func knuthMorrisPratt(_ haystack: UnsafeBufferPointer<UInt8>, from start: Int) -> Int? {
        var matched = 0
        for offset in start..<haystack.count {
            while matched > 0, haystack[offset] != needle[matched] { matched = failure[matched - 1] }
            if haystack[offset] == needle[matched] { matched += 1 }
            if matched == needle.count { return offset - matched + 1 }
        }
        return nil
    }

    /// Offsets of all occurrences that do not overlap, at most `limit` of them. The needle must not be empty.
    func all(in haystack: UnsafeBufferPointer<UInt8>, limit: Int = .max) -> [Int] {
        var offsets: [Int] = []
        var start = 0
        while offsets.count < limit, let offset = first(in: haystack, from: start) {
            offsets.append(offset)
            start = offset + needle.count
        }
        return offsets
    }

    var count: Int { needle.count }
}

extension String {
    func withBytes<Result>(_ body: (UnsafeBufferPointer<UInt8>) -> Result) -> Result {
        var copy = self
        return copy.withUTF8(body)
    }

    func containsBytes(of other: String) -> Bool {
        let search = ByteSearch(other)
        return withBytes { search.first(in: $0) != nil }
    }

    func hasBytePrefix(_ other: String) -> Bool { utf8.starts(with: other.utf8) }

    func hasByteSuffix(_ other: String) -> Bool {
        utf8.count >= other.utf8.count && utf8.suffix(other.utf8.count).elementsEqual(other.utf8)
    }

    /// `text.replace(old, new, limit)`.
    func replacing(_ old: String, with new: String, limit: Int = .max) -> String {
        if old.isEmpty { return interleaved(with: new, limit: limit) }
        let search = ByteSearch(old)
        return withBytes { bytes in
            let offsets = search.all(in: bytes, limit: limit)
            if offsets.isEmpty { return self }
            var result: [UInt8] = []
            result.reserveCapacity(bytes.count + offsets.count * max(0, new.utf8.count - search.count))
            var start = 0
            for offset in offsets {
                result.append(contentsOf: bytes[start..<offset])
                result.append(contentsOf: new.utf8)
                start = offset + search.count
            }
            result.append(contentsOf: bytes[start...])
            return String(decoding: result, as: UTF8.self)
        }
    }

    private func interleaved(with text: String, limit: Int) -> String {
        var result = ""
        var inserted = 0
        for scalar in unicodeScalars {
            if inserted < limit {
                result += text
                inserted += 1
            }
            result.unicodeScalars.append(scalar)
        }
        if inserted < limit { result += text }
        return result
    }

    /// `text.split(separator, limit)` for a separator that is not empty.
    func split(by separator: String, limit: Int = .max) -> [String] {
        let search = ByteSearch(separator)
        return withBytes { bytes in
            var parts: [String] = []
            var start = 0
            for offset in search.all(in: bytes, limit: limit) {
                parts.append(String(decoding: bytes[start..<offset], as: UTF8.self))
                start = offset + search.count
            }
            parts.append(String(decoding: bytes[start...], as: UTF8.self))
            return parts
        }
    }
}
