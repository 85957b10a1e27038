import MessagePack

/// vLLM's custom ext type for raw array bytes inside the payload.
let rawViewExtType: Int8 = 3

/// Element type and shape of an encoded ndarray (`<i4`, `>f8`, `|b1` …) or tensor (`int32`, `bfloat16` …).
struct EncodedArray {
    enum Element { case signed, unsigned, float, brainFloat }

    /// The type as it was spelled.
    var name: UnsafeRawBufferPointer
    var element: Element
    /// Bytes per element.
    var width: Int
    var isBigEndian: Bool
    var shape: [Int]
    /// Exactly `shape` elements, C-contiguous.
    var bytes: UnsafeRawBufferPointer

    /// `[dtype, [dims...], data]`; data is an ext 3, or the index of a later frame.
    init(decoding reader: inout MessagePackReader, frames: any FrameSource) throws(MessagePackError) {
        let start = reader.offset
        let count = try reader.readArrayHeader()
        guard count == 3 else {
            throw MessagePackError(.invalid("array of \(count) instead of 3 parts"), offset: start)
        }
        name = try reader.readStringBytes()
        guard let type = Self.parse(name) else {
            let text = String(decoding: name.prefix(32), as: UTF8.self)
            throw MessagePackError(.invalid("unknown array type '\(text)'"), offset: start)
        }
        (element, width, isBigEndian) = type
        let dimensions = try reader.readArrayHeader()
        guard dimensions <= 8 else { throw MessagePackError(.invalid("\(dimensions) dimensions"), offset: start) }
        shape = []
        var size = width
        for _ in 0..<dimensions {
            let extent = try reader.readInt()
            let (product, overflow) = size.multipliedReportingOverflow(by: extent)
            guard extent >= 0, !overflow else { throw MessagePackError(.invalid("array shape"), offset: start) }
            shape.append(extent)
            size = product
        }
        if try reader.peekType() == .integer {
            let index = try reader.readInt()
            guard index >= 1, index < frames.count else {
                throw MessagePackError(.invalid("array in frame \(index) of \(frames.count)"), offset: start)
            }
            bytes = frames[index]
        } else {
            let ext = try reader.readExt()
            guard ext.type == rawViewExtType else {
                throw MessagePackError(.invalid("array data of ext type \(ext.type)"), offset: start)
            }
            bytes = ext.body
        }
        guard bytes.count == size else {
            throw MessagePackError(.invalid("array of \(bytes.count) bytes instead of \(size)"), offset: start)
        }
    }

    private static func parse(_ name: UnsafeRawBufferPointer) -> (Element, Int, Bool)? {
        switch name {
        case "int8": return (.signed, 1, false)
        case "int16": return (.signed, 2, false)
        case "int32": return (.signed, 4, false)
        case "int64": return (.signed, 8, false)
        case "uint8", "bool": return (.unsigned, 1, false)
        case "float16": return (.float, 2, false)
        case "float32": return (.float, 4, false)
        case "float64": return (.float, 8, false)
        case "bfloat16": return (.brainFloat, 2, false)
        default: break
        }
        // numpy: byte order (may be missing), kind, width.
        var text = name[...]
        var bigEndian = false
        if let first = text.first, "<>|=".utf8.contains(first) {
            bigEndian = first == UInt8(ascii: ">")
            text = text.dropFirst()
        }
        guard text.count == 2, let kind = text.first, let digit = text.last else { return nil }
        let width = Int(digit) - Int(UInt8(ascii: "0"))
        switch (kind, width) {
        case (UInt8(ascii: "i"), 1), (UInt8(ascii: "i"), 2), (UInt8(ascii: "i"), 4), (UInt8(ascii: "i"), 8):
            return (.signed, width, bigEndian)
        case (UInt8(ascii: "u"), 1), (UInt8(ascii: "u"), 2), (UInt8(ascii: "u"), 4), (UInt8(ascii: "u"), 8),
            (UInt8(ascii: "b"), 1):
            return (.unsigned, width, bigEndian)
        case (UInt8(ascii: "f"), 2), (UInt8(ascii: "f"), 4), (UInt8(ascii: "f"), 8):
            return (.float, width, bigEndian)
        default: return nil
        }
    }

