import MessagePack

/// Engine identity on every ROUTER socket: its rank as two little-endian bytes.
package enum EngineIdentity {
    package static func encode(rank: Int) -> [UInt8] {
        [UInt8(truncatingIfNeeded: rank), UInt8(truncatingIfNeeded: rank >> 8)]
    }

    package static func rank(_ bytes: some Collection<UInt8>) -> Int? {
        guard bytes.count == 2, let low = bytes.first else { return nil }
        return Int(low) | Int(bytes[bytes.index(after: bytes.startIndex)]) << 8
    }
}

/// HELLO or READY, which an engine sends on the handshake socket, or LOST, which our headless supervisor sends in place of
/// an engine that died.
package struct EngineHandshakeMessage: Sendable, Equatable {
    package enum Status: String, Sendable { case hello = "HELLO", ready = "READY", lost = "LOST" }
    package var status: Status
    /// Started by the process it shakes hands with.
    package var isLocal: Bool
    /// Started with `--headless`.
    package var isHeadless: Bool
    /// Engines of a data-parallel group must agree on it (READY only).
    package var parallelConfigHash: String?
    /// The one that the engine also registers with (READY of our engine only).
    package var instanceID: String?
    /// Another process with that rank shall start (LOST only; answered with ``EngineReturnAnswer``).
    package var returns = false

    package init(
        status: Status, isLocal: Bool, isHeadless: Bool, parallelConfigHash: String? = nil, instanceID: String? = nil
    ) {
        self.status = status
        self.isLocal = isLocal
        self.isHeadless = isHeadless
        self.parallelConfigHash = parallelConfigHash
        self.instanceID = instanceID
    }

    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        var status: String?
        (isLocal, isHeadless) = (false, false)
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            switch key {
            case "status": status = try reader.readString()
            case "local": isLocal = try reader.readBool()
            case "headless": isHeadless = try reader.readBool()
            case "parallel_config_hash": parallelConfigHash = try reader.readString()
            case "instance_id": instanceID = try reader.readString()
            case "returns": returns = try reader.readBool()
            default: try reader.skip()
            }
        }
        guard let status else { throw MessagePackError(.missingField("status"), offset: 0) }
        guard let known = Status(rawValue: status) else {
            throw MessagePackError(.invalid("unknown handshake status '\(status.prefix(32))'"), offset: 0)
        }
        self.status = known
    }

    package func encode() -> [UInt8] {
        var output: [UInt8] = []
        output.packMapHeader(3 + (parallelConfigHash == nil ? 0 : 1) + (instanceID == nil ? 0 : 1) + (returns ? 1 : 0))
        output.pack(key: "status")
        output.pack(status.rawValue)
        output.pack(key: "local")
        output.pack(isLocal)
        output.pack(key: "headless")
        output.pack(isHeadless)
        if let parallelConfigHash {
            output.pack(key: "parallel_config_hash")
            output.pack(parallelConfigHash)
        }
        if let instanceID {
            output.pack(key: "instance_id")
            output.pack(instanceID)
        }
        if returns {
            output.pack(key: "returns")
            output.pack(true)
        }
        return output
    }
}

/// INIT, the answer to HELLO: where the engine's sockets connect to (vLLM: `EngineHandshakeMetadata`).
package struct EngineInitMessage: Sendable, Equatable {
    /// One endpoint per frontend, the index is the client index.
    package var inputs: [String]
    package var outputs: [String]
    package var coordinatorInput: String?
    package var coordinatorOutput: String?
    package var frontendStatsPublishAddress: String?
    package var parallelConfig = ParallelConfig()

    /// Set for engines that run in lockstep (data parallelism with mixture-of-experts models), else empty.
    package struct ParallelConfig: Sendable, Equatable {
        package var dataParallelMasterIP: String?
        package var dataParallelMasterPort: Int?
        package var dataParallelMasterPortList: [Int]?
        package var dataParallelSize: Int?
        /// 0.32 and later.
        package var coordStorePort: Int?
        package init() {}
    }

    package init(inputs: [String], outputs: [String]) {
        self.inputs = inputs
        self.outputs = outputs
    }

    package func encode() -> [UInt8] {
        var output: [UInt8] = []
        output.packMapHeader(2)
        output.pack(key: "addresses")
        output.packMapHeader(5)
        output.pack(key: "inputs")
        output.packArrayHeader(inputs.count)
        for address in inputs { output.pack(address) }
        output.pack(key: "outputs")
        output.packArrayHeader(outputs.count)
        for address in outputs { output.pack(address) }
        output.pack(key: "coordinator_input")
        output.pack(optional: coordinatorInput)
        output.pack(key: "coordinator_output")
        output.pack(optional: coordinatorOutput)
        output.pack(key: "frontend_stats_publish_address")
        output.pack(optional: frontendStatsPublishAddress)
        output.pack(key: "parallel_config")
        parallelConfig.encode(into: &output)
        return output
    }

    package init(decoding payload: UnsafeRawBufferPointer) throws(MessagePackError) {
        var reader = MessagePackReader(payload)
        self.init(inputs: [], outputs: [])
        var found = false
        for _ in 0..<(try reader.readMapHeader()) {
            switch try reader.readKey() {
            case "addresses":
                found = true
                for _ in 0..<(try reader.readMapHeader()) {
                    let key = try reader.readKey()
                    if try reader.skipNil() { continue }
                    switch key {
                    case "inputs": inputs = try reader.readArray { r throws(MessagePackError) in try r.readString() }
                    case "outputs": outputs = try reader.readArray { r throws(MessagePackError) in try r.readString() }
                    case "coordinator_input": coordinatorInput = try reader.readString()
                    case "coordinator_output": coordinatorOutput = try reader.readString()
                    case "frontend_stats_publish_address": frontendStatsPublishAddress = try reader.readString()
                    default: try reader.skip()
                    }
                }
            case "parallel_config": parallelConfig = try ParallelConfig(decoding: &reader)
            default: try reader.skip()
            }
        }
        guard found else { throw MessagePackError(.missingField("addresses"), offset: 0) }
    }
}

extension EngineInitMessage.ParallelConfig {
    func encode(into output: inout [UInt8]) {
        let header = output.count
        output.packMapHeader(0)
        var writer = MapWriter()
        if let dataParallelMasterIP {
            writer.pack(&output, "data_parallel_master_ip") { $0.pack(dataParallelMasterIP) }
        }
        writer.pack(&output, "data_parallel_master_port", dataParallelMasterPort)
        if let ports = dataParallelMasterPortList {
            writer.pack(&output, "_data_parallel_master_port_list") { output in
                output.packArrayHeader(ports.count)
                for port in ports { output.pack(port) }
            }
        }
        writer.pack(&output, "data_parallel_size", dataParallelSize)
        writer.pack(&output, "_coord_store_port", coordStorePort)
        output[header] |= UInt8(truncatingIfNeeded: writer.pairs)
    }

    init(decoding reader: inout MessagePackReader) throws(MessagePackError) {
        self.init()
        for _ in 0..<(try reader.readMapHeader()) {
            let key = try reader.readKey()
            if try reader.skipNil() { continue }
            switch key {
            case "data_parallel_master_ip": dataParallelMasterIP = try reader.readString()
            case "data_parallel_master_port": dataParallelMasterPort = try reader.readInt()
            case "_data_parallel_master_port_list": dataParallelMasterPortList = try reader.readInts()
            case "data_parallel_size": dataParallelSize = try reader.readInt()
            case "_coord_store_port": coordStorePort = try reader.readInt()
            default: try reader.skip()
            }
        }
    }
}
