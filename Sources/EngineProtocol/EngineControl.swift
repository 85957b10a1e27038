import MessagePack

/// What a supervisor may tell our engine after READY, on the handshake socket. vLLM's engine closes that socket; ours
/// keeps it when it was started with `--control`.
package enum EngineControlCommand: Sendable, Equatable {
    /// One more frontend is at these addresses; its outputs go to `output`.
    case connectFrontend(clientIndex: Int, input: String, output: String)
    /// That frontend is gone for good: its requests are aborted, its sockets closed.
    case disconnectFrontend(clientIndex: Int)

    package func encode() -> [UInt8] {
        var output: [UInt8] = []
        switch self {
        case .connectFrontend(let clientIndex, let input, let outputAddress):
            output.packMapHeader(4)
            output.pack(key: "command")
            output.pack("connect_frontend")
            output.pack(key: "client_index")
            output.pack(clientIndex)
            output.pack(key: "input")
            output.pack(input)
            output.pack(key: "output")
            output.pack(outputAddress)
        case .disconnectFrontend(let clientIndex):
            output.packMapHeader(2)
            output.pack(key: "command")
            output.pack("disconnect_frontend")
            output.pack(key: "client_index")
            output.pack(clientIndex)
        }
        return output
    }
}

/// What our engine tells its supervisor about frontends.
package struct EngineControlEvent: Sendable, Equatable {
    package enum Status: String, Sendable {
        /// The frontend's socket took the engine's registration.
        case registered = "FRONTEND_REGISTERED"
        /// The frontend's socket was closed; its requests are aborted.
        case lost = "FRONTEND_LOST"
        /// Answer to `disconnectFrontend`.
        case closed = "FRONTEND_CLOSED"
        /// A command was refused.
        case refused = "CONTROL_ERROR"
    }

    package var status: Status
    package var clientIndex: Int
    package var error: String?

    package init(status: Status, clientIndex: Int, error: String? = nil) {
        self.status = status
        self.clientIndex = clientIndex
        self.error = error
    }

    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        var text: String?
        clientIndex = -1
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            switch key {
            case "status": text = try reader.readString()
            case "client_index": clientIndex = try reader.readInt()
            case "error": error = try reader.readString()
            default: try reader.skip()
            }
        }
        guard let text, let known = Status(rawValue: text) else {
            throw MessagePackError(.invalid("unknown control event '\((text ?? "").prefix(32))'"), offset: 0)
        }
        status = known
    }
}

/// Answer to LOST: whether the node with the frontends takes another process in place of the engine. vLLM's launcher, whose
/// handshake is over when all engines are ready, never answers.
package struct EngineReturnAnswer: Sendable, Equatable {
    /// Why not; nil = it is expected.
    package var refusal: String?

    package init(refusal: String? = nil) { self.refusal = refusal }

    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        var found = false
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "refusal":
                found = true
                refusal = try reader.readOptional { r throws(MessagePackError) in try r.readString() }
            default: try reader.skip()
            }
        }
        guard found else { throw MessagePackError(.missingField("refusal"), offset: 0) }
    }

    package func encode() -> [UInt8] {
        var output: [UInt8] = []
        output.packMapHeader(1)
        output.pack(key: "refusal")
        output.pack(optional: refusal)
        return output
    }
}

/// What our supervisor tells our frontend when an engine has died: vLLM's sentinel, followed by whose death it is. vLLM's
/// Rust frontend reads the first frame only; its Python frontend takes the sentinel only when it is alone.
package struct EngineDeathNotice: Sendable, Equatable {
    package var rank: Int
    /// Of the process that died, so that the notice cannot be taken for its successor's. Nil = it never got ready.
    package var instanceID: String?

    package init(rank: Int, instanceID: String?) {
        self.rank = rank
        self.instanceID = instanceID
    }

    package var frames: [[UInt8]] {
        [Array("\(engineCoreDeadSentinel)".utf8), EngineIdentity.encode(rank: rank), Array((instanceID ?? "").utf8)]
    }

    /// From the two frames behind the sentinel.
    package init?(identity: UnsafeRawBufferPointer, instance: UnsafeRawBufferPointer) {
        guard let rank = EngineIdentity.rank(identity) else { return nil }
        self.rank = rank
        instanceID = instance.isEmpty ? nil : String(decoding: instance, as: UTF8.self)
    }
}
