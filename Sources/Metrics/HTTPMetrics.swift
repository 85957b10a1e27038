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
    static let duration = HistogramSlot(bounds: MetricBuckets.handlerDuration, offset: 0)
    static let highResolution = HistogramSlot(bounds: MetricBuckets.highResolution, offset: 0)

    /// Cells of a block of sizes.
    enum SizeCell: Int, CaseIterable { case requests, requestBytes, responses, responseBytes }

    private struct Key: Hashable {
        var kind: MetricBlock.Kind
        var labels: [String]
    }

    private let memory: MetricMemory
    private let blocks = Mutex<[Key: MetricCells]>([:])

    init(memory: MetricMemory) { self.memory = memory }

    func record(_ sample: HTTPSample) {
        let status = "\(max(1, min(5, sample.status / 100)))xx"
        blocks.withLock { blocks in
            func cells(_ kind: MetricBlock.Kind, _ labels: [String], _ count: Int) -> MetricCells {
                let key = Key(kind: kind, labels: labels)
                if let known = blocks[key] { return known }
                let cells = memory.block(kind, labels: labels, count: count)
                blocks[key] = cells
                return cells
            }
            cells(.httpRequests, [sample.handler, sample.method, status], 1).add(1, at: 0)
            Self.duration.observe(
                sample.duration, in: cells(.httpDuration, [sample.handler, sample.method], Self.duration.cellCount),
                base: 0)
            Self.highResolution.observe(
                sample.duration, in: cells(.httpHighResolution, [], Self.highResolution.cellCount), base: 0)
            let sizes = cells(.httpSizes, [sample.handler], SizeCell.allCases.count)
            sizes.add(1, at: SizeCell.requests.rawValue)
            sizes.add(UInt64(max(0, sample.requestBytes)), at: SizeCell.requestBytes.rawValue)
            sizes.add(1, at: SizeCell.responses.rawValue)
            sizes.add(UInt64(max(0, sample.responseBytes)), at: SizeCell.responseBytes.rawValue)
        }
    }
}
