import EngineProtocol
import Foundation
import MessagePack
import TestSupport
import Testing

/// Damaged messages give values or errors, never a trap. Every decoder sees damaged versions of every capture.
@Suite struct MutationTests {
    private func mutate(_ bytes: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
            let index = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 2: bytes.removeSubrange(index...)
            case 3: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
            case 4: bytes.remove(at: index)
            default:
                bytes[index] = [0xc1, 0xdd, 0xdf, 0xdb, 0xcf, 0xd3, 0xc0, 0x9f, 0x8f, 0xc9].randomElement(
                    using: &random)!
            }
        }
        return bytes
    }

    private func decodeAll(_ frames: [[UInt8]], family: ProtocolFamily) {
        _ = try? EngineCoreOutputs(decoding: ArrayFrames(frames), family: family)
        for frame in frames {
            _ = try? frame.read { r throws(MessagePackError) in try EngineCoreRequest(decoding: &r) }
            _ = try? frame.read { r throws(MessagePackError) in try AbortRequest.decode(&r) }
            _ = try? frame.read { r throws(MessagePackError) in try UtilityCall(decoding: &r) }
            frame.withBuffer { bytes in
                _ = try? EngineCoreReadyResponse.decode(bytes, family: family)
                _ = try? EngineHandshakeMessage(decoding: bytes)
                _ = try? EngineInitMessage(decoding: bytes)
                _ = try? EngineControlEvent(decoding: bytes)
                _ = EngineDeathNotice(identity: bytes, instance: bytes)
                _ = try? CoordinatorState(decoding: bytes)
                _ = try? StartDataParallelWave(decoding: bytes)
                _ = try? FrontendToCoordinatorMessage(decoding: bytes)
                _ = EngineCoreOutputReader.requestID(at: MessagePackReader(bytes))
            }
        }
    }

    private func strike(_ frames: [[UInt8]], times: Int, _ random: inout SeededGenerator) {
        for _ in 0..<times {
            var damaged = frames
            let index = Int.random(in: 0..<frames.count, using: &random)
            damaged[index] = mutate(frames[index], &random)
            decodeAll(damaged, family: ProtocolFamily.allCases.randomElement(using: &random)!)
        }
    }

    private var messages: [[[UInt8]]] {
        Capture.all.map(\.bytes) + OutputFieldTests.Case.all.map { $0.frames.map(hex) }
    }

    @Test func damagedCapturesNeverTrap() {
        var random = SeededGenerator(seed: 42)
        for message in messages { strike(message, times: 40, &random) }
    }

    private static let environment = ProcessInfo.processInfo.environment

    /// Minutes of other damage: `MUTATION_SECONDS=600 MUTATION_SEED=7 swift test --filter MutationTests`.
    @Test(.enabled(if: environment["MUTATION_SECONDS"] != nil))
    func damagedCapturesNeverTrapForAWhile() throws {
        let seconds = try #require(Self.environment["MUTATION_SECONDS"].flatMap(Double.init))
        let seed = Self.environment["MUTATION_SEED"].flatMap(UInt64.init) ?? 1
        var random = SeededGenerator(seed: seed)
        let messages = messages
        let end = ContinuousClock.now + .seconds(seconds)
        var count = 0
        while ContinuousClock.now < end {
            strike(messages.randomElement(using: &random)!, times: 100, &random)
            count += 100
        }
        print("seed \(seed): \(count) damaged messages in \(seconds) s")
    }

    @Test func everyPrefixOfAMessageNeverTraps() {
        for capture in Capture.all.filter({ $0.kind == "OUTPUTS" || $0.kind == "ADD" }).prefix(60) {
            guard let frame = capture.bytes.max(by: { $0.count < $1.count }) else { continue }
            for length in stride(from: 0, to: frame.count, by: 7) {
                decodeAll([Array(frame.prefix(length))], family: .v0_32)
            }
        }
    }
}
