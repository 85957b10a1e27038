/// Why bytes could not be read, and where.
package struct MessagePackError: Error, Equatable, CustomStringConvertible {
    package enum Reason: Sendable, Equatable {
        /// The bytes end inside a value, or a container claims more elements than bytes are left.
        case truncated
        case typeMismatch(expected: MessagePackType, found: MessagePackType)
        /// An integer outside the range of the wanted type.
        case outOfRange
        case invalidUTF8
        /// Containers nested deeper than the caller allows.
        case tooDeep
        /// The byte 0xc1, which msgpack never uses.
        case reservedByte
        /// Bytes are left after the value that should be the last one.
        case trailingBytes
        /// A value that is well-formed but not what the message's definition allows.
        case invalid(String)
        /// A map without a required key.
        case missingField(String)
    }
    package let reason: Reason
    /// Offset of the value in the reader's buffer.
    package let offset: Int

    package init(_ reason: Reason, offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    package var description: String {
        switch reason {
        case .truncated: "msgpack ends too early at byte \(offset)"
        case .typeMismatch(let expected, let found): "expected \(expected) but found \(found) at byte \(offset)"
        case .outOfRange: "integer out of range at byte \(offset)"
        case .invalidUTF8: "text is not UTF-8 at byte \(offset)"
        case .tooDeep: "nested too deeply at byte \(offset)"
        case .reservedByte: "reserved byte at \(offset)"
        case .trailingBytes: "unexpected bytes after the value at byte \(offset)"
        case .invalid(let problem): "\(problem) at byte \(offset)"
        case .missingField(let name): "required field '\(name)' is missing"
        }
    }
}

/// The kind of the next value.
package enum MessagePackType: UInt8, Sendable {
    case `nil`, bool, integer, float, string, binary, array, map, ext, reserved
}