    private func load<T: FixedWidthInteger>(_ type: T.Type, _ index: Int) -> T {
        let raw = bytes.loadUnaligned(fromByteOffset: index &* MemoryLayout<T>.size, as: T.self)
        return isBigEndian ? T(bigEndian: raw) : T(littleEndian: raw)
    }

    /// Nil when an element does not fit or the type is not an integer one.
    func int32Values() -> [Int32]? {
        switch (element, width) {
        case (.signed, 1): convert { load(Int8.self, $0) }
        case (.signed, 2): convert { load(Int16.self, $0) }
        case (.signed, 4): convert { load(Int32.self, $0) }
        case (.signed, 8): convert { load(Int64.self, $0) }
        case (.unsigned, 1): convert { load(UInt8.self, $0) }
        case (.unsigned, 2): convert { load(UInt16.self, $0) }
        case (.unsigned, 4): convert { load(UInt32.self, $0) }
        case (.unsigned, 8): convert { load(UInt64.self, $0) }
        default: nil
        }
    }

    private func convert(_ element: (Int) -> some FixedWidthInteger) -> [Int32]? {
        var values: [Int32] = []
        values.reserveCapacity(bytes.count / width)
        for index in 0..<(bytes.count / width) {
            guard let value = Int32(exactly: element(index)) else { return nil }
            values.append(value)
        }
        return values
    }

    /// Nil when the type is not a floating-point one.
    func floatValues() -> [Float]? {
        let indices = 0..<(bytes.count / width)
        switch (element, width) {
        case (.float, 2): return indices.map { Self.float(half: load(UInt16.self, $0)) }
        case (.float, 4): return indices.map { Float(bitPattern: load(UInt32.self, $0)) }
        case (.float, 8): return indices.map { Float(Double(bitPattern: load(UInt64.self, $0))) }
        case (.brainFloat, 2): return indices.map { Float(bitPattern: UInt32(load(UInt16.self, $0)) << 16) }
        default: return nil
        }
    }

    /// IEEE half precision, by hand because `Float16` is missing on some platforms.
    private static func float(half bits: UInt16) -> Float {
        let sign: Float = bits & 0x8000 == 0 ? 1 : -1
        let exponent = Int(bits >> 10) & 0x1f
        let fraction = Float(bits & 0x3ff)
        switch exponent {
        case 0: return sign * fraction * Float(sign: .plus, exponent: -24, significand: 1)
        case 31: return fraction == 0 ? sign * .infinity : .nan
        default: return sign * (1 + fraction / 1024) * Float(sign: .plus, exponent: exponent - 15, significand: 1)
        }
    }
}

private func ~= (literal: StaticString, name: UnsafeRawBufferPointer) -> Bool {
    literal.utf8CodeUnitCount == name.count && name.indices.allSatisfy { name[$0] == literal.utf8Start[$0] }
}

extension EngineArray {
    init(decoding reader: inout MessagePackReader, frames: any FrameSource) throws(MessagePackError) {
        let array = try EncodedArray(decoding: &reader, frames: frames)
        // The names that are understood are ASCII.
        self.init(type: String(decoding: array.name, as: UTF8.self), shape: array.shape, bytes: Array(array.bytes))
    }

    func encode(into payload: inout [UInt8], _ auxiliary: inout [[UInt8]]) {
        Self.encode(type, shape, bytes, into: &payload, &auxiliary)
    }

    /// `[type, [dims...], data]`: data inline as an ext when it is small, else the index of a frame of its own.
    static func encode(
        _ type: String, _ shape: [Int], _ data: [UInt8], into payload: inout [UInt8], _ auxiliary: inout [[UInt8]]
    ) {
        payload.packArrayHeader(3)
        payload.pack(type)
        payload.packArrayHeader(shape.count)
        for extent in shape { payload.pack(extent) }
        if data.count < EngineCoreOutputs.inlineArrayLimit {
            data.withUnsafeBytes { payload.pack(ext: rawViewExtType, $0) }
        } else {
            auxiliary.append(data)
            payload.pack(auxiliary.count)
        }
    }

    static func bytes(_ values: [some FixedWidthInteger]) -> [UInt8] {
        values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    }
}

/// For arrays that may only come inline.
final class NoFrames: FrameSource {
    var count: Int { 1 }
    subscript(index: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }
}
