import NIOHTTP1

/// How a route is treated by the layers around its handler.
package struct RouteOptions: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Makes an engine work: counted by `/load`, refused while the server drains.
    package static let work = RouteOptions(rawValue: 1)
    /// Asked all the time by machines: left out of the HTTP metrics and of the log.
    package static let probe = RouteOptions(rawValue: 2)
}

/// Exact paths to handlers.
package struct Router: Sendable {
    struct Entry: Sendable {
        let path: String
        var options: RouteOptions
        var methods: [(method: HTTPMethod, handler: any RouteHandler)]

        func handler(for method: HTTPMethod) -> (any RouteHandler)? {
            methods.first { $0.method == method }?.handler
        }

        var allow: String { methods.map(\.method.rawValue).joined(separator: ", ") }
    }

    private var entries: [String: Entry] = [:]

    package init() {}

    /// Registers a handler; the same method and path twice is a programming error.
    package mutating func add(_ method: HTTPMethod, _ path: String, _ handler: any RouteHandler) {
        add(method, path, [], handler)
    }

    package mutating func add(
        _ method: HTTPMethod, _ path: String, _ options: RouteOptions, _ handler: any RouteHandler
    ) {
        var entry = entries[path] ?? Entry(path: path, options: options, methods: [])
        precondition(entry.handler(for: method) == nil, "route \(method) \(path) registered twice")
        entry.methods.append((method, handler))
        entry.options.formUnion(options)
        entries[path] = entry
    }

    package mutating func add(
        _ method: HTTPMethod, _ path: String, _ options: RouteOptions = [],
        handle: @escaping @Sendable (HTTPRequest, any ResponseWriter) -> Void
    ) {
        add(method, path, options, ClosureHandler(body: handle))
    }

    /// There is nothing that could be asked for.
    var isEmpty: Bool { entries.isEmpty }

    func entry(for path: String) -> Entry? { entries[path] }

    package func has(_ method: HTTPMethod, _ path: String) -> Bool {
        entries[path]?.handler(for: method) != nil
    }

    var sortedEntries: [Entry] { entries.values.sorted { $0.path < $1.path } }

    /// One line for the log: `GET /health, GET POST /ping`.
    var summary: String {
        sortedEntries.map { "\($0.methods.map(\.method.rawValue).joined(separator: " ")) \($0.path)" }
            .joined(separator: ", ")
    }
}

private struct ClosureHandler: RouteHandler {
    let body: @Sendable (HTTPRequest, any ResponseWriter) -> Void

    func handle(_ request: HTTPRequest, _ response: any ResponseWriter) { body(request, response) }
}
