import JSONBytes
import TestSupport
import Testing

@Suite struct WriterTests {
    /// `repr(float)` of CPython.
    @Test(arguments: [
        (1e15, "1000000000000000.0"), (1e16, "1e+16"), (123456789012345680.0, "1.2345678901234568e+17"),
        (1.5e15, "1500000000000000.0"), (0.0001, "0.0001"), (0.00001, "1e-05"), (1e-7, "1e-07"),
        (Double.leastNonzeroMagnitude, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"), (0.1, "0.1"),
        (100.0, "100.0"),
        (9007199254740993.0, "9007199254740992.0"), (-0.0, "-0.0"), (0.0, "0.0"), (1e22, "1e+22"),
        (123456.789, "123456.789"), (0.00012345, "0.00012345"), (1e21, "1e+21"),
        (12345678901234567.0, "1.2345678901234568e+16"), (1234567890123456.7, "1234567890123456.8"),
        (-1.2345e-10, "-1.2345e-10"), (1152921504606846976.0, "1.152921504606847e+18"),
        (Double(Float(-0.1)), "-0.10000000149011612"), (Double(Float(-1.2345678)), "-1.2345677614212036"),
        (Double(Float(-1e-6)), "-9.999999974752427e-07"), (-9999.0, "-9999.0"), (1.0, "1.0"), (1e100, "1e+100"),
        (Double.infinity, "Infinity"), (-Double.infinity, "-Infinity"), (Double.nan, "NaN"),
    ])
    func doublesAreSpelledAsPythonDoes(value: Double, expected: String) {
        #expect(JSONNumber(value).text == expected)
    }

    @Test func randomDoublesReadBack() {
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<20_000 {
            let value = Double(bitPattern: UInt64.random(in: 0 ... .max, using: &generator))
            guard value.isFinite else { continue }
            #expect(Double(JSONNumber(value).text) == value)
        }
    }

    @Test(arguments: [0, -1, 7, 10, 1_234_567_890, Int.max, Int.min])
    func integers(value: Int) {
        var bytes: [UInt8] = []
        bytes.appendJSONInt(value)
        #expect(String(decoding: bytes, as: UTF8.self) == String(value))
    }

    @Test func smallIntegerTypes() {
        var bytes: [UInt8] = []
        bytes.appendJSONInt(Int8.min)
        bytes.appendByte(0x20)
        bytes.appendJSONInt(UInt64.max)
        #expect(String(decoding: bytes, as: UTF8.self) == "-128 18446744073709551615")
    }

    /// `json.dumps(text, ensure_ascii=False)`.
    @Test(arguments: [
        ("", #""""#), ("plain", #""plain""#), ("\"\\\n\r\t\u{8}\u{C}", #""\"\\\n\r\t\b\f""#),
        ("\u{0}\u{1F}\u{7F}é€😀\u{2028}/", "\"\\u0000\\u001f\u{7F}é€😀\u{2028}/\""),
    ])
    func stringsAreEscapedAsPythonDoes(text: String, expected: String) {
        #expect(JSONValue.string(text).serialized() == expected)
    }

    @Test func escapesAtEveryPositionOfALongString() throws {
        for length in 0..<70 {
            let text = String(repeating: "é", count: length) + "\"\u{1}" + String(repeating: "y", count: length)
            let written = JSONValue.string(text).serialized()
            #expect(try JSONValue.parse(written).stringValue == text)
        }
    }

    @Test func escapingInPiecesEqualsEscapingAtOnce() {
        let text = Array("a\"b\\c\n😀".utf8)
        var pieces: [UInt8] = []
        for byte in text { [byte].withUnsafeBytes { pieces.appendJSONEscaped(utf8: $0) } }
        var whole: [UInt8] = []
        text.withUnsafeBytes { whole.appendJSONEscaped(utf8: $0) }
        #expect(pieces == whole)
    }

    /// `json.dumps` of CPython with the options named.
    @Test func stylesOfPython() throws {
        let value = try JSONValue.parse(#"{"b": [1, 2.0, "é😀"], "a": {}, "c": [], "d": {"x": null, "k": [true]}}"#)
        #expect(
            value.serialized(style: .python())
                == #"{"b": [1, 2.0, "é😀"], "a": {}, "c": [], "d": {"x": null, "k": [true]}}"#)
        #expect(
            value.serialized(style: .python(ensureASCII: true, sortKeys: true))
                == #"{"a": {}, "b": [1, 2.0, "\u00e9\ud83d\ude00"], "c": [], "d": {"k": [true], "x": null}}"#)
        #expect(
            value.serialized(style: .python(indent: "  ")) == """
                {
                  "b": [
                    1,
                    2.0,
                    "é😀"
                  ],
                  "a": {},
                  "c": [],
                  "d": {
                    "x": null,
                    "k": [
                      true
                    ]
                  }
                }
                """)
        #expect(JSONValue.string("\u{7F}~").serialized(style: .python(ensureASCII: true)) == #""\u007f~""#)
    }
}
