import JSONBytes
import NIOCore
import NIOHTTP1

/// An error answer in the shape of vLLM's Python server:
/// `{"error":{"message":…,"type":…,"param":…,"code":<status as a number>}}`.
package struct APIError: Error, Sendable, Equatable {
    package var status: HTTPResponseStatus
    /// vLLM's spelling, for example `BadRequestError`.
    package var type: String
    package var message: String
    /// The field or dotted path that is to blame.
    package var param: String?
    /// Seconds for a `Retry-After` header; only for answers that may succeed later.
    package var retryAfter: Int?

    package init(
        status: HTTPResponseStatus, type: String, message: String, param: String? = nil, retryAfter: Int? = nil
    ) {
        self.status = status
        self.type = type
        self.message = message
        self.param = param
        self.retryAfter = retryAfter
    }

    /// A value out of range or contradictory fields (vLLM: `VLLMValidationError`). With `value`, the message ends in
    /// `(parameter=…, value=…)`; a long value is cut so that an error never amplifies its request.
    package static func badRequest(_ message: String, param: String? = nil, value: Any? = nil) -> APIError {
        var message = message
        if let param, let value {
            var text = "\(value)"
            if text.utf8.count > 256 { text = "\(text.prefix(64))…" }
            message += " (parameter=\(param), value=\(text))"
        }
        return APIError(status: .badRequest, type: "BadRequestError", message: message, param: param)
    }

    /// The body could not be read as a request: not JSON, a wrong type, a missing field.
    package static func invalidBody(_ message: String, param: String? = nil) -> APIError {
        APIError(status: .badRequest, type: "Bad Request", message: message, param: param)
    }

    package static func notFound(_ message: String, param: String? = nil) -> APIError {
        APIError(status: .notFound, type: "NotFoundError", message: message, param: param)
    }

    package static func permissionDenied(_ message: String) -> APIError {
        APIError(status: .forbidden, type: "PermissionDeniedError", message: message)
    }

    package static func requestTimeout(_ message: String) -> APIError {
        APIError(status: .requestTimeout, type: "RequestTimeoutError", message: message)
    }

    package static func bodyTooLarge(limit: Int) -> APIError {
        APIError(
            status: .payloadTooLarge, type: "PayloadTooLargeError",
            message: "The request body is larger than \(limit) bytes.")
    }

    package static func internalError(_ message: String) -> APIError {
        APIError(status: .internalServerError, type: "InternalServerError", message: message)
    }

    package static func notImplemented(_ message: String) -> APIError {
        APIError(status: .notImplemented, type: "NotImplementedError", message: message)
    }

    package static func serviceUnavailable(_ message: String, retryAfter: Int? = 1) -> APIError {
        APIError(status: .serviceUnavailable, type: "ServiceUnavailableError", message: message, retryAfter: retryAfter)
    }

    package static func engineHangs(_ reason: String) -> APIError {
        .serviceUnavailable("The engine hangs: \(reason).", retryAfter: 5)
    }

    /// The engine is there and does not answer. vLLM knows no such error.
    package static func gatewayTimeout(_ message: String) -> APIError {
        APIError(status: .gatewayTimeout, type: "GatewayTimeoutError", message: message)
    }

    /// As `type`: the body is `{"detail": message}`, the Python framework's own errors, instead of the API's shape.
    package static let bareDetail = "detail"

    /// Appends the JSON object.
    package func append(to sink: inout some ByteSink) {
        if type == Self.bareDetail {
            sink.appendLiteral("{\"detail\":")
            sink.appendJSONString(message)
            sink.appendLiteral("}")
            return
        }
        sink.appendLiteral("{\"error\":{\"message\":")
        sink.appendJSONString(message)
        sink.appendLiteral(",\"type\":")
        sink.appendJSONString(type)
        sink.appendLiteral(",\"param\":")
        if let param { sink.appendJSONString(param) } else { sink.appendJSONNull() }
        sink.appendLiteral(",\"code\":")
        sink.appendJSONInt(status.code)
        sink.appendLiteral("}}")
    }

    /// Appends the error as one event of a stream that has already begun; `data: [DONE]` is the caller's.
    package func appendEvent(to sink: inout some ByteSink) {
        sink.appendLiteral("data: ")
        append(to: &sink)
        sink.appendLiteral("\n\n")
    }
}

extension ResponseWriter {
    /// Answers the request with an error body.
    package func send(_ error: APIError) {
        var body = ByteBuffer()
        error.append(to: &body)
        var headers = HTTPHeaders()
        if let retryAfter = error.retryAfter { headers.add(name: "Retry-After", value: String(retryAfter)) }
        send(status: error.status, contentType: "application/json", headers: headers, body: body)
    }

    /// Answers 200 with a JSON text.
    package func sendJSON(_ body: ByteBuffer) {
        send(status: .ok, contentType: "application/json", headers: [:], body: body)
    }
}
