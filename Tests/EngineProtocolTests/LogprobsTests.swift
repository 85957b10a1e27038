import EngineProtocol
import MessagePack
import Testing

/// Arrays of every type that engines may send, checked against hand-written bytes.
@Suite struct LogprobsTests {
    private func array(_ type: String, _ shape: [Int], _ data: MessagePackValue) -> MessagePackValue {
        .array([.string(type), .array(shape.map { .int($0) }), data])
    }

    private func decode(
        _ ids: MessagePackValue, _ logprobs: MessagePackValue, _ ranks: MessagePackValue, frames: [[UInt8]] = []
    ) throws -> LogprobRows? {
        let output = MessagePackValue.array([
            .string("r"), .array([.int(1)]), .array([ids, logprobs, ranks, .nil]),
        ])
        var payload: [UInt8] = []
        MessagePackValue.array([.int(0), .array([output])]).encode(into: &payload)
        return try EngineCoreOutputs(decoding: ArrayFrames([payload] + frames), family: .v0_32).outputs[0].newLogprobs
    }

    private func ext(_ text: String) -> MessagePackValue { .ext(type: 3, hex(text)) }

    private var ids: MessagePackValue { array("<i4", [1, 2], ext("0500000007000000")) }
    private var logprobs: MessagePackValue { array("<f4", [1, 2], ext("000080bf000000c0")) }
    private var ranks: MessagePackValue { array("<i8", [1], ext("0100000000000000")) }

    @Test(arguments: [
        ("<i4", "0500000007000000"), (">i4", "0000000500000007"), ("<i8", "05000000000000000700000000000000"),
        (">i8", "00000000000000050000000000000007"), ("i4", "0500000007000000"), ("=i4", "0500000007000000"),
        ("int32", "0500000007000000"), ("int64", "05000000000000000700000000000000"), ("<u2", "05000700"),
        (">i2", "00050007"), ("|i1", "0507"), ("|u1", "0507"), ("uint8", "0507"), ("int16", "05000700"),
        ("<u8", "05000000000000000700000000000000"), ("<u4", "0500000007000000"),
    ]) func integerTypes(type: String, bytes: String) throws {
        let rows = try decode(array(type, [1, 2], ext(bytes)), logprobs, ranks)
        #expect(
            rows == LogprobRows(rows: 1, columns: 2, tokenIDs: [5, 7], logprobs: [-1, -2], ranks: [1]))
    }

    @Test(arguments: [
        ("<f4", "000080bf000000c0"), (">f4", "bf800000c0000000"), ("<f8", "000000000000f0bf00000000000000c0"),
        ("float32", "000080bf000000c0"), ("float64", "000000000000f0bf00000000000000c0"), ("<f2", "00bc00c0"),
        ("float16", "00bc00c0"), ("bfloat16", "80bf00c0"),
    ]) func floatTypes(type: String, bytes: String) throws {
        #expect(try decode(ids, array(type, [1, 2], ext(bytes)), ranks)?.logprobs == [-1, -2])
    }

    @Test func halfPrecisionExtremes() throws {
        let values = try decode(
            array("<i4", [1, 5], .ext(type: 3, [UInt8](repeating: 0, count: 20))),
            array("<f2", [1, 5], ext("0100" + "00fc" + "ff7b" + "0080" + "0004")), ranks)?.logprobs
        // Values of IEEE 754: smallest subnormal, -infinity, largest finite, -0, smallest normal.
        #expect(values == [5.9604645e-08, -.infinity, 65504, 0, 6.1035156e-05])
    }

    @Test func arraysInLaterFrames() throws {
        let rows = try decode(
            array("<i4", [1, 2], .int(1)), array("<f4", [1, 2], .int(2)), ranks,
            frames: [hex("0500000007000000"), hex("000080bf000000c0")])
        #expect(rows?.tokenIDs == [5, 7])
        #expect(rows?.logprobs == [-1, -2])
    }

    @Test func malformedArraysAreErrors() {
        let good = hex("0500000007000000")
        let bad: [(MessagePackValue, [[UInt8]])] = [
            (array("<i4", [1, 2], ext("05000000")), []),
            (array("<i4", [2, 2], ext("0500000007000000")), []),
            (array("<i4", [1, -2], ext("")), []),
            (array("<i4", [Int.max, Int.max], ext("")), []),
            (array("<i4", [Int.max, 4], ext("")), []),
            (array("<i4", [2], ext("0500000007000000")), []),
            (array("<i4", [1, 2], .int(0)), [good]),
            (array("<i4", [1, 2], .int(2)), [good]),
            (array("<i4", [1, 2], .int(-1)), [good]),
            (array("<i4", [1, 2], .int(1)), [Array(good.dropLast())]),
            (array("<i4", [1, 2], .ext(type: 1, good)), []),
            (array("<i3", [1, 2], ext("")), []),
            (array("<f4", [1, 2], ext("0500000007000000")), []),
            (array("complex64", [1, 2], ext("0500000007000000")), []),
            (array("<i8", [1, 2], ext("ffffffffffffff7f0700000000000000")), []),
            (array("<i4", [1, 2], .map([])), []),
            (array("<i4", Array(repeating: 1, count: 9), ext("05000000")), []),
            (array("<i4", [1 << 40, 0], ext("")), []),
            (.array([.string("<i4")]), []), (.nil, []), (.int(3), []),
        ]
        for (value, frames) in bad {
            #expect(throws: MessagePackError.self, "\(value)") { try decode(value, logprobs, ranks, frames: frames) }
        }
    }

    @Test func shapesMustAgree() {
        #expect(throws: MessagePackError.self) {
            try decode(ids, array("<f4", [2, 1], ext("000080bf000000c0")), ranks)
        }
        #expect(throws: MessagePackError.self) {
            try decode(ids, logprobs, array("<i8", [2], ext("01000000000000000100000000000000")))
        }
    }

    @Test func noRowsAreFine() throws {
        let rows = try decode(
            array("<i4", [0, 3], ext("")), array("<f4", [0, 3], ext("")), array("<i8", [0], ext("")))
        #expect(rows?.rows == 0)
        #expect(rows?.tokenIDs == [])
    }
}
