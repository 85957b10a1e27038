import EngineProtocol
import Testing

/// The byte strings were written by Python's msgpack library.
@Suite struct EngineControlTests {
    private func bytes(_ hex: String) -> [UInt8] {
        var result: [UInt8] = []
        var rest = hex[...]
        while let value = UInt8(rest.prefix(2), radix: 16) {
            result.append(value)
            rest = rest.dropFirst(2)
        }
        return result
    }

    private func event(_ hex: String) -> EngineControlEvent? {
        bytes(hex).withUnsafeBytes { try? EngineControlEvent(decoding: $0) }
    }

    @Test func commands() {
        let connect = EngineControlCommand.connectFrontend(clientIndex: 1, input: "ipc://a", output: "ipc://b")
        #expect(
            connect.encode()
                == bytes(
                    "84a7636f6d6d616e64b0636f6e6e6563745f66726f6e74656e64ac636c69656e745f696e64657801"
                        + "a5696e707574a76970633a2f2f61a66f7574707574a76970633a2f2f62"))
        #expect(
            EngineControlCommand.disconnectFrontend(clientIndex: 0).encode()
                == bytes("82a7636f6d6d616e64b3646973636f6e6e6563745f66726f6e74656e64ac636c69656e745f696e64657800"))
    }

    @Test func events() {
        #expect(
            event("83a6737461747573b346524f4e54454e445f52454749535445524544ac636c69656e745f696e64657801a56572726f72c0")
                == EngineControlEvent(status: .registered, clientIndex: 1))
        #expect(
            event("83a6737461747573ad434f4e54524f4c5f4552524f52ac636c69656e745f696e64657802a56572726f72a26e6f")
                == EngineControlEvent(status: .refused, clientIndex: 2, error: "no"))
    }

    @Test func otherMessagesAreNoEvents() {
        #expect(event("81a6737461747573a548454c4c4f") == nil)
        #expect(event("") == nil)
        #expect(event("83a6737461747573b346524f4e54454e445f5245") == nil)
    }
}
