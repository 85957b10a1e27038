import ArgumentParser

/// Where clients connect and what guards the door.
package struct ListenOptions: ParsableArguments {
    @Option(help: "Address to listen on; 0.0.0.0 or :: for all interfaces.")
    package var host = ServeConfiguration.defaultHost

    @Option(help: "Port to listen on; 0 lets the system choose.")
    package var port = ServeConfiguration.defaultPort

    @Option(help: ArgumentHelp("Unix socket to listen on instead of host and port.", valueName: "path"))
    package var uds: String?

    @Option(help: ArgumentHelp("Private key (PEM); default: in the certificate's file.", valueName: "path"))
    package var sslKeyfile: String?

    @Option(help: ArgumentHelp("Certificate chain (PEM); turns TLS on.", valueName: "path"))
    package var sslCertfile: String?

    @Option(help: ArgumentHelp("Certificate authorities of clients (mutual TLS).", valueName: "path"))
    package var sslCaCerts: String?

    @Option(help: "Client certificates: 0 = not asked for, 1 = optional, 2 = required.")
    package var sslCertReqs: Int?

    @Option(help: "Cipher list for TLS 1.2 and below, in OpenSSL's notation.")
    package var sslCiphers: String?

    @Flag(help: "Use changed certificate files without a restart.")
    package var enableSslRefresh = false

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("Keys of which clients must send one; also VLLM_API_KEY.", valueName: "key"))
    package var apiKey: [String] = []

    @Option(help: ArgumentHelp("Origins that browsers may call from, as a JSON list.", valueName: "json"))
    package var allowedOrigins: JSONOption?

    @Option(help: ArgumentHelp("Methods for them.", valueName: "json"))
    package var allowedMethods: JSONOption?

    @Option(help: ArgumentHelp("Headers for them.", valueName: "json"))
    package var allowedHeaders: JSONOption?

    @Flag(help: "Allow browsers to send credentials.")
    package var allowCredentials = false

    @Option(help: ArgumentHelp("Path prefix that a proxy strips.", valueName: "path"))
    package var rootPath: String?

    @Option(name: .customLong("h11-max-incomplete-event-size"), help: "Most bytes of a request head.")
    package var maxIncompleteEventSize: Int?

    @Option(name: .customLong("h11-max-header-count"), help: "Most headers of a request.")
    package var maxHeaderCount: Int?

    @Flag(help: "Echo X-Request-Id, or add one.")
    package var enableRequestIdHeaders = false

    @Flag(help: "No access log.")
    package var disableUvicornAccessLog = false

    @Flag(help: "No /docs and /openapi.json.")
    package var disableFastapiDocs = false

    package init() {}

    package mutating func validate() throws {
        if let sslCertReqs, !(0...2).contains(sslCertReqs) {
            throw ValidationError("--ssl-cert-reqs must be 0, 1 or 2")
        }
        if sslCertfile == nil, sslKeyfile != nil || sslCaCerts != nil || (sslCertReqs ?? 0) > 0 || enableSslRefresh {
            throw ValidationError(
                "--ssl-keyfile, --ssl-ca-certs, --ssl-cert-reqs and --enable-ssl-refresh need --ssl-certfile")
        }
        if let sslCertReqs, sslCertReqs > 0, sslCaCerts == nil {
            throw ValidationError("--ssl-cert-reqs \(sslCertReqs) needs --ssl-ca-certs")
        }
    }

    func add(to arguments: inout FrontendArguments) {
        if host != ServeConfiguration.defaultHost { arguments.set("host", host) }
        if port != ServeConfiguration.defaultPort { arguments.set("port", Int(port)) }
        arguments.set("uds", uds)
        arguments.set("ssl_keyfile", sslKeyfile)
        arguments.set("ssl_certfile", sslCertfile)
        arguments.set("ssl_ca_certs", sslCaCerts)
        arguments.set("ssl_cert_reqs", sslCertReqs)
        arguments.set("ssl_ciphers", sslCiphers)
        arguments.set("enable_ssl_refresh", enableSslRefresh ? true : nil)
        arguments.set("api_key", apiKey)
        arguments.set("allowed_origins", allowedOrigins)
        arguments.set("allowed_methods", allowedMethods)
        arguments.set("allowed_headers", allowedHeaders)
        arguments.set("allow_credentials", allowCredentials ? true : nil)
        arguments.set("root_path", rootPath)
        arguments.set("h11_max_incomplete_event_size", maxIncompleteEventSize)
        arguments.set("h11_max_header_count", maxHeaderCount)
        arguments.set("enable_request_id_headers", enableRequestIdHeaders ? true : nil)
        arguments.set("disable_uvicorn_access_log", disableUvicornAccessLog ? true : nil)
        arguments.set("disable_fastapi_docs", disableFastapiDocs ? true : nil)
    }
}
