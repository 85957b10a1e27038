import Measurement
import Testing

@Suite struct RecordTests {
    @Test func outputTokensComeFromUsageElseFromChunks() {
        var record = RequestRecord(
            arm: 0, block: 0, index: 0, item: 0, seed: 1, intendedSend: 0, actualSend: 0, end: 10,
            chunkOffsets: [1, 2, 3], status: 200)
        #expect(record.outputTokens == 3)
        record.usage = TokenUsage(promptTokens: 2, completionTokens: 5)
        #expect(record.outputTokens == 5)
        #expect(record.succeeded)
        record.error = .incomplete
        #expect(!record.succeeded)
    }
}
