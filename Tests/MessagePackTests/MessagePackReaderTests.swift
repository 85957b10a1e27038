import MessagePack
import TestSupport
import Testing

@Suite struct MessagePackReaderTests {
    /// `[1, {"a": [nil, true, -5, "é"], "b": 2.5}, b"\0\1"]` as Python's msgspec writes it.
    static let nested = hex("930182a16194c0c3fba2c3a9a162cb4004000000000000c4020001")

    @Test func treeOfEverything() throws {
        let value = try MessagePackValue(decoding: Self.nested)
        #expect(
            value
                == .array([
                    .int(1),
                    .map([
                        (.string("a"), .array([.nil, .bool(true), .int(-5), .string("é")])),
                        (.string("b"), .double(2.5)),
                    ]),
                    .binary([0, 1]),
                ]))
        var again: [UInt8] = []
        value.encode(into: &again)
        #expect(again == Self.nested)
    }

    @Test func everyPrefixIsTruncated() {
        for length in 0..<Self.nested.count {
            #expect(throws: MessagePackError.self) { try MessagePackValue(decoding: Array(Self.nested[..<length])) }
            #expect(throws: MessagePackError.self) {
                try MessagePackReader.read(Array(Self.nested[..<length])) { r throws(MessagePackError) in try r.skip() }
            }
        }
    }

    @Test(arguments: [
        "05", "cc05", "cd0005", "ce00000005", "cf0000000000000005", "d005", "d10005", "d200000005",
        "d30000000000000005",
    ]) func everyIntegerWidthIsAccepted(text: String) throws {
        let bytes = hex(text)
        #expect(try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readInt() } == 5)
        #expect(try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readDouble() } == 5)
        #expect(try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readBits64() } == 5)
        #expect(try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readInt32() } == 5)
        #expect(throws: MessagePackError.self) {
            try MessagePackReader.read(bytes) { r throws(MessagePackError) in try r.readString() }
        }
    }

    @Test func numbersOutsideTheWantedRange() throws {
        let big = hex("cfffffffffffffffff")
        let error = #expect(throws: MessagePackError.self) {
            try MessagePackReader.read(big) { r throws(MessagePackError) in try r.readInt() }
        }
        #expect(error?.reason == .outOfRange)
        #expect(try MessagePackReader.read(big) { r throws(MessagePackError) in try r.readBits64() } == .max)
        #expect(try MessagePackValue(decoding: big) == .unsigned(.max))
        #expect(throws: MessagePackError.self) {
            try MessagePackReader.read(hex("ce80000000")) { r throws(MessagePackError) in try r.readInt32() }
        }
    }

    @Test func floatsOfBothWidths() throws {
        #expect(try MessagePackValue(decoding: hex("ca3fc00000")) == .double(1.5))
        #expect(try MessagePackValue(decoding: hex("cb3ff8000000000000")) == .double(1.5))
    }

    @Test func failedReadsDoNotMoveTheCursor() throws {
        try MessagePackReader.read(hex("a3ff0000" + "05")) { r throws(MessagePackError) in
            do throws(MessagePackError) {
                _ = try r.readString()
                Issue.record("bytes that are not UTF-8 were accepted")
            } catch { #expect(error.reason == .invalidUTF8) }
            #expect(r.offset == 0)
            try r.skip()
            #expect(try r.readInt() == 5)
            #expect(r.isAtEnd)
        }
    }

    @Test func rawSlicesAreTheBytesOfOneValue() throws {
        try MessagePackReader.read(Self.nested) { r throws(MessagePackError) in
            _ = try r.readArrayHeader()
            try r.skip()
            #expect([UInt8](try r.readRaw()) == Array(Self.nested[2..<23]))
        }
    }

    @Test func depthIsBoundedForTreesAndFreeForSkipping() throws {
        let deep = [UInt8](repeating: 0x91, count: 1_000_000) + [0xc0]
        try MessagePackReader.read(deep) { r throws(MessagePackError) in
            try r.skip()
            #expect(r.isAtEnd)
        }
        let error = #expect(throws: MessagePackError.self) { try MessagePackValue(decoding: deep) }
        #expect(error?.reason == .tooDeep)
    }

    @Test(arguments: [
        "ddffffffff", "dfffffffff", "dbffffffff61", "c6ffffffff", "c9ffffffff01", "dcffff00", "c1",
        "93ddffffffff", "9f9f9f",
    ]) func claimsBeyondTheBytesAreRefused(text: String) {
        #expect(throws: MessagePackError.self) { try MessagePackValue(decoding: hex(text)) }
        #expect(throws: MessagePackError.self) {
            try MessagePackReader.read(hex(text)) { r throws(MessagePackError) in try r.skip() }
        }
    }

    @Test func trailingBytesAreAnError() {
        let error = #expect(throws: MessagePackError.self) { try MessagePackValue(decoding: hex("0102")) }
        #expect(error?.reason == .trailingBytes)
    }

    /// Any bytes: an error or a value, and what was skipped as a whole also reads as a tree of the same length.
    @Test func randomBytesNeverTrap() {
        var random = SeededGenerator(seed: 7)
        for round in 0..<20_000 {
            var bytes: [UInt8]
            if round % 2 == 0 {
                bytes = Self.nested
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            } else {
                bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
            }
            let skipped = try? MessagePackReader.read(bytes) { r throws(MessagePackError) in
                try r.skip()
                return r.offset
            }
            let read = try? MessagePackReader.read(bytes) { r throws(MessagePackError) in
                _ = try r.readValue()
                return r.offset
            }
            // Text that is not UTF-8 can be skipped but not read.
            if let read { #expect(read == skipped) }
        }
    }
}
