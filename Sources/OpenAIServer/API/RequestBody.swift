import JSONBytes
import NIOCore
import NIOHTTP1

/// What the parser made of a body.
struct ParsedBody: Sendable {
    let value: Result<JSONValue, APIError>
    /// The integers of the member that was asked for, which is then not in the value.
    let integers: [Int32]?
}

/// Turns the bytes of a request body into a JSON object, with the errors of the Python server.
enum RequestBody {
    static func object(_ request: HTTPRequest) throws(APIError) -> JSONObject {
        try object(request, takingIntegersOf: nil).object
    }

    /// - Returns: the integers of the array `member`, if it is one, apart from the rest of the object.
    static func object(_ request: HTTPRequest, takingIntegersOf member: String?) throws(APIError)
        -> (object: JSONObject, integers: [Int32]?)
    {
        try checkContentType(request.headers)
        guard request.body.readableBytes > 0 else {
            throw .invalidBody("1 validation error:\n  body: Field required", param: "body")
        }
        let parsed = request.parsed ?? parse(request.body, takingIntegersOf: member)
        switch try parsed.value.get() {
        case .object(let object): return (object, parsed.integers)
        case .null: throw .invalidBody("1 validation error:\n  body: Field required", param: "body")
        default:
            throw .invalidBody("1 validation error:\n  body: Input should be a valid dictionary", param: "body")
        }
    }

    static func parse(_ body: ByteBuffer, takingIntegersOf member: String?) -> ParsedBody {
        body.withUnsafeReadableBytes { bytes in
            do throws(JSONError) {
                let (value, integers) = try JSONValue.parse(
                    bytes.bindMemory(to: UInt8.self), takingIntegersOf: member)
                return ParsedBody(value: .success(value), integers: integers)
            } catch {
                return ParsedBody(value: .failure(apiError(error, bytes: bytes)), integers: nil)
            }
        }
    }

    private static func apiError(_ error: JSONError, bytes: UnsafeRawBufferPointer) -> APIError {
        switch error.kind {
        case .invalidUTF8: return .unparsableBody
        // Python reads a lone surrogate and fails when the text is encoded for the tokenizer.
        case .loneSurrogate: return .badRequest("The text contains a lone surrogate and cannot be encoded as UTF-8.")
        case .tooLarge, .tooDeep: return .badRequest("There was an error parsing the body: \(error.message)")
        case .syntax:
            let offset = error.characterOffset(in: bytes)
            return .invalidBody(
                "1 validation error:\n  body.\(offset): JSON decode error: \(error.message)", param: "body.\(offset)")
        }
    }

    private static func checkContentType(_ headers: HTTPHeaders) throws(APIError) {
        guard let type = headers.first(name: "content-type") else { throw unsupportedMediaType }
        let media = type.prefix { $0 != ";" }.lowercased()
        guard media.trimmingSpaces() == "application/json" else { throw unsupportedMediaType }
    }

    private static var unsupportedMediaType: APIError {
        .invalidBody("1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed", param: nil)
    }
}

extension String {
    func trimmingSpaces() -> Substring {
        var slice = self[...]
        while slice.first == " " || slice.first == "\t" { slice.removeFirst() }
        while slice.last == " " || slice.last == "\t" { slice.removeLast() }
        return slice
    }
}
