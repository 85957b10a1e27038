import Metrics
import Synchronization

/// How much unfinished work is taken on; what is beyond gets 503, so that a client can try elsewhere (vLLM:
/// `check_admission`). Several event loops ask and count at once, so the limits may be passed by a few requests.
package final class AdmissionControl: Sendable {
    /// `max_num_queued_reqs`: sequences that wait or run; over all frontends of the service.
    private let maxUnfinished: Int?
    /// `max_num_queued_tokens`: prompt tokens of sequences that have no output yet; of this frontend alone, as in vLLM.
    private let maxQueuedTokens: Int?
    private let metrics: FrontendMetrics
    private let queuedTokens = Atomic(0)

    init(_ configuration: ServerConfiguration, metrics: FrontendMetrics) {
        maxUnfinished = configuration.maxUnfinishedRequests
        maxQueuedTokens = configuration.maxQueuedTokens
        self.metrics = metrics
    }

    /// - Parameter sequences: prompts times `n`.
    package func check(adding sequences: Int) throws(APIError) {
        if let maxUnfinished, metrics.totalUnfinishedSequences() + sequences > maxUnfinished {
            metrics.recordAdmissionRejection(.requests)
            throw .serviceUnavailable("The server has as many unfinished requests as it may have; try again later.")
        }
        // The new prompt does not count: one that is longer than the limit is taken when nothing waits.
        if let maxQueuedTokens, queuedTokens.load(ordering: .relaxed) >= maxQueuedTokens {
            metrics.recordAdmissionRejection(.tokens)
            throw .serviceUnavailable("The server has as many waiting prompt tokens as it may have; try again later.")
        }
    }

    func admitted(promptTokens: Int) {
        metrics.changeUnfinishedSequences(by: 1)
        queuedTokens.add(promptTokens, ordering: .relaxed)
    }

    /// The engine has read the prompt, or never will.
    func leftQueue(promptTokens: Int) { queuedTokens.subtract(promptTokens, ordering: .relaxed) }

    func finished() { metrics.changeUnfinishedSequences(by: -1) }
}
