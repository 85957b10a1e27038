import NIOCore
import NIOHTTP1
import OpenAIServer
import Testing

/// Expected values are those of the Python server (recorded from vLLM 0.32).
@Suite struct MiddlewareTests {
    @Test func unknownPathsAndMethods() throws {
        let wire = try WireConnection()
        defer { wire.close() }
        let missing = try wire.get("/no/such/route")
        #expect(missing.status == 404)
        #expect(missing.body == "{\"detail\":\"Not Found\"}")
        #expect(missing.headers.first(name: "content-type") == "application/json")

        let wrong = try wire.get("/echo")
        #expect(wrong.status == 405)
        #expect(wrong.body == "{\"detail\":\"Method Not Allowed\"}")
        #expect(wrong.headers.first(name: "allow") == "POST")

        try wire.send("HEAD /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n")
        let head = try wire.receive()
        #expect(head.hasPrefix("HTTP/1.1 405 "))
        #expect(head.contains("allow: GET\r\n"))
        #expect(head.hasSuffix("\r\n\r\n"))

        let slash = try wire.get("/v1/echo/?a=1")
        #expect(slash.status == 307)
        #expect(slash.headers.first(name: "location") == "/v1/echo?a=1")
    }

    @Test func apiKeysGuardTheirPrefixesOnly() throws {
        let wire = try WireConnection(configure: { $0.apiKeys = ["sk-conf", "sk-two"] })
        defer { wire.close() }
        for header in [
            "", "Authorization: Bearer nope\r\n", "Authorization: sk-conf\r\n", "Authorization: Basic sk-conf\r\n",
        ] {
            let refused = try wire.get("/v1/echo", headers: header)
            #expect(refused.status == 401)
            #expect(refused.body == "{\"error\":\"Unauthorized\"}")
            #expect(refused.headers.first(name: "vary") == nil)
        }
        #expect(try wire.get("/v1/no/such/route").status == 401)
        #expect(try wire.get("/v1/echo", headers: "Authorization: Bearer sk-conf\r\n").status == 200)
        #expect(try wire.get("/v1/echo", headers: "Authorization: bearer sk-two\r\n").status == 200)
        #expect(try wire.post("/echo", "open").status == 200)
        #expect(
            try wire.exchange("OPTIONS /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n").status == 405)
    }

    @Test func keyCheckDoesNotWaitForTheBody() throws {
        let wire = try WireConnection(configure: { $0.apiKeys = ["k"] })
        defer { wire.close() }
        let response = try wire.exchange("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
        #expect(response.status == 401)
        #expect(response.headers.first(name: "connection") == "close")
    }

    @Test(arguments: [
        ("sk-conf", "sk-conf", true), ("sk-conf", "sk-con", false), ("sk-conf", "sk-confsk-conf", false),
        ("sk-conf", "", false), ("a", "aa", false), ("é", "é", true),
    ])
    func keysAreComparedWhole(_ key: String, _ token: String, _ expected: Bool) {
        let guarded = APIKeyGuard(keys: ["other", key])
        #expect(
            guarded.allows(method: .GET, path: "/v1/x", headers: ["authorization": "Bearer \(token)"]) == expected)
    }

    @Test func corsAnswersOfAListedOrigin() throws {
        let wire = try WireConnection(configure: { $0.cors.allowedOrigins = ["http://ok.example"] })
        defer { wire.close() }
        let simple = try wire.get("/v1/echo", headers: "Origin: http://ok.example\r\n")
        #expect(simple.headers.first(name: "access-control-allow-origin") == "http://ok.example")
        #expect(simple.headers.first(name: "vary") == "Origin")
        let denied = try wire.get("/v1/echo", headers: "Origin: http://evil.example\r\n")
        #expect(denied.status == 200)
        #expect(denied.headers.first(name: "access-control-allow-origin") == nil)
        #expect(try wire.get("/v1/echo").headers.first(name: "vary") == "Origin")

        let preflight = try wire.exchange(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://ok.example\r\n"
                + "Access-Control-Request-Method: POST\r\n"
                + "Access-Control-Request-Headers: content-type,authorization\r\n\r\n")
        #expect(preflight.status == 200)
        #expect(preflight.body == "OK")
        #expect(preflight.headers.first(name: "content-type") == "text/plain; charset=utf-8")
        #expect(preflight.headers.first(name: "access-control-allow-origin") == "http://ok.example")
        #expect(
            preflight.headers.first(name: "access-control-allow-methods")
                == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY")
        #expect(preflight.headers.first(name: "access-control-allow-headers") == "content-type,authorization")
        #expect(preflight.headers.first(name: "access-control-max-age") == "600")
        #expect(
            preflight.headers.first(name: "vary")
                == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, "
                + "Access-Control-Request-Private-Network")

        let refused = try wire.exchange(
            "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n"
                + "Access-Control-Request-Method: BREW\r\n\r\n")
        #expect(refused.status == 400)
        #expect(refused.body == "Disallowed CORS origin, method")
        #expect(refused.headers.first(name: "access-control-allow-origin") == nil)
    }

    @Test func corsWildcardWithAndWithoutCredentials() throws {
        let open = try WireConnection(configure: { $0.cors.allowedOrigins = ["*"] })
        defer { open.close() }
        let any = try open.get("/v1/echo", headers: "Origin: http://a.example\r\n")
        #expect(any.headers.first(name: "access-control-allow-origin") == "*")
        #expect(any.headers.first(name: "access-control-allow-credentials") == nil)

        let credentials = try WireConnection(configure: {
            $0.cors.allowedOrigins = ["*"]
            $0.cors.allowCredentials = true
        })
        defer { credentials.close() }
        let mirrored = try credentials.get("/v1/echo", headers: "Origin: http://a.example\r\n")
        #expect(mirrored.headers.first(name: "access-control-allow-origin") == "http://a.example")
        #expect(mirrored.headers.first(name: "access-control-allow-credentials") == "true")
        #expect(mirrored.headers.first(name: "vary") == "Origin")
    }

    @Test func corsRefusesUnlistedHeaders() throws {
        let wire = try WireConnection(configure: {
            $0.cors.allowedOrigins = ["*"]
            $0.cors.allowedHeaders = ["X-One"]
            $0.cors.allowedMethods = ["GET"]
        })
        defer { wire.close() }
        let request =
            "OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: a\r\nAccess-Control-Request-Method: GET\r\n"
            + "Access-Control-Request-Headers: "
        let good = try wire.exchange(request + "x-one, Accept\r\n\r\n")
        #expect(good.status == 200)
        #expect(
            good.headers.first(name: "access-control-allow-headers")
                == "Accept, Accept-Language, Content-Language, Content-Type, X-One")
        let bad = try wire.exchange(request + "x-two\r\n\r\n")
        #expect(bad.status == 400)
        #expect(bad.body == "Disallowed CORS headers")
    }

    @Test func requestIDsAreEchoedOrMadeUpOnlyWhenEnabled() throws {
        let off = try WireConnection()
        defer { off.close() }
        #expect(try off.get("/v1/echo", headers: "X-Request-Id: a-1\r\n").headers.first(name: "x-request-id") == nil)

        let on = try WireConnection(configure: {
            $0.enableRequestIDHeaders = true
            $0.apiKeys = ["k"]
        })
        defer { on.close() }
        #expect(try on.get("/nowhere", headers: "X-Request-Id: a-1\r\n").headers.first(name: "x-request-id") == "a-1")
        #expect(try on.get("/v1/x", headers: "X-Request-Id: a-2\r\n").headers.first(name: "x-request-id") == "a-2")
        let made = try #require(try on.post("/echo").headers.first(name: "x-request-id"))
        #expect(made.count == 32)
        #expect(made.allSatisfy { $0.isHexDigit })
    }

    @Test func rootPathIsOptionalInFrontOfEveryRoute() throws {
        let wire = try WireConnection(configure: {
            $0.rootPath = "/api/"
            $0.apiKeys = ["k"]
        })
        defer { wire.close() }
        #expect(try wire.post("/api/echo", "x").status == 200)
        #expect(try wire.post("/echo", "x").status == 200)
        #expect(try wire.post("/apiecho", "x").status == 404)
        #expect(try wire.get("/api/v1/echo").status == 401)
    }
}
