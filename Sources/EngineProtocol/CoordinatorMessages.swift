import MessagePack

/// Frames of the data-parallel coordinator that are not msgpack.
package enum CoordinatorFrame {
    /// What an XSUB sends to subscribe to everything.
    package static let subscribe: [UInt8] = [1]
    /// Published to engines when all of them have subscribed; later ones are to be ignored.
    package static let ready: [UInt8] = Array("READY".utf8)
}

/// Coordinator to frontends: load per engine and the state of the waves.
package struct CoordinatorState: Sendable, Equatable {
    package struct Load: Sendable, Equatable {
        package var waiting: Int
        package var running: Int
        /// 0...1; nil from coordinators before 0.28.
        package var kvCacheUsage: Double?
        package init(waiting: Int, running: Int, kvCacheUsage: Double?) {
            self.waiting = waiting
            self.running = running
            self.kvCacheUsage = kvCacheUsage
        }
    }
    /// One entry per rank; nil when only the wave changed.
    package var loads: [Load]?
    package var wave: Int
    package var isRunning: Bool

    package init(loads: [Load]?, wave: Int, isRunning: Bool) {
        self.loads = loads
        self.wave = wave
        self.isRunning = isRunning
    }

    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        let count = try reader.readArrayHeader()
        guard count >= 3 else { throw MessagePackError(.invalid("coordinator state of \(count) elements"), offset: 0) }
        loads = try reader.readOptional { r throws(MessagePackError) in
            try r.readArray { r throws(MessagePackError) in
                let elements = try r.readArrayHeader()
                guard elements >= 2 else { throw MessagePackError(.invalid("engine counts"), offset: r.offset) }
                var load = Load(waiting: try r.readInt(), running: try r.readInt(), kvCacheUsage: nil)
                if elements > 2 { load.kvCacheUsage = try r.readDouble() }
                if elements > 3 { try r.skip(elements - 3) }
                return load
            }
        }
        wave = try reader.readInt()
        isRunning = try reader.readBool()
    }

    package func encode(family: ProtocolFamily) -> [UInt8] {
        var output: [UInt8] = []
        output.packArrayHeader(3)
        if let loads {
            output.packArrayHeader(loads.count)
            for load in loads {
                output.packArrayHeader(family.coordinatorCountsHaveCacheUsage ? 3 : 2)
                output.pack(load.waiting)
                output.pack(load.running)
                if family.coordinatorCountsHaveCacheUsage { output.pack(load.kvCacheUsage ?? 0) }
            }
        } else {
            output.packNil()
        }
        output.pack(wave)
        output.pack(isRunning)
        return output
    }
}

/// Coordinator to engines: begin stepping (``EngineRequestType/startDataParallelWave``).
package struct StartDataParallelWave: Sendable, Equatable {
    package var wave: Int
    /// The engine that is running already.
    package var excludedEngine: Int?

    package init(wave: Int, excludedEngine: Int?) {
        self.wave = wave
        self.excludedEngine = excludedEngine
    }

    /// The payload frame after the type byte.
    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        let count = try reader.readArrayHeader()
        guard count >= 2 else { throw MessagePackError(.invalid("wave message of \(count) elements"), offset: 0) }
        wave = try reader.readInt()
        excludedEngine = try reader.readOptional { r throws(MessagePackError) in try r.readInt() }
    }

    /// Both frames.
    package func encodeFrames() -> [[UInt8]] {
        var payload: [UInt8] = []
        payload.packArrayHeader(2)
        payload.pack(wave)
        payload.pack(optional: excludedEngine)
        return [[EngineRequestType.startDataParallelWave.rawValue], payload]
    }
}

/// Frontend to coordinator, on the socket that the coordinator publishes its state on.
package enum FrontendToCoordinatorMessage: Sendable, Equatable {
    case subscribe
    case unsubscribe
    /// Sent with the first request after an idle phase (up to 0.32).
    case firstRequest(engine: Int, wave: Int)
    case scaleElasticEP(engines: Int)

    package init(decoding frame: UnsafeRawBufferPointer) throws(MessagePackError) {
        if frame.count == 1, frame[0] <= 1 {
            self = frame[0] == 1 ? .subscribe : .unsubscribe
            return
        }
        var reader = MessagePackReader(frame)
        let count = try reader.readArrayHeader()
        guard count >= 2 else {
            throw MessagePackError(.invalid("message to the coordinator of \(count) elements"), offset: 0)
        }
        switch try reader.peekType() {
        case .string:
            guard "SCALE_ELASTIC_EP" ~= (try reader.readKey()) else {
                throw MessagePackError(.invalid("unknown message to the coordinator"), offset: 0)
            }
            self = .scaleElasticEP(engines: try reader.readInt())
        case .binary:
            // vLLM's Python frontend names the engine by its identity, the Rust one by its rank.
            guard let rank = EngineIdentity.rank(try reader.readStringBytes()) else {
                throw MessagePackError(.invalid("engine identity in a message to the coordinator"), offset: 0)
            }
            self = .firstRequest(engine: rank, wave: try reader.readInt())
        default:
            self = .firstRequest(engine: try reader.readInt(), wave: try reader.readInt())
        }
    }

    package func encode() -> [UInt8] {
        var output: [UInt8] = []
        switch self {
        case .subscribe: output = CoordinatorFrame.subscribe
        case .unsubscribe: output = [0]
        case .firstRequest(let engine, let wave):
            output.packArrayHeader(2)
            output.pack(engine)
            output.pack(wave)
        case .scaleElasticEP(let engines):
            output.packArrayHeader(2)
            output.pack(key: "SCALE_ELASTIC_EP")
            output.pack(engines)
        }
        return output
    }
}
