import Measurement
import Testing

@Suite struct ScannerTests {
    private static let stream = Array(
        ": ping\n\ndata: {\"a\":1}\n\ndata:{\"b\":\"\\n\"}\r\n\r\nevent: x\ndata: [DONE]\n\n".utf8)

    private func lines(_ pieces: [ArraySlice<UInt8>]) -> [String] {
        var scanner = EventLineScanner()
        var found: [String] = []
        for piece in pieces {
            piece.withUnsafeBufferPointer { bytes in
                scanner.feed(bytes) { found.append(String(decoding: $0, as: UTF8.self)) }
            }
        }
        return found
    }

    @Test func eventsAreTheSameForEverySplit() {
        let bytes = Self.stream
        let expected = ["{\"a\":1}", "{\"b\":\"\\n\"}", "[DONE]"]
        #expect(lines([bytes[...]]) == expected)
        #expect(lines(bytes.indices.map { bytes[$0...$0] }) == expected)
        for first in bytes.indices {
            for second in first..<bytes.count {
                #expect(lines([bytes[..<first], bytes[first..<second], bytes[second...]]) == expected)
            }
        }
    }
}
