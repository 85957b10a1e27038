import EngineProtocol
import MessagePack
import Testing

@Suite struct ReadyResponseTests {
    private static let full: [(String, MessagePackValue)] = [
        ("max_model_len", .int(2048)), ("num_gpu_blocks", .int(64)), ("block_size", .int(16)),
        ("dtype", .string("bfloat16")), ("vllm_version", .string("0.33.0")), ("world_size", .int(1)),
        ("data_parallel_size", .int(1)), ("tensor_parallel_size", .int(1)), ("pipeline_parallel_size", .int(1)),
        ("decode_context_parallel_size", .int(1)), ("data_parallel_rank", .int(0)), ("max_num_seqs", .int(8)),
        ("max_num_batched_tokens", .int(512)), ("instance_id", .string("i")), ("supports_lora", .bool(false)),
        ("max_loras", .int(0)), ("something_new", .array([.int(1)])),
    ]

    private func decode(
        _ fields: [(String, MessagePackValue)], family: ProtocolFamily? = nil
    ) throws -> (EngineCoreReadyResponse, ProtocolFamily) {
        var bytes: [UInt8] = []
        MessagePackValue.map(fields.map { (.string($0.0), $0.1) }).encode(into: &bytes)
        return try bytes.withBuffer { try EngineCoreReadyResponse.decode($0, family: family) }
    }

    @Test func fullResponse() throws {
        let (response, family) = try decode(Self.full)
        #expect(family == .v0_33)
        #expect(response.maxNumBatchedTokens == 512)
    }

    @Test(arguments: full.map(\.0).filter { $0 != "something_new" })
    func eachMissingFieldIsNamed(name: String) throws {
        let error = #expect(throws: MessagePackError.self) { try decode(Self.full.filter { $0.0 != name }) }
        #expect(error?.reason == .missingField(name))
        #expect("\(try #require(error))".contains("'\(name)'"))
    }

    @Test func oldFamiliesNeedLess() throws {
        let two = Array(Self.full.prefix(2))
        #expect(try decode(two, family: .v0_22).0.maxModelLength == 2048)
        let error = #expect(throws: MessagePackError.self) { try decode(two) }
        #expect(error?.reason == .missingField("vllm_version"))
        #expect(throws: MessagePackError.self) { try decode(two, family: .v0_25) }
        #expect(try decode(Array(Self.full.prefix(7)), family: .v0_25).0.dtype == "bfloat16")
    }

    @Test func wrongTypesNameTheField() throws {
        var fields = Self.full
        fields[2].1 = .string("16")
        let error = try #require(throws: MessagePackError.self) { try decode(fields) }
        #expect("\(error)".contains("'block_size'"))
    }

    @Test func versionsOfNoFamilyNeedAConfiguredOne() throws {
        var fields = Self.full
        fields[4].1 = .string("dev")
        #expect(throws: MessagePackError.self) { try decode(fields) }
        #expect(try decode(fields, family: .v0_32).1 == .v0_32)
    }

    @Test func contradictionsAreErrors() {
        var fields = Self.full
        fields[14].1 = .bool(true)
        #expect(throws: MessagePackError.self) { try decode(fields) }
        fields[15].1 = .int(4)
        #expect(throws: Never.self) { try decode(fields) }
        fields[0].1 = .int(0)
        #expect(throws: MessagePackError.self) { try decode(fields) }
    }

    @Test(arguments: [[], [0x90], [0xc0], [0x05], Array("READY".utf8)] as [[UInt8]])
    func otherFramesAreErrors(bytes: [UInt8]) {
        #expect(throws: MessagePackError.self) {
            try bytes.withBuffer { try EngineCoreReadyResponse.decode($0, family: .v0_33) }
        }
    }
}
