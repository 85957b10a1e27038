import NIOSSL
import Synchronization

/// `ssl_*` options of `vllm serve`.
package struct TLSSettings: Sendable, Equatable {
    /// Python's `ssl.CERT_NONE`, `CERT_OPTIONAL`, `CERT_REQUIRED`: what is asked of clients.
    package enum ClientCertificates: Int, Sendable { case none, optional, required }

    package var certificateFile: String
    /// The certificate file may hold the key as well.
    package var keyFile: String
    package var authoritiesFile: String?
    package var clientCertificates = ClientCertificates.none
    /// For TLS 1.2, in OpenSSL's notation.
    package var ciphers: String?
    /// `enable_ssl_refresh`: changed files are used for new connections.
    package var refreshes = false

    package init(certificateFile: String, keyFile: String) {
        self.certificateFile = certificateFile
        self.keyFile = keyFile
    }

    /// Every file that a context is made of.
    package var files: [String] {
        var files = [certificateFile]
        if keyFile != certificateFile { files.append(keyFile) }
        if let authoritiesFile { files.append(authoritiesFile) }
        return files
    }

    /// Reads all files; an unusable one is an error here and not at the first connection.
    package func makeContext() throws -> NIOSSLContext {
        let chain = try Self.named("ssl_certfile", certificateFile) { try NIOSSLCertificate.fromPEMFile($0) }
        let key = try Self.named("ssl_keyfile", keyFile) { try NIOSSLPrivateKey(file: $0, format: .pem) }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        if let authoritiesFile { configuration.trustRoots = .file(authoritiesFile) }
        switch clientCertificates {
        case .none: configuration.certificateVerification = .none
        case .optional: configuration.certificateVerification = .optionalVerification
        case .required: configuration.certificateVerification = .noHostnameVerification
        }
        if let ciphers { configuration.cipherSuiteValues = try TLSCipherList(ciphers).ciphers }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw ServerSetupError("TLS cannot be set up with these ssl_* arguments: \(error)")
        }
    }

    private static func named<Value>(_ option: String, _ path: String, _ load: (String) throws -> Value) throws -> Value
    {
        do {
            return try load(path)
        } catch {
            throw ServerSetupError("\(option): \(path) cannot be used: \(error)")
        }
    }
}

/// The TLS context that new connections use; replacing it leaves running ones alone.
package final class TLSContextBox: Sendable {
    private let context: Mutex<NIOSSLContext>

    package init(_ context: NIOSSLContext) { self.context = Mutex(context) }

    package var current: NIOSSLContext { context.withLock { $0 } }

    package func replace(_ context: NIOSSLContext) {
        self.context.withLock { $0 = context }
    }
}
