/// What the streaming parsers make of generated text.
package enum OutputEvent: Sendable, Equatable {
    /// UTF-8 of ordinary answer text.
    case content([UInt8])
    /// UTF-8 of reasoning (text before the end-of-thinking marker).
    case reasoning([UInt8])
    /// A tool call begins; `index` counts from 0 in the message. Arguments follow in pieces.
    case toolCallStart(index: Int, id: String, name: String)
    /// UTF-8 of the next piece of the JSON text of the arguments.
    case toolCallArguments(index: Int, fragment: [UInt8])
}

/// Everything of one chat choice between detokenised text and API events: reasoning parser first, then tool parser.
///
/// Lives on one event loop. The result does not depend on how the text was split into pieces.
package protocol OutputParser: AnyObject {
    /// Feeds the next piece of text; appends events to `events`.
    func append(_ text: UnsafeBufferPointer<UInt8>, events: inout [OutputEvent])
    /// The text has ended: releases what was held back.
    func finish(events: inout [OutputEvent])
    /// Whether at least one tool call was parsed.
    var sawToolCall: Bool { get }
    /// Whether reasoning is still going on; tokens that arrive while it is count as reasoning tokens.
    var isReasoning: Bool { get }
}
