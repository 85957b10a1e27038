import NIOCore

/// Parses large bodies on the pool before their handler gets them: megabytes of JSON would hold up every stream of the
/// event loop for milliseconds.
struct LargeBodyHandler: RouteHandler {
    let api: APIContext
    let handler: any RouteHandler
    /// A member that is likely to be a long array of integers.
    var integersMember: String?

    /// Bodies up to this many bytes are parsed where they are, in some tenth of a millisecond at most.
    private static let inlineLimit = 128 * 1024

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) {
        guard request.body.readableBytes > Self.inlineLimit else { return handler.handle(request, response) }
        let (body, member) = (request.body, integersMember)
        api.offload(size: body.readableBytes, response: response) { () throws(APIError) -> ParsedBody in
            RequestBody.parse(body, takingIntegersOf: member)
        } then: { parsed in
            var request = request
            request.parsed = parsed
            handler.handle(request, response)
        }
    }
}
