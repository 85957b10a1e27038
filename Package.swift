// swift-tools-version: 6.1
import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    // Debug builds, and so all tests, check exclusive access at run time; in release it costs 4 % of a streamed token.
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let nioSSL: Target.Dependency = .product(name: "NIOSSL", package: "swift-nio-ssl")
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "vllm-engine",
    products: [
        .executable(name: "vllm-engine", targets: ["vllm-engine"]),
        .executable(name: "vllm-swift", targets: ["vllm-swift"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // Executables: thin mains, all logic lives in the modules below.
        .executableTarget(
            name: "vllm-engine", dependencies: ["Measurement", "Supervision", argumentParser, logging],
            swiftSettings: settings),
        .executableTarget(
            name: "vllm-swift", dependencies: ["CProcessShims", "OpenAIServer", logging], swiftSettings: settings),

        // Supervisor side.
        .target(name: "CProcessShims"),
        .target(
            name: "Supervision",
            dependencies: [
                "CProcessShims", "EngineHandshake", "EngineProtocol", "JSONBytes", "ZeroMQ", argumentParser, logging,
            ],
            swiftSettings: settings),

        .target(
            name: "Measurement",
            dependencies: [
                "CProcessShims", "JSONBytes", "Supervision", "Tokenization", nioCore, nioPosix, nioSSL, argumentParser,
            ], swiftSettings: settings),

        // Both sides.
        .target(name: "EngineHandshake", dependencies: ["EngineProtocol", "ZeroMQ"], swiftSettings: settings),

        // Frontend side, top to bottom.
        .target(
            name: "OpenAIServer",
            dependencies: [
                "CIOUring", "Chat", "EngineClient", "EngineHandshake", "EngineProtocol", "JSONBytes", "MessagePack",
                "Metrics",
                "Text",
                "Tokenization", "ZMTP", "ZeroMQ", nioCore, nioHTTP1, nioPosix, nioSSL, logging,
            ],
            swiftSettings: settings),
        .target(name: "CIOUring"),
        .target(name: "Chat", dependencies: ["JSONBytes", "Jinja", "Text"], swiftSettings: settings),
        .target(name: "Text", dependencies: ["EngineProtocol", "JSONBytes", "Tokenization"], swiftSettings: settings),
        .target(
            name: "EngineClient", dependencies: ["EngineProtocol", "ZMTP", nioCore, logging],
            swiftSettings: settings),
        .target(name: "ZMTP", dependencies: [nioCore, nioPosix], swiftSettings: settings),
        .target(
            name: "EngineProtocol", dependencies: ["MessagePack"], exclude: ["README.md"], swiftSettings: settings),
        .target(name: "ZeroMQ", dependencies: ["CZeroMQ"], swiftSettings: settings),
        .systemLibrary(name: "CZeroMQ", providers: [.apt(["libzmq3-dev"])]),

        // Leaves: no NIO, no Foundation.
        .target(name: "MessagePack", swiftSettings: settings),
        .target(name: "JSONBytes", swiftSettings: settings),
        .target(name: "Jinja", dependencies: ["JSONBytes"], swiftSettings: settings),
        .target(name: "Tokenization", dependencies: ["CPCRE2", "JSONBytes"], swiftSettings: settings),
        .systemLibrary(name: "CPCRE2", providers: [.apt(["libpcre2-dev"])]),
        .target(name: "Metrics", swiftSettings: settings),

        // Tests: one suite per module, plus the end-to-end suite in Tests/e2e (Python).
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: settings),
        .testTarget(name: "MessagePackTests", dependencies: ["MessagePack", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "EngineProtocolTests", dependencies: ["EngineProtocol", "MessagePack", "JSONBytes", "TestSupport"],
            resources: [.copy("Fixtures")], swiftSettings: settings),
        .testTarget(
            name: "EngineClientTests",
            dependencies: [
                "EngineClient", "EngineProtocol", "MessagePack", "ZeroMQ", "ZMTP", "TestSupport", nioCore, nioPosix,
                logging,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "ZMTPTests", dependencies: ["ZMTP", "ZeroMQ", nioCore, nioPosix], swiftSettings: settings),
        .testTarget(name: "JSONBytesTests", dependencies: ["JSONBytes", "TestSupport"], swiftSettings: settings),
        .testTarget(
            name: "JinjaTests", dependencies: ["Jinja", "JSONBytes", "TestSupport"], resources: [.copy("Fixtures")],
            swiftSettings: settings),
        .testTarget(
            name: "TokenizationTests", dependencies: ["Tokenization", "JSONBytes", "TestSupport"],
            resources: [.copy("Fixtures")],
            swiftSettings: settings),
        .testTarget(name: "MetricsTests", dependencies: ["Metrics"], swiftSettings: settings),
        .testTarget(
            name: "TextTests", dependencies: ["Text", "Tokenization", "EngineProtocol", "JSONBytes"],
            swiftSettings: settings),
        .testTarget(
            name: "ChatTests", dependencies: ["Chat", "Jinja", "JSONBytes", "TestSupport"],
            resources: [.copy("Fixtures")],
            swiftSettings: settings),
        .testTarget(
            name: "OpenAIServerTests",
            dependencies: [
                "EngineClient", "EngineProtocol", "JSONBytes", "MessagePack", "Metrics", "OpenAIServer", nioCore,
                nioEmbedded, nioHTTP1, nioPosix, nioSSL, logging,
            ],
            resources: [.copy("Fixtures")], swiftSettings: settings),
        .testTarget(
            name: "SupervisionTests",
            dependencies: [
                "Supervision", "EngineHandshake", "EngineProtocol", "JSONBytes", "MessagePack", "ZeroMQ", "vllm-engine",
                argumentParser, logging,
            ],
            swiftSettings: settings),
        .testTarget(
            name: "MeasurementTests",
            dependencies: ["Measurement", "JSONBytes", nioCore, nioPosix, argumentParser],
            resources: [.copy("Fixtures")], swiftSettings: settings),
    ]
)
