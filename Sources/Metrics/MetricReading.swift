/// What blocks say at one moment: of one frontend, or of all.
struct MetricReading {
    private let recorders: [MetricCells]
    private let gauges: [MetricCells]
    let blocks: [MetricBlock]
    private let layout: EngineMetricLayout

    /// Blocks of another shape than `layout` are left out.
    init(_ blocks: [MetricBlock], engineCount: Int, layout: EngineMetricLayout) {
        self.blocks = blocks
        self.layout = layout
        recorders = blocks.filter {
            $0.kind == .recorder && $0.cells.count == engineCount * layout.cellCount
                && Array($0.labels.dropFirst()) == layout.labels
        }.map(\.cells)
        gauges = blocks.filter { $0.kind == .gauges && $0.cells.count == engineCount * EngineGauge.allCases.count }
            .map(\.cells)
    }

    func counter(_ counter: EngineCounter, engine: Int) -> UInt64 {
        let index = engine * layout.cellCount + counter.rawValue
        return recorders.reduce(0) { $0 &+ $1.integer(at: index) }
    }

    func histogram(_ histogram: EngineHistogram, engine: Int) -> HistogramSnapshot {
        let slot = layout.histograms[histogram.rawValue]
        var snapshot = HistogramSnapshot(bounds: slot.bounds)
        for cells in recorders { slot.add(cells, base: engine * layout.cellCount, to: &snapshot) }
        return snapshot
    }

    /// The latest that any frontend heard.
    func gauge(_ gauge: EngineGauge, engine: Int) -> Double {
        let base = engine * EngineGauge.allCases.count
        let latest = gauges.max {
            $0.double(at: base + EngineGauge.timestamp.rawValue) < $1.double(at: base + EngineGauge.timestamp.rawValue)
        }
        return latest?.double(at: base + gauge.rawValue) ?? 0
    }

    func admissionRejections(_ limit: AdmissionLimit) -> UInt64 {
        blocks.lazy.filter { $0.kind == .server && $0.cells.count == ServerCell.allCases.count }
            .reduce(0) { $0 &+ $1.cells.integer(at: limit.cell.rawValue) }
    }

    // MARK: - HTTP

    struct HTTP {
        struct Sizes {
            fileprivate var values = Array(repeating: UInt64(0), count: HTTPMetrics.SizeCell.allCases.count)
            subscript(cell: HTTPMetrics.SizeCell) -> UInt64 { values[cell.rawValue] }
        }

        /// By handler, method and status class.
        var requests: [[String]: UInt64] = [:]
        /// By handler and method.
        var durations: [[String]: HistogramSnapshot] = [:]
        var highResolution = HistogramSnapshot(bounds: MetricBuckets.highResolution)
        /// By handler.
        var sizes: [String: Sizes] = [:]
    }

    func http() -> HTTP {
        var result = HTTP()
        for block in blocks {
            switch (block.kind, block.labels.count, block.cells.count) {
            case (.httpRequests, 3, 1): result.requests[block.labels, default: 0] &+= block.cells.integer(at: 0)
            case (.httpDuration, 2, HTTPMetrics.duration.cellCount):
                HTTPMetrics.duration.add(
                    block.cells, base: 0,
                    to: &result.durations[
                        block.labels, default: HistogramSnapshot(bounds: MetricBuckets.handlerDuration)])
            case (.httpHighResolution, 0, HTTPMetrics.highResolution.cellCount):
                HTTPMetrics.highResolution.add(block.cells, base: 0, to: &result.highResolution)
            case (.httpSizes, 1, HTTPMetrics.SizeCell.allCases.count):
                for cell in HTTPMetrics.SizeCell.allCases {
                    result.sizes[block.labels[0], default: HTTP.Sizes()].values[cell.rawValue] &+=
                        block.cells.integer(at: cell.rawValue)
                }
            default: break
            }
        }
        return result
    }
}
