import NIOHTTP1

/// Cross-origin headers with the rules of the Python server's CORS layer.
package struct CORSPolicy: Sendable {
    package struct Settings: Sendable, Equatable {
        package var allowedOrigins: [String] = []
        package var allowedMethods: [String] = ["*"]
        package var allowedHeaders: [String] = ["*"]
        package var allowCredentials = false
        package init() {}
    }

    /// The answer to a pre-flight request.
    struct Preflight {
        var status: HTTPResponseStatus
        var text: String
        var headers: HTTPHeaders
    }

    private static let allMethods = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY"]
    private static let safeHeaders = ["Accept", "Accept-Language", "Content-Language", "Content-Type"]

    private let origins: [String]
    private let methods: [String]
    private let headers: [String]
    private let anyOrigin: Bool
    private let anyHeader: Bool
    private let credentials: Bool

    package init(_ settings: Settings) {
        origins = settings.allowedOrigins
        methods = settings.allowedMethods.contains("*") ? Self.allMethods : settings.allowedMethods
        headers = Set(Self.safeHeaders + settings.allowedHeaders).sorted()
        anyOrigin = settings.allowedOrigins.contains("*")
        anyHeader = settings.allowedHeaders.contains("*")
        credentials = settings.allowCredentials
    }

    private func allows(_ origin: String) -> Bool { anyOrigin || origins.contains(origin) }

    /// nil if this is not a pre-flight request.
    func preflight(method: HTTPMethod, headers request: HTTPHeaders) -> Preflight? {
        guard method == .OPTIONS, let origin = request.first(name: "origin"),
            let wantedMethod = request.first(name: "access-control-request-method")
        else { return nil }
        var answer = HTTPHeaders()
        answer.add(
            name: "vary",
            value: "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, "
                + "Access-Control-Request-Private-Network")
        var failures: [String] = []
        if !allows(origin) {
            failures.append("origin")
        } else {
            answer.add(name: "access-control-allow-origin", value: anyOrigin && !credentials ? "*" : origin)
        }
        answer.add(name: "access-control-allow-methods", value: methods.joined(separator: ", "))
        answer.add(name: "access-control-max-age", value: "600")
        if credentials { answer.add(name: "access-control-allow-credentials", value: "true") }
        if !methods.contains(wantedMethod) { failures.append("method") }

        let wantedHeaders = request.first(name: "access-control-request-headers")
        if anyHeader {
            if let wantedHeaders { answer.add(name: "access-control-allow-headers", value: wantedHeaders) }
        } else {
            answer.add(name: "access-control-allow-headers", value: headers.joined(separator: ", "))
            let allowed = Set(headers.map { $0.lowercased() })
            let wanted = wantedHeaders?.split(separator: ",").map { $0.trimmingSpaces().lowercased() } ?? []
            if wanted.contains(where: { !allowed.contains($0) }) { failures.append("headers") }
        }
        if request.contains(name: "access-control-request-private-network") { failures.append("private-network") }
        guard failures.isEmpty else {
            return Preflight(
                status: .badRequest, text: "Disallowed CORS \(failures.joined(separator: ", "))", headers: answer)
        }
        return Preflight(status: .ok, text: "OK", headers: answer)
    }

    /// Adds what every other response carries. `Vary: Origin` is there even without an origin, so that caches never mix
    /// answers up.
    func decorate(_ response: inout HTTPHeaders, origin: String?) {
        if let origin {
            if credentials { response.add(name: "access-control-allow-credentials", value: "true") }
            if anyOrigin {
                response.add(name: "access-control-allow-origin", value: credentials ? origin : "*")
            } else if allows(origin) {
                response.add(name: "access-control-allow-origin", value: origin)
            }
        }
        response.add(name: "vary", value: "Origin")
    }
}

extension StringProtocol {
    func trimmingSpaces() -> SubSequence {
        var rest = self[...]
        while let first = rest.first, first == " " || first == "\t" { rest.removeFirst() }
        while let last = rest.last, last == " " || last == "\t" { rest.removeLast() }
        return rest
    }
}
