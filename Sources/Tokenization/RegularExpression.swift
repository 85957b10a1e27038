import CPCRE2

/// A split or replace pattern that has no hand-written scanner, compiled by PCRE2 with its JIT.
///
/// Patterns in tokenizer files are written for Oniguruma; where the two engines would disagree silently, the pattern is
/// rewritten (`\s`, which in PCRE2 includes U+180E, and `\w`, which lacks marks) or refused (set operations, nested sets,
/// `\h`). PCRE2 brings its own Unicode version, so that characters newer than that count as unassigned here.
package final class RegularExpression: @unchecked Sendable {
    private let code: OpaquePointer
    /// Read-only while matching, therefore shared.
    private let context: OpaquePointer

    /// Far above what any sane pattern needs for one match; keeps a hostile one from hanging a thread.
    private static let matchLimit: UInt32 = 10_000_000
    private static let heapLimitKiB: UInt32 = 64 * 1024
    private static let maximumPatternBytes = 64 * 1024

    package init(_ pattern: String) throws(TokenizerError) {
        guard pattern.utf8.count <= Self.maximumPatternBytes else {
            throw TokenizerError(.unsupported, "split pattern of \(pattern.utf8.count) bytes is too long")
        }
        let text = try Self.translate(pattern)
        var errorCode: CInt = 0
        var errorOffset = 0
        let options = PCRE2_UTF | PCRE2_UCP | UInt32(PCRE2_NO_UTF_CHECK) | PCRE2_MULTILINE
        let compiled = text.withUnsafeBufferPointer {
            pcre2_compile_8($0.baseAddress, $0.count, options, &errorCode, &errorOffset, nil)
        }
        guard let compiled else {
            var message = [UInt8](repeating: 0, count: 256)
            let length = pcre2_get_error_message_8(errorCode, &message, message.count)
            let reason = String(decoding: message.prefix(max(0, Int(length))), as: UTF8.self)
            throw TokenizerError(.unsupported, "pattern \(pattern) is not understood: \(reason) at byte \(errorOffset)")
        }
        code = compiled
        // Without JIT support on this machine matching is slower but the same.
        _ = pcre2_jit_compile_8(compiled, UInt32(PCRE2_JIT_COMPLETE))
        context = pcre2_match_context_create_8(nil)!
        pcre2_set_match_limit_8(context, Self.matchLimit)
        pcre2_set_heap_limit_8(context, Self.heapLimitKiB)
    }

    deinit {
        pcre2_match_context_free_8(context)
        pcre2_code_free_8(code)
    }

    /// Calls `body` with every non-overlapping match, left to right, as byte offsets into `text` (valid UTF-8).
    func forEachMatch(
        in text: UnsafeBufferPointer<UInt8>, _ body: (Int, Int) throws(TokenizerError) -> Void
    ) throws(TokenizerError) {
        guard let base = text.baseAddress, text.count > 0 else { return }
        guard let data = pcre2_match_data_create_from_pattern_8(code, nil) else {
            throw TokenizerError(.tooComplex, "out of memory while matching a split pattern")
        }
        defer { pcre2_match_data_free_8(data) }
        let offsets = pcre2_get_ovector_pointer_8(data)!
        let options = UInt32(PCRE2_NO_UTF_CHECK)
        var position = 0
        while position < text.count {
            var result = pcre2_match_8(code, base, text.count, position, options, data, context)
            if result == PCRE2_ERROR_JIT_STACKLIMIT {
                result = pcre2_match_8(code, base, text.count, position, options | PCRE2_NO_JIT, data, context)
            }
            if result == PCRE2_ERROR_NOMATCH { return }
            guard result >= 0 else {
                throw TokenizerError(.tooComplex, "the tokenizer's split pattern needs too many steps for this text")
            }
            let start = offsets[0]
            let end = offsets[1]
            // `\K` and lookarounds may report a start behind the end or before the search position.
            guard start <= end, start >= position else {
                throw TokenizerError(.unsupported, "the tokenizer's split pattern matches backwards")
            }
            if end > start {
                try body(start, end)
                position = end
            } else {
                // An empty match splits nothing; search on behind the next character.
                position = start < text.count ? start + sequenceLength(base[start]) : text.count
            }
        }
    }

    /// Oniguruma's `\s` is White_Space.
    private static let whiteSpaceMembers =
        #"\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"#

    /// Oniguruma's `\w`: alphabetic characters, marks, decimal digits, connectors, and superscript digits and fractions of
    /// Latin-1.
    private static let wordMembers =
        #"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE}\x{24B6}-\x{24E9}"#
        + #"\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}"#

    private static let wordBoundary =
        "(?:(?<=[\(wordMembers)])(?![\(wordMembers)])|(?<![\(wordMembers)])(?=[\(wordMembers)]))"

    private static func translate(_ pattern: String) throws(TokenizerError) -> [UInt8] {
        func unsupported(_ what: String) -> TokenizerError {
            TokenizerError(.unsupported, "pattern \(pattern): \(what) is not supported")
        }
        var output: [UInt8] = []
        let input = Array(pattern.utf8)
        var index = 0
        var insideSet = false
        while index < input.count {
            let byte = input[index]
            switch byte {
            case UInt8(ascii: "\\"):
                guard index + 1 < input.count else { throw unsupported("a backslash at the end") }
                let escaped = input[index + 1]
                index += 2
                switch escaped {
                case UInt8(ascii: "s"):
                    output += Array((insideSet ? whiteSpaceMembers : "[" + whiteSpaceMembers + "]").utf8)
                case UInt8(ascii: "w"):
                    output += Array((insideSet ? wordMembers : "[" + wordMembers + "]").utf8)
                case UInt8(ascii: "S") where insideSet, UInt8(ascii: "W") where insideSet:
                    throw unsupported("\\\(Character(Unicode.Scalar(escaped))) inside a set")
                case UInt8(ascii: "W"):
                    output += Array(("[^" + wordMembers + "]").utf8)
                case UInt8(ascii: "b") where !insideSet: output += Array(wordBoundary.utf8)
                case UInt8(ascii: "B") where !insideSet: output += Array("(?!\(wordBoundary))".utf8)
                case UInt8(ascii: "S"):
                    output += Array(("[^" + whiteSpaceMembers + "]").utf8)
                case UInt8(ascii: "h"), UInt8(ascii: "H"), UInt8(ascii: "K"), UInt8(ascii: "G"), UInt8(ascii: "y"),
                    UInt8(ascii: "Y"):
                    throw unsupported("\\\(Character(Unicode.Scalar(escaped)))")
                default: output += [byte, escaped]
                }
                continue
            case UInt8(ascii: "[") where insideSet:
                guard index + 1 < input.count, input[index + 1] == UInt8(ascii: ":") else {
                    throw unsupported("a set inside a set")
                }
            case UInt8(ascii: "["):
                insideSet = true
                output.append(byte)
                index += 1
                if index < input.count, input[index] == UInt8(ascii: "^") {
                    output.append(input[index])
                    index += 1
                }
                // A closing bracket in first place is a member.
                if index < input.count, input[index] == UInt8(ascii: "]") {
                    output += Array(#"\]"#.utf8)
                    index += 1
                }
                continue
            case UInt8(ascii: "]") where insideSet:
                // The end of `[:alpha:]` is not the end of the set.
                if index > 0, input[index - 1] == UInt8(ascii: ":"), isPosixClass(input, closing: index) {
                    break
                }
                insideSet = false
            case UInt8(ascii: "&") where insideSet && index + 1 < input.count && input[index + 1] == byte:
                throw unsupported("&& inside a set")
            default: break
            }
            output.append(byte)
            index += 1
        }
        return output
    }

    private static func isPosixClass(_ input: [UInt8], closing: Int) -> Bool {
        var index = closing - 2
        while index >= 1, (input[index] | 0x20) &- 0x61 < 26 || input[index] == UInt8(ascii: "^") { index -= 1 }
        return index >= 1 && input[index] == UInt8(ascii: ":") && input[index - 1] == UInt8(ascii: "[")
    }
}
