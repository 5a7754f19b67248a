// swift-tools-version: 5.9
import PackageDescription

// Where `libmcp_sessions_uniffi` was built, for Linux and for work on the library itself:
//   MCP_SESSIONS_LIBRARY=$PWD/target/uniffi swift test --package-path bindings/uniffi/swift
let built = Context.environment["MCP_SESSIONS_LIBRARY"]

#if os(Linux)
let isSystemLibrary = true
#else
let isSystemLibrary = built != nil
#endif

let library: Target = isSystemLibrary
    // Installed where the linker looks, or in the folder above.
    ? .systemLibrary(name: "McpSessionsFFI", path: "Sources/McpSessionsFFI/include")
    // For Apple's platforms: what `scripts/xcframework` makes.
    : .binaryTarget(name: "McpSessionsFFI", path: "McpSessionsFFI.xcframework")

let linking: [LinkerSetting] = built.map { folder in
    [.unsafeFlags(["-L\(folder)", "-Xlinker", "-rpath", "-Xlinker", folder])]
} ?? []

let package = Package(
    name: "mcp-sessions",
    platforms: [.iOS(.v15), .macOS(.v12), .tvOS(.v15), .watchOS(.v8)],
    products: [
        .library(name: "McpSessions", targets: ["McpSessions"]),
    ],
    targets: [
        library,
        .target(name: "McpSessions", dependencies: ["McpSessionsFFI"], linkerSettings: linking),
        .testTarget(name: "McpSessionsTests", dependencies: ["McpSessions"]),
    ]
)
