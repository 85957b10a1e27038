import JSONBytes
import NIOCore

/// What all chunks of one event stream share: their beginning, and the last events of the stream.
struct StreamFrame {
    /// Everything of a chunk up to its choices.
    let head: [UInt8]
    private let includesUsage: Bool
    private let showsCreatedCache: Bool

    /// - Parameters:
    ///   - object: the chunks' `object`.
    ///   - includeUsage: whether a chunk with the usage ends the stream (`stream_options.include_usage`).
    init(_ identity: ResponseIdentity, object: StaticString, includeUsage: Bool, showCreatedCache: Bool = true) {
        var head: [UInt8] = []
        head.appendLiteral("data: {\"id\":")
        head.appendJSONString(identity.id)
        head.appendLiteral(",\"object\":\"")
        head.appendLiteral(object)
        head.appendLiteral("\",\"created\":")
        head.appendJSONInt(identity.created)
        head.appendLiteral(",\"model\":")
        head.appendJSONString(identity.model)
        head.appendLiteral(",\"choices\":[")
        self.head = head
        includesUsage = includeUsage
        showsCreatedCache = showCreatedCache
    }

    /// Everything of a chunk up to its choices.
    func appendHead(to buffer: inout ByteBuffer) {
        head.withUnsafeBytes { buffer.appendBytes($0) }
    }

    /// The usage if it was asked for, `[DONE]`, and the end of the stream.
    func finish(_ job: GenerationJob) {
        job.response.finishEvents { buffer in
            if includesUsage {
                appendHead(to: &buffer)
                buffer.appendLiteral("],\"system_fingerprint\":")
                buffer.appendJSONStringOrNull(job.api.fingerprint)
                buffer.appendLiteral(",\"usage\":")
                job.usage.append(
                    to: &buffer, showPromptDetails: job.api.showPromptTokensDetails,
                    showCreatedCache: showsCreatedCache)
                job.appendMetrics(to: &buffer)
                buffer.appendLiteral("}\n\n")
            }
        }
    }
}
