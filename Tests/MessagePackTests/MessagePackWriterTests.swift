import MessagePack
import Testing

/// Expected bytes are what Python's msgspec writes.
@Suite struct MessagePackWriterTests {
    static let integers: [(Int, String)] = [
        (0, "00"), (1, "01"), (127, "7f"), (128, "cc80"), (255, "ccff"), (256, "cd0100"), (65535, "cdffff"),
        (65536, "ce00010000"), (4_294_967_295, "ceffffffff"), (4_294_967_296, "cf0000000100000000"),
        (9_223_372_036_854_775_807, "cf7fffffffffffffff"), (-1, "ff"), (-32, "e0"), (-33, "d0df"), (-128, "d080"),
        (-129, "d1ff7f"), (-32768, "d18000"), (-32769, "d2ffff7fff"), (-2_147_483_648, "d280000000"),
        (-2_147_483_649, "d3ffffffff7fffffff"), (Int.min, "d38000000000000000"),
    ]

    @Test(arguments: integers) func integersTakeTheirShortestForm(value: Int, expected: String) throws {
        var bytes: [UInt8] = []
        bytes.pack(value)
        #expect(bytes == hex(expected))
        #expect(try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readInt() } == value)
    }

    @Test func integerArraysEqualIntegersOneByOne() {
        let values = Self.integers.compactMap { Int32(exactly: $0.0) }
        let long = (0..<1000).map { values[$0 % values.count] }
        var fast: [UInt8] = []
        fast.pack(long)
        var slow: [UInt8] = []
        slow.packArrayHeader(long.count)
        for value in long { slow.pack(Int(value)) }
        #expect(fast == slow)
    }

    @Test func scalars() {
        var bytes: [UInt8] = []
        bytes.pack(unsigned: .max)
        bytes.pack(1.5)
        bytes.packNil()
        bytes.pack(true)
        bytes.pack(false)
        #expect(bytes == hex("cfffffffffffffffff" + "cb3ff8000000000000" + "c0c3c2"))
    }

    @Test(arguments: [
        (0, "a0", "c400", "c70003"), (31, "bf", "c41f", "c71f03"), (32, "d920", "c420", "c72003"),
        (255, "d9ff", "c4ff", "c7ff03"), (256, "da0100", "c50100", "c8010003"),
        (65535, "daffff", "c5ffff", "c8ffff03"), (65536, "db00010000", "c600010000", "c90001000003"),
    ]) func textBytesAndExtensionHeaders(length: Int, text: String, binary: String, ext: String) throws {
        let body = [UInt8](repeating: 0x61, count: length)
        var bytes: [UInt8] = []
        bytes.pack(String(decoding: body, as: UTF8.self))
        #expect(bytes == hex(text) + body)
        let string = try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readString() }
        #expect(string.utf8.count == length)
        bytes = []
        body.withUnsafeBytes { bytes.pack(binary: $0) }
        #expect(bytes == hex(binary) + body)
        bytes = []
        body.withUnsafeBytes { bytes.pack(ext: 3, $0) }
        #expect(bytes == hex(ext) + body)
        #expect(try MessagePackValue(decoding: bytes) == .ext(type: 3, body))
    }

    @Test(arguments: [(1, "d4fb"), (2, "d5fb"), (4, "d6fb"), (8, "d7fb"), (16, "d8fb"), (17, "c711fb")])
    func fixedExtensions(length: Int, header: String) throws {
        let body = [UInt8](repeating: 0x61, count: length)
        var bytes: [UInt8] = []
        body.withUnsafeBytes { bytes.pack(ext: -5, $0) }
        #expect(bytes == hex(header) + body)
        #expect(try MessagePackValue(decoding: bytes) == .ext(type: -5, body))
    }

    @Test(arguments: [
        (0, "90", "80"), (15, "9f", "8f"), (16, "dc0010", "de0010"), (65535, "dcffff", "deffff"),
        (65536, "dd00010000", "df00010000"),
    ]) func containerHeaders(count: Int, array: String, map: String) {
        var bytes: [UInt8] = []
        bytes.packArrayHeader(count)
        bytes.packMapHeader(count)
        #expect(bytes == hex(array + map))
    }
}
