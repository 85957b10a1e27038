import JSONBytes
import NIOCore
import NIOHTTP1

/// `/openapi.json`: the routes that exist, made from the router's own table so that it cannot drift from it.
///
/// It tells which routes and methods are there; request and response schemas are OpenAI's and vLLM's and not repeated.
package enum RouteCatalog {
    /// Call it after all other routes.
    package static func install(on router: inout Router) {
        var paths = JSONObject()
        for entry in router.sortedEntries {
            var methods = JSONObject()
            for (method, _) in entry.methods {
                let answers = JSONObject([("200", .object(JSONObject([("description", .string("OK"))])))])
                methods[method.rawValue.lowercased()] = .object(JSONObject([("responses", .object(answers))]))
            }
            paths[entry.path] = .object(methods)
        }
        let document = JSONObject([
            ("openapi", .string("3.1.0")),
            (
                "info",
                .object(
                    JSONObject([("title", .string("vllm-engine")), ("version", .string(ProductVersion.text))]))
            ),
            ("paths", .object(paths)),
        ])
        var body = ByteBuffer()
        body.appendJSON(.object(document))
        let page = body
        router.add(.GET, "/openapi.json") { _, response in response.sendJSON(page) }
    }
}
