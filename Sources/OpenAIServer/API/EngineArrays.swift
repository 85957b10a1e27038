import EngineProtocol
import JSONBytes
import NIOCore
import Text

extension EngineArray {
    /// A file as numpy's `save` writes it; nil for element types that numpy does not have.
    func numpyFile() -> [UInt8]? {
        guard let type = numpyType else { return nil }
        var header = "{'descr': '\(type)', 'fortran_order': False, 'shape': ("
        header += shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? ",), }" : "), }")
        // Room for the first dimension to grow in place, to any number of 21 digits.
        if let first = shape.first { header += String(repeating: " ", count: 21 - String(first).utf8.count) }
        let prefix = 10
        let length = header.utf8.count + 1
        let padding = 64 - (prefix + length) % 64
        let total = UInt16(length + padding)
        var file: [UInt8] = [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(total & 0xff), UInt8(total >> 8)]
        file.reserveCapacity(prefix + Int(total) + bytes.count)
        file.append(contentsOf: header.utf8)
        file.append(contentsOf: repeatElement(UInt8(ascii: " "), count: padding))
        file.append(UInt8(ascii: "\n"))
        file.append(contentsOf: bytes)
        return file
    }

    private var numpyType: String? {
        switch type {
        case "bool": "|b1"
        case "int8": "|i1"
        case "uint8": "|u1"
        case "int16": "<i2"
        case "int32": "<i4"
        case "int64": "<i8"
        case "float16": "<f2"
        case "float32": "<f4"
        case "float64": "<f8"
        case "bfloat16": nil
        default: type
        }
    }
}

extension ByteSink {
    /// A numpy file in base64 as JSON text (vLLM: `numpy2base64`), or null.
    mutating func appendJSONNumpy(_ array: EngineArray?) {
        guard let file = array?.numpyFile() else { return appendJSONNull() }
        appendByte(UInt8(ascii: "\""))
        appendBase64(file)
        appendByte(UInt8(ascii: "\""))
    }

    private mutating func appendBase64(_ bytes: [UInt8]) {
        func digit(_ value: UInt32) -> UInt8 {
            switch UInt8(truncatingIfNeeded: value & 63) {
            case let value where value < 26: UInt8(ascii: "A") + value
            case let value where value < 52: UInt8(ascii: "a") + value - 26
            case let value where value < 62: UInt8(ascii: "0") + value - 52
            case 62: UInt8(ascii: "+")
            default: UInt8(ascii: "/")
            }
        }
        var index = 0
        while index < bytes.count {
            let left = min(3, bytes.count - index)
            var group: UInt32 = 0
            for offset in 0..<3 { group = group << 8 | (offset < left ? UInt32(bytes[index + offset]) : 0) }
            appendByte(digit(group >> 18))
            appendByte(digit(group >> 12))
            appendByte(left > 1 ? digit(group >> 6) : UInt8(ascii: "="))
            appendByte(left > 2 ? digit(group) : UInt8(ascii: "="))
            index += 3
        }
    }
}

/// The experts that the tokens of one sequence were routed to, put together from the engine's parts.
struct RoutedExperts {
    private(set) var array: EngineArray?
    private var isBroken = false

    mutating func note(_ step: SequenceStep) {
        guard !step.output.isPlain, var part = step.output.routedExperts else { return }
        guard let rows = part.shape.first, rows > 0 else { return }
        // Tokens behind a stop string do not count, and their rows are the last ones.
        let dropped = min(rows, step.output.tokens.count - step.tokenIDs.count)
        if dropped > 0 {
            part.bytes.removeLast(part.bytes.count / rows * dropped)
            part.shape[0] -= dropped
        }
        guard array != nil else {
            array = part
            return
        }
        guard !isBroken, array?.type == part.type, array?.shape.dropFirst() == part.shape.dropFirst() else {
            // Parts that do not fit together have no meaning as a whole.
            isBroken = true
            array = nil
            return
        }
        array?.shape[0] += part.shape[0]
        array?.bytes.append(contentsOf: part.bytes)
    }
}

extension SequenceStep {
    /// Appends the step's sets of tokens that sampling had left, one list per token, separated by commas.
    /// - Returns: whether the engine tells them.
    func appendSamplingMask(to sink: inout some ByteSink, isFirst: Bool = true) -> Bool {
        guard !output.isPlain, let mask = output.newSamplingMask else { return false }
        for position in 0..<min(mask.count, tokenIDs.count) {
            if position > 0 || !isFirst { sink.appendLiteral(",") }
            sink.appendLiteral("[")
            for (index, id) in mask[position].enumerated() {
                if index > 0 { sink.appendLiteral(",") }
                sink.appendJSONInt(id)
            }
            sink.appendLiteral("]")
        }
        return true
    }
}
