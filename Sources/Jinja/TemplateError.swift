/// Why a template could not be compiled or rendered.
///
/// Every kind is a property of the template or of the request's data, never of the server: HTTP answers 400.
package struct TemplateError: Error, Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        /// The template does not follow Jinja's grammar, or names an unknown filter, test or tag.
        case syntax
        /// Valid Jinja that a chat template has no use for and this interpreter leaves out, such as `include`.
        case unsupported
        /// Something was done with an undefined value other than printing, testing or looping over it.
        case undefined
        /// The template itself called `raise_exception`.
        case raised
        /// What Python would report as TypeError, ValueError, OverflowError and the like.
        case runtime
        /// More work than `RenderLimits.fuel` pays for.
        case tooMuchWork
        /// More output than `RenderLimits.outputBytes`.
        case outputTooLarge
        /// Calls, expressions or values nested too deeply.
        case tooDeep
    }

    package let kind: Kind
    package let message: String
    /// Line of the template, counted from 1; 0 when unknown.
    package internal(set) var line: Int

    package init(_ kind: Kind, _ message: String, line: Int = 0) {
        self.kind = kind
        self.message = message
        self.line = line
    }
}

extension TemplateError: CustomStringConvertible {
    package var description: String { line > 0 ? "\(message) (template line \(line))" : message }
}
