import JSONBytes
import TestSupport
import Testing

@Suite struct ParserTests {
    /// Messages and positions as CPython 3.11's `json.loads` reports them.
    @Test(arguments: [
        ("", "Expecting value", 0),
        ("{", "Expecting property name enclosed in double quotes", 1),
        ("[1,]", "Expecting value", 3),
        (#"{"a":1,}"#, "Expecting property name enclosed in double quotes", 7),
        ("{a:1}", "Expecting property name enclosed in double quotes", 1),
        (#"{"a"1}"#, "Expecting ':' delimiter", 4),
        (#"{"a":1 "b":2}"#, "Expecting ',' delimiter", 7),
        ("[1 2]", "Expecting ',' delimiter", 3),
        (#""abc"#, "Unterminated string starting at", 0),
        ("\"a\nb\"", "Invalid control character at", 2),
        ("\"\t\"", "Invalid control character at", 1),
        (#""\x""#, "Invalid \\escape", 1),
        (#""\u12g4""#, "Invalid \\uXXXX escape", 2),
        (#""\u12"#, "Invalid \\uXXXX escape", 2),
        ("01", "Extra data", 1),
        ("1.", "Extra data", 1),
        ("-", "Expecting value", 0),
        (".5", "Expecting value", 0),
        ("+1", "Expecting value", 0),
        ("1e", "Extra data", 1),
        ("1 2", "Extra data", 2),
        ("tru", "Expecting value", 0),
        ("[1", "Expecting ',' delimiter", 2),
        (#"{"a":"#, "Expecting value", 5),
        (#"{"a":1,"#, "Expecting property name enclosed in double quotes", 7),
        ("\"é\" x", "Extra data", 4),
        ("[\"é\",]", "Expecting value", 5),
        ("\u{FEFF}{", "Expecting property name enclosed in double quotes", 1),
        ("\"\\", "Unterminated string starting at", 0),
        ("[-]", "Expecting value", 1),
        ("[,1]", "Expecting value", 1),
    ])
    func reportsWhatPythonReports(text: String, message: String, position: Int) {
        let error = #expect(throws: JSONError.self) { try JSONValue.parse(text) }
        #expect(error?.kind == .syntax)
        #expect(error?.message == message)
        #expect(error?.characterOffset(in: Array(text.utf8)) == position)
    }

    @Test func keepsKeyOrderAndNumberSpelling() throws {
        let text = #"{"b":1e0,"a":[1.0,-0,1E+2,123456789012345678901234567890],"c":{"z":null,"y":true}}"#
        #expect(try JSONValue.parse(text).serialized() == text)
    }

    @Test func lastOfRepeatedKeysWinsAtTheFirstPlace() throws {
        #expect(try JSONValue.parse(#"{"a":1,"a":2,"b":3,"a":4}"#).serialized() == #"{"a":4,"b":3}"#)
    }

    @Test func keysThatDifferOnlyInNormalisationAreDistinct() throws {
        let value = try JSONValue.parse(#"{"\u00e9":1,"e\u0301":2}"#)
        #expect(value.objectValue?.count == 2)
        #expect(value["e\u{301}"] == .number(2))
    }

    @Test func objectsWithManyKeysFindRemoveAndReplace() {
        var object = JSONObject()
        for index in 0..<1000 { object["key\(index)"] = .number(index) }
        for index in stride(from: 0, to: 1000, by: 2) { object["key\(index)"] = nil }
        object["key7"] = .null
        #expect(object.count == 500)
        #expect(object["key8"] == nil)
        #expect(object["key7"] == .null)
        #expect(object["key999"] == .number(999))
        #expect(object.keys.prefix(3) == ["key1", "key3", "key5"])
    }

    @Test func acceptsWhatPythonAcceptsBeyondTheStandard() throws {
        #expect(try JSONValue.parse("\u{FEFF} [NaN, Infinity, -Infinity]").serialized() == "[NaN,Infinity,-Infinity]")
        let numbers = try #require(try JSONValue.parse("[NaN,Infinity,-Infinity]").arrayValue).map {
            $0.numberValue?.doubleValue ?? 0
        }
        #expect(numbers[0].isNaN)
        #expect(numbers[1] == .infinity)
        #expect(numbers[2] == -.infinity)
    }

    @Test func decodesEveryEscape() throws {
        let value = try JSONValue.parse(#""\"\\\/\b\f\n\r\t\u0000\u00e9\u20AC\ud83d\ude00 plain text after it""#)
        #expect(value.stringValue == "\"\\/\u{8}\u{C}\n\r\t\0é€😀 plain text after it")
    }

    @Test(arguments: [#""\ud800""#, #""\udc00""#, #""\ud800\u0041""#, #""\ud83dx""#, #"{"\ud800":1}"#])
    func refusesUnpairedSurrogates(text: String) {
        #expect(throws: JSONError.self) { try JSONValue.parse(text) }
        #expect(kind(Array(text.utf8)) == .loneSurrogate)
    }

    @Test func invalidUTF8OutranksSyntaxErrors() {
        #expect(kind([0x22, 0xFF, 0x22]) == .invalidUTF8)
        #expect(kind([0x22, 0xED, 0xA0, 0x80, 0x22]) == .invalidUTF8)
        #expect(kind([0x5B, 0x2C, 0x22, 0xC3, 0x22]) == .invalidUTF8)
        let error = #expect(throws: JSONError.self) { try JSONValue.parse([0x5B, 0x2C, 0x22, 0xC3, 0x28, 0x22]) }
        #expect(error?.offset == 3)
    }

    @Test func depthAndSizeAreLimited() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(try JSONValue.parse(nested(300)).arrayValue?.count == 1)
        #expect(kind(Array(nested(1000).utf8)) == .tooDeep)
        #expect(kind(Array(String(repeating: "{\"a\":", count: 100_000).utf8)) == .tooDeep)
        // Depth counts nesting, not the number of arrays.
        let siblings = "[" + Array(repeating: "[]", count: 2000).joined(separator: ",") + "]"
        #expect(try JSONValue.parse(siblings).arrayValue?.count == 2000)
        let limits = JSONLimits(maximumBytes: 4)
        #expect(try JSONValue.parse("1234", limits: limits).numberValue?.intValue == 1234)
        #expect(throws: JSONError.self) { try JSONValue.parse("12345", limits: limits) }
    }

    @Test func numbersConvertLikePython() {
        #expect(JSONNumber(text: "12").isInteger)
        #expect(!JSONNumber(text: "1e2").isInteger)
        #expect(JSONNumber(text: "9223372036854775808").intValue == nil)
        #expect(JSONNumber(text: "-9223372036854775808").intValue == Int.min)
        #expect(JSONNumber(text: "1e400").doubleValue == .infinity)
        #expect(JSONNumber(text: "-0.0").doubleValue.sign == .minus)
        for text in ["0.1", "3.14159", "-2.5", "123456789012345", "0.000001", "1e-7", "179769313486231570e291"] {
            #expect(JSONNumber(text: text).doubleValue == Double(text))
        }
    }

    /// Every prefix and every one-byte change of a document ends in a value or an error, never in a trap.
    @Test func survivesDamagedInput() {
        let document = Array(#"{"a\u00e9":[1.5e-3,true,null,"\ud83d\ude00",{"b":"é"}],"c":-12}"#.utf8)
        var accepted = 0
        for length in 0...document.count where (try? JSONValue.parse(Array(document.prefix(length)))) != nil {
            accepted += 1
        }
        #expect(accepted == 1)
        var generator = SeededGenerator(seed: 1)
        for position in document.indices {
            for byte: UInt8 in [0, 0x22, 0x5C, 0x7B, 0x5D, 0x80, 0xFF, UInt8.random(in: 0...255, using: &generator)] {
                var damaged = document
                damaged[position] = byte
                if let value = try? JSONValue.parse(damaged) {
                    #expect(try! JSONValue.parse(value.serialized()) == value)
                }
            }
        }
    }

    /// Strings whose special byte sits at every position around the word boundaries of the scanner.
    @Test func findsTheEndOfStringsOfEveryLength() throws {
        for length in 0..<70 {
            let plain = String(repeating: "x", count: length)
            #expect(try JSONValue.parse("\"\(plain)\"").stringValue == plain)
            #expect(try JSONValue.parse("\"\(plain)\\n\(plain)\"").stringValue == "\(plain)\n\(plain)")
            #expect(kind(Array("\"\(plain)\u{1}\"".utf8)) == .syntax)
        }
    }

    private func kind(_ bytes: [UInt8]) -> JSONError.Kind? {
        do throws(JSONError) {
            _ = try JSONValue.parse(bytes)
            return nil
        } catch {
            return error.kind
        }
    }

    /// Lists of integers are read by a way of their own, many digits at once.
    @Test func integersOfAMember() throws {
        func parse(_ text: String) throws -> (JSONValue, [Int32]?) {
            let (value, integers) = try Array(text.utf8).withUnsafeBufferPointer { bytes throws(JSONError) in
                try JSONValue.parse(bytes, takingIntegersOf: "p")
            }
            return (value, integers)
        }
        var values: [Int32] = [0, 1, 9, 10, 99, 12_345_678, 9_999_999, 99_999_999, 123_456_789, .max]
        for digits in 1...10 { values += (0..<50).map { _ in Int32(clamping: Int.random(in: 0..<pow10(digits))) } }
        for separator in [",", ", ", " ,\n\t"] {
            for count in [1, 2, 7, values.count] {
                let list = values.prefix(count).map(String.init).joined(separator: separator)
                #expect(try parse("{\"a\": 1, \"p\": [\(list)]}").1 == Array(values.prefix(count)))
                #expect(try parse("{\"p\":[ \(list) ]}").1 == Array(values.prefix(count)))
            }
        }
        // What is anything else stays with the others.
        for list in [
            "[]", "[01]", "[1.5]", "[-1]", "[1,]", "[2147483648]", "[12345678901]", "[1e3]", "[1 2]", "[\"1\"]", "[1",
        ] {
            if let (_, integers) = try? parse("{\"p\": \(list), \"padding\": \"12345678\"}") {
                #expect(integers == nil)
            }
        }
        #expect(try parse("{\"p\": [1, 2.5, 3]}").0["p"]?.arrayValue?.count == 3)
    }

    /// Long lists of texts are taken out of a document, if they are nothing else.
    @Test func textsOfMembers() throws {
        func parse(_ bytes: [UInt8]) throws -> (value: JSONValue, texts: [String: JSONTexts]) {
            try bytes.withUnsafeBufferPointer { bytes throws(JSONError) in
                try JSONValue.parse(bytes, taking: JSONTextsRequest(["t", "u"], of: "p"))
            }
        }
        func list(_ texts: JSONTexts?) -> [String]? {
            texts.map { texts in
                (0..<texts.count).map { String(decoding: texts.bytes[texts.range($0)], as: UTF8.self) }
            }
        }
        let (value, texts) = try parse(
            Array(
                #"{"t": ["kept"], "p": {"t": {"a": 1, "\u00e9\n": 22 , "a":0}, "x": [1], "u" :[ "b", "", "é" ]}, "q": {"u": []}}"#
                    .utf8))
        #expect(value == (try JSONValue.parse(#"{"t": ["kept"], "p": {"x": [1]}, "q": {"u": []}}"#)))
        #expect(list(texts["t"]) == ["a", "é\n", "a"])
        #expect(texts["t"]?.numbers == [1, 22, 0])
        #expect(texts["t"]?.shape == .numbered)
        #expect(list(texts["u"]) == ["b", "", "é"])
        #expect(texts["u"]?.shape == .strings)
        let pairs = try parse(Array(#"{"p": {"u": [["a", "b"] , ["c","d"]]}}"#.utf8)).texts["u"]
        #expect(list(pairs) == ["a", "b", "c", "d"])
        #expect(pairs?.shape == .pairs)
        // What is anything else stays with the others, and a repeated member counts alone.
        for other in [
            #"{"a": -1}"#, #"{"a": 01}"#, #"{"a": 1.5}"#, #"{"a": "b"}"#, #"{"a": 2147483648}"#, #"["a", 1]"#,
            #"["a", ["a"]]"#,
            #"[["a"]]"#, #"[["a", "b", "c"]]"#, #"[["a", "b"], "c"]"#, "1", "null", #""a""#, "[[]]",
        ] {
            let text = #"{"p": {"t": ["a"], "t": \#(other)}}"#
            #expect((try? parse(Array(text.utf8)))?.texts["t"] == nil)
            #expect((try? parse(Array(text.utf8)))?.value == (try? JSONValue.parse(text)), "\(text)")
        }
        #expect(try parse(Array(#"{"p": {"t": ["a"]}, "p": {}}"#.utf8)).texts.isEmpty)
        // The bytes of one character are not those of two texts.
        let broken = Array(#"{"p": {"t": [""#.utf8) + [0xC3] + Array(#"", ""#.utf8) + [0xA9] + Array(#""]}}"#.utf8)
        #expect(throws: JSONError.self) { try parse(broken) }
        for text in [
            #"{"p": {"t": ["a", ]}}"#, #"{"p": {"t": ["a" "b"]}}"#, #"{"p": {"t": {"a" 1}}}"#, #"{"p": {"t": ["a"#,
        ] {
            #expect(kind(Array(text.utf8)) == .syntax)
            #expect(throws: JSONError.self) { try parse(Array(text.utf8)) }
        }
    }

    private func pow10(_ exponent: Int) -> Int { (0..<exponent).reduce(1) { value, _ in value * 10 } }
}
