import EngineClient
import EngineProtocol
import NIOHTTP1

extension APIError {
    /// A failure of the engine client as an answer (vLLM: `EngineDeadError`, `EngineGenerateError`).
    ///
    /// - Parameter returns: the engine is being replaced, so that trying again makes sense; vLLM's never is.
    init(_ failure: EngineFailure, engineReturns returns: Bool = false) {
        switch failure {
        case .engineDead where returns: self = .serviceUnavailable("The engine has died and is being restarted.")
        case .engineDead:
            self = .internalError("The engine has died; the server had an error while processing your request.")
        case .requestFailed(let reason): self = .internalError(reason)
        case .engineHung(let reason): self = .gatewayTimeout("The engine hangs: \(reason).")
        case .engineBehind(let reason): self = .engineHangs(reason)
        case .shuttingDown: self = .serviceUnavailable("The server is shutting down.")
        }
    }

    /// An output with the finish reason `error`; newer engines say why.
    ///
    /// - Parameter refusesConstraint: the request had a grammar and not one token. Engines compile grammars before they
    ///   begin, and up to 0.32 they cannot say that one does not compile.
    init(engineError: EngineRequestError?, refusesConstraint: Bool) {
        guard let engineError else {
            self =
                refusesConstraint
                ? .badRequest(
                    "The engine refused the request: its grammar backend cannot use this constraint "
                        + "(structured_outputs, response_format or the parameters of a tool).")
                : .internalError("Internal server error")
            return
        }
        if engineError.code == "validation_error" {
            self = .badRequest(engineError.message)
        } else if engineError.retryable {
            self = .serviceUnavailable(engineError.message)
        } else {
            self = .internalError("Internal server error")
        }
    }

    /// What the Python server answers to a body that is not text at all.
    static let unparsableBody = APIError(
        status: .badRequest, type: APIError.bareDetail, message: "There was an error parsing the body")
}
