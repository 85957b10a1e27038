import EngineProtocol
import ZMTP

/// Where the engines are and how to talk to them.
package struct EngineClientConfiguration: Sendable {
    package typealias Endpoint = ZMTPSocket.Origin

    /// ROUTER: requests to engines, registrations from them.
    package var input: Endpoint
    /// PULL: outputs of all engines.
    package var output: Endpoint
    /// First expected engine rank.
    package var engineStartIndex = 0
    package var engineCount = 1
    /// Which of several frontends this is: engines answer on the output socket of that index.
    package var clientIndex = 0
    /// How many frontends use the engines.
    package var clientCount = 1
    /// Publishes loads and wave changes; nil takes the address that an engine registers with, if any.
    package var coordinatorAddress: String?
    /// How long all engines may take to register.
    package var readyTimeout: Duration = .seconds(600)
    /// Nil takes it from the version that the engines register with.
    package var family: ProtocolFamily?
    /// A supervisor replaces engines that die, and says which one did: a bare sentinel among several engines is then not
    /// taken for the death of all.
    package var enginesAreReplaced = false
    /// Nobody else says when an engine dies: one whose connection is gone for ``reconnectTime`` counts as dead.
    package var watchesConnections = false
    /// How long an engine may take to come back after a broken connection.
    package var reconnectTime: Duration = .seconds(1)
    /// Largest message accepted from an engine, in bytes.
    package var maxFrameSize: Int64 = 1 << 30
    /// Bytes that an engine may leave unread before new requests for it fail: it stands still.
    package var maxQueuedBytes = 1 << 28

    package init(input: Endpoint, output: Endpoint) {
        self.input = input
        self.output = output
    }

    /// Ranks are two bytes on the wire, and there are fewer frontends than that.
    var isValid: Bool {
        engineStartIndex >= 0 && engineCount >= 1 && engineStartIndex <= 65_536 && engineCount <= 65_536
            && engineStartIndex + engineCount <= 65_536 && (1...65_536).contains(clientCount)
            && (0..<65_536).contains(clientIndex)
    }

    /// The expected engines.
    var ranks: Range<Int> { engineStartIndex..<(engineStartIndex + engineCount) }
}
