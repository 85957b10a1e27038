import Synchronization

/// One finished HTTP exchange. `handler` is the route template, `none` for unknown paths.
package struct HTTPSample: Sendable {
    package var handler: String
    package var method: String
    package var status: Int
    /// Seconds from the request head to the end of the response.
    package var duration: Double
    package var requestBytes: Int
    package var responseBytes: Int
    package init(
        handler: String, method: String, status: Int, duration: Double, requestBytes: Int, responseBytes: Int
    ) {
        self.handler = handler
        self.method = method
        self.status = status
        self.duration = duration
        self.requestBytes = requestBytes
        self.responseBytes = responseBytes
    }
}

/// HTTP families; updated once per request under a lock. Label values must come from bounded sets.
final class HTTPMetrics: Sendable {
    struct RequestKey: Hashable, Sendable, Comparable {
        var handler: String
        var method: String
        var status: String

        static func < (left: RequestKey, right: RequestKey) -> Bool {
            (left.handler, left.method, left.status) < (right.handler, right.method, right.status)
        }
    }

    struct DurationKey: Hashable, Sendable, Comparable {
        var handler: String
        var method: String

        static func < (left: DurationKey, right: DurationKey) -> Bool {
            (left.handler, left.method) < (right.handler, right.method)
        }
    }

    struct Size: Sendable {
        var count = 0
        var bytes = 0
    }

    struct State: Sendable {
        var requests: [RequestKey: Int] = [:]
        var durations: [DurationKey: HistogramSnapshot] = [:]
        var highResolution = HistogramSnapshot(bounds: MetricBuckets.highResolution)
        var requestSizes: [String: Size] = [:]
        var responseSizes: [String: Size] = [:]
    }

    private let state = Mutex(State())

    func record(_ sample: HTTPSample) {
        let key = RequestKey(
            handler: sample.handler, method: sample.method, status: "\(max(1, min(5, sample.status / 100)))xx")
        state.withLock { state in
            state.requests[key, default: 0] += 1
            state.durations[
                DurationKey(handler: sample.handler, method: sample.method),
                default: HistogramSnapshot(bounds: MetricBuckets.handlerDuration)
            ].observe(sample.duration)
            state.highResolution.observe(sample.duration)
            state.requestSizes[sample.handler, default: Size()].count += 1
            state.requestSizes[sample.handler, default: Size()].bytes += sample.requestBytes
            state.responseSizes[sample.handler, default: Size()].count += 1
            state.responseSizes[sample.handler, default: Size()].bytes += sample.responseBytes
        }
    }

    func snapshot() -> State { state.withLock { $0 } }
}
