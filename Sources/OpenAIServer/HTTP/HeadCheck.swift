import NIOCore
import NIOHTTP1

/// What a request's head alone is enough to refuse, without reading the body.
struct HeadCheck {
    enum Answer {
        case error(APIError)
        case text(HTTPResponseStatus, contentType: String, headers: HTTPHeaders, String)
    }

    struct Refusal {
        var answer: Answer
        /// For the log line.
        var endCause: String?
        /// Whether the middleware headers go on the response.
        var isDecorated = true
        /// The byte stream cannot be trusted any further.
        var breaksConnection = false
    }

    let service: HTTPService
    let head: HTTPRequestHead
    let path: String
    let query: String
    /// nil for a path that nothing is registered for.
    let entry: Router.Entry?

    /// - Returns: nil when the body is to be read.
    func refusal() -> Refusal? {
        brokenHead() ?? forbidden() ?? preflight() ?? wrongRoute() ?? overload() ?? tooLarge()
    }

    private func brokenHead() -> Refusal? {
        if head.uri.utf8.count > service.limits.maxURIBytes {
            return Refusal(
                answer: .error(
                    APIError(status: .uriTooLong, type: "URITooLong", message: "The request target is too long.")))
        }
        if head.version == .http1_1, head.headers[canonicalForm: "host"].count != 1 {
            return Refusal(
                answer: .error(.invalidBody("An HTTP/1.1 request needs exactly one Host header.")),
                breaksConnection: true)
        }
        if head.version == .http1_0, head.headers.contains(name: "transfer-encoding") {
            return Refusal(
                answer: .error(.invalidBody("Transfer-Encoding is not part of HTTP/1.0.")), breaksConnection: true)
        }
        return nil
    }

    private func forbidden() -> Refusal? {
        guard !service.keys.allows(method: head.method, path: path, headers: head.headers) else { return nil }
        return Refusal(
            answer: .text(
                .unauthorized, contentType: "application/json", headers: [:], "{\"error\":\"Unauthorized\"}"),
            isDecorated: false)
    }

    private func preflight() -> Refusal? {
        guard let preflight = service.cors.preflight(method: head.method, headers: head.headers) else { return nil }
        return Refusal(
            answer: .text(
                preflight.status, contentType: "text/plain; charset=utf-8", headers: preflight.headers,
                preflight.text),
            isDecorated: false)
    }

    private func wrongRoute() -> Refusal? {
        guard let entry else { return unknownPath() }
        guard entry.handler(for: head.method) == nil else { return nil }
        return Refusal(
            answer: .text(
                .methodNotAllowed, contentType: "application/json", headers: ["allow": entry.allow],
                "{\"detail\":\"Method Not Allowed\"}"))
    }

    /// 404, or for a trailing slash too many the way to the real place, as in the Python server.
    private func unknownPath() -> Refusal {
        if service.router.isEmpty {
            return Refusal(answer: .error(.serviceUnavailable(service.refusal)), endCause: "shutdown")
        }
        if path.count > 1, path.hasSuffix("/"), service.router.entry(for: String(path.dropLast())) != nil {
            let target = service.rootPath + path.dropLast() + (query.isEmpty ? "" : "?\(query)")
            return Refusal(answer: .text(.temporaryRedirect, contentType: "", headers: ["location": target], ""))
        }
        return Refusal(
            answer: .text(
                .notFound, contentType: "application/json", headers: [:], "{\"detail\":\"Not Found\"}"))
    }

    /// What the server does not take on now.
    private func overload() -> Refusal? {
        guard entry?.options.contains(.work) == true else { return nil }
        let context = service.context
        if !context.life.takesWork {
            return Refusal(
                answer: .error(.serviceUnavailable("The server is shutting down.")), endCause: "shutdown")
        }
        if let reason = context.watch?.refusal() {
            return Refusal(answer: .error(.engineHangs(reason)), endCause: "shed")
        }
        do throws(APIError) {
            // Looked at again when the number of sequences is known; here it spares the reading of the body.
            try context.admission.check(adding: 1)
        } catch {
            return Refusal(answer: .error(error), endCause: "shed")
        }
        return nil
    }

    private func tooLarge() -> Refusal? {
        let limit = service.limits.maxBodyBytes
        guard limit > 0, let length = head.headers.first(name: "content-length").flatMap({ Int($0) }), length > limit
        else { return nil }
        return Refusal(answer: .error(.bodyTooLarge(limit: limit)))
    }
}
