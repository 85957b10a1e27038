/// The bytes of ZMTP 3 (rfc.zeromq.org/spec/23) with the NULL mechanism.
enum ZMTPWire {
    static let greetingLength = 64
    static let more: UInt8 = 1
    static let long: UInt8 = 2
    static let command: UInt8 = 4
    /// Bytes of a command that are worth reading; metadata is an identity of 255 bytes at most and a few words.
    static let commandLimit = 4096

    /// Version 3.0: every libzmq from 4.0 on answers it with frames of the same form.
    static let greeting: [UInt8] = {
        var bytes = [UInt8](repeating: 0, count: greetingLength)
        bytes[0] = 0xFF
        bytes[9] = 0x7F
        bytes[10] = 3
        bytes.replaceSubrange(12..<16, with: Array("NULL".utf8))
        return bytes
    }()

    /// What is wrong with a peer's greeting; nil = nothing.
    static func problem(ofGreeting bytes: UnsafeRawBufferPointer) -> String? {
        guard bytes[0] == 0xFF, bytes[9] & 1 == 1 else { return "it does not speak ZMTP" }
        guard bytes[10] >= 3 else { return "it speaks ZMTP \(bytes[10]), not 3" }
        guard bytes[12..<17].elementsEqual([0x4E, 0x55, 0x4C, 0x4C, 0]) else {
            return "it wants a security mechanism other than NULL"
        }
        return nil
    }

    static func ready(_ kind: ZMTPSocket.Kind) -> [UInt8] {
        var body: [UInt8] = [5] + Array("READY".utf8)
        for (name, value) in [("Socket-Type", kind.rawValue), ("Identity", "")] {
            body.append(UInt8(name.utf8.count))
            body += Array(name.utf8)
            body += [0, 0, 0, UInt8(value.utf8.count)]
            body += Array(value.utf8)
        }
        return [command, UInt8(body.count)] + body
    }

    /// The answer to a PING: its context comes back.
    static func pong(_ context: UnsafeRawBufferPointer.SubSequence) -> [UInt8] {
        [command, UInt8(5 + context.count), 4] + Array("PONG".utf8) + context
    }

    /// The properties that a READY names.
    static func properties(_ body: UnsafeRawBufferPointer.SubSequence) -> (socketType: String, identity: [UInt8])? {
        var type = ""
        var identity: [UInt8] = []
        var rest = body
        while let length = rest.popFirst() {
            guard rest.count >= Int(length) + 4 else { return nil }
            let name = String(decoding: rest.prefix(Int(length)), as: UTF8.self).lowercased()
            rest = rest.dropFirst(Int(length))
            let size = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
            rest = rest.dropFirst(4)
            guard size <= rest.count else { return nil }
            let value = rest.prefix(size)
            rest = rest.dropFirst(size)
            if name == "socket-type" { type = String(decoding: value, as: UTF8.self) }
            if name == "identity" { identity = Array(value) }
        }
        return identity.count > 255 ? nil : (type, identity)
    }

    /// The name and the body of a command.
    static func split(command bytes: UnsafeRawBufferPointer) -> (
        name: String, body: UnsafeRawBufferPointer.SubSequence
    )? {
        guard let length = bytes.first, bytes.count > Int(length) else { return nil }
        return (String(decoding: bytes[1...Int(length)], as: UTF8.self), bytes[(Int(length) + 1)...])
    }
}

/// One message as it lies in the receive buffer: valid during the call that hands it out.
package final class ZMTPMessage {
    private(set) var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
    private var ranges: [Range<Int>] = []

    package var count: Int { ranges.count }

    package subscript(index: Int) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: bytes[ranges[index]]) }

    func begin(_ ranges: [Range<Int>], in bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        self.ranges = ranges
    }

    /// Gives the frames back to the scanner, which needs an array of its own otherwise.
    func end() { begin([], in: UnsafeRawBufferPointer(start: nil, count: 0)) }
}

/// Finds the frames of the next message in bytes that come piece by piece.
struct ZMTPFrameScanner {
    enum Result {
        case incomplete
        /// A message or a command; it ends before `end`.
        case message(end: Int)
        case command(Range<Int>)
        case violation(String)
    }

    let limit: Int64
    /// Frames of the message so far, as offsets from where it begins.
    private(set) var frames: [Range<Int>] = []
    /// Where the next frame begins.
    private var position = 0
    private var total: Int64 = 0
    private static let frameLimit = 1 << 16

    init(limit: Int64) { self.limit = limit }

    /// - Parameter bytes: everything from the beginning of the message on.
    mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Result {
        while true {
            guard bytes.count - position >= 2 else { return .incomplete }
            let flags = bytes[position]
            guard flags <= ZMTPWire.more | ZMTPWire.long | ZMTPWire.command else { return .violation("reserved flags") }
            var header = 2
            var size = UInt64(bytes[position + 1])
            if flags & ZMTPWire.long != 0 {
                header = 9
                guard bytes.count - position >= header else { return .incomplete }
                size = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: position + 1, as: UInt64.self))
            }
            let isCommand = flags & ZMTPWire.command != 0
            if isCommand, !frames.isEmpty || flags & ZMTPWire.more != 0 || size > ZMTPWire.commandLimit {
                return .violation("a command in the middle of a message, or too long")
            }
            guard size <= UInt64(limit), total + Int64(size) <= limit, frames.count < Self.frameLimit else {
                return .violation("a message of more than \(limit) bytes or \(Self.frameLimit) frames")
            }
            let start = position + header
            guard bytes.count - start >= Int(size) else { return .incomplete }
            if isCommand { return .command(start..<(start + Int(size))) }
            total += Int64(size)
            frames.append(start..<(start + Int(size)))
            position = start + Int(size)
            if flags & ZMTPWire.more == 0 { return .message(end: position) }
        }
    }

    /// Forgets the message that was found.
    mutating func next() {
        frames.removeAll(keepingCapacity: true)
        position = 0
        total = 0
    }
}
