import JSONBytes
import Metrics

/// Reads vLLM's `custom_histogram_buckets`: upper bounds by family.
enum HistogramBucketArguments {
    /// Cells are made per bucket, engine and thread.
    static let maximumBuckets = 1000

    static func read(_ object: JSONObject) throws(UsageError) -> [HistogramFamily: [Double]] {
        var result: [HistogramFamily: [Double]] = [:]
        for (name, value) in object.pairs {
            func wrong(_ reason: String) -> UsageError {
                UsageError("--args-json: custom_histogram_buckets['\(name)']: \(reason)")
            }
            guard let family = HistogramFamily(rawValue: name) else {
                let known = HistogramFamily.allCases.map(\.rawValue).sorted().joined(separator: ", ")
                throw wrong("unknown bucket family; known families: \(known)")
            }
            if value.isNull { continue }
            guard let list = value.arrayValue, !list.isEmpty, list.count <= maximumBuckets else {
                throw wrong("1 to \(maximumBuckets) bounds in a list are needed")
            }
            var bounds: [Double] = []
            for element in list {
                guard let bound = element.numberValue?.doubleValue, bound.isFinite, bound > 0 else {
                    throw wrong("bounds must be finite numbers above 0")
                }
                guard bound > bounds.last ?? 0 else { throw wrong("bounds must be strictly increasing") }
                bounds.append(bound)
            }
            result[family] = bounds
        }
        return result
    }
}
