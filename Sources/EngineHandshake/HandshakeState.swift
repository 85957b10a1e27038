import EngineProtocol

/// Start-up of a group of engines as their host sees it: HELLO → INIT → READY for each. No I/O.
package struct HandshakeState {
    package enum Phase: Equatable, Sendable { case awaitingHello, awaitingReady, ready }

    package enum Action: Equatable {
        /// Answer with INIT.
        case sendInit(rank: Int)
        case engineReady(rank: Int)
        /// An engine of another machine has died; `returns`: another process is to take its place.
        case engineLost(rank: Int, returns: Bool)
        /// An engine of another machine that was ready begins anew.
        case engineReturned(rank: Int)
    }

    /// A violation of the protocol.
    package struct Violation: Error, Equatable, CustomStringConvertible {
        package let description: String
    }

    private let firstRank: Int
    private let localRanks: Range<Int>
    private let remoteAreHeadless: Bool
    private let mayReturn: Bool
    private var phases: [Phase]
    private var instances: [String?]
    package private(set) var parallelConfigHash: String?

    /// - Parameters:
    ///   - ranks: that are expected.
    ///   - localRanks: those of them that are started here.
    ///   - remoteAreHeadless: the others have no frontends of their own.
    ///   - mayReturn: engines that others start, anywhere; one that is started again may connect again.
    package init(ranks: Range<Int>, localRanks: Range<Int>, remoteAreHeadless: Bool = true, mayReturn: Bool = false) {
        firstRank = ranks.lowerBound
        self.localRanks = localRanks
        self.remoteAreHeadless = remoteAreHeadless
        self.mayReturn = mayReturn
        phases = Array(repeating: .awaitingHello, count: ranks.count)
        instances = Array(repeating: nil, count: ranks.count)
    }

    package var isComplete: Bool { phases.allSatisfy { $0 == .ready } }

    package func phase(ofRank rank: Int) -> Phase? {
        phases.indices.contains(rank - firstRank) ? phases[rank - firstRank] : nil
    }

    /// Which process it is that is ready, if the engine says so.
    package func instance(ofRank rank: Int) -> String? {
        phases.indices.contains(rank - firstRank) ? instances[rank - firstRank] : nil
    }

    /// The engine has died, another process with that rank will start.
    package mutating func expectAgain(rank: Int) {
        guard phases.indices.contains(rank - firstRank) else { return }
        phases[rank - firstRank] = .awaitingHello
        instances[rank - firstRank] = nil
    }

    /// Ranks that are not ready, with what they are expected to do next.
    package var waitingFor: [(rank: Int, phase: Phase)] {
        phases.enumerated().filter { $0.element != .ready }.map { (firstRank + $0.offset, $0.element) }
    }

    private func checkOrigin(_ rank: Int, _ message: EngineHandshakeMessage) throws(Violation) {
        let said = "(local=\(message.isLocal), headless=\(message.isHeadless))"
        if localRanks.contains(rank) {
            guard message.isLocal, !message.isHeadless else {
                throw Violation(
                    description: "engine \(rank) says that it was started elsewhere \(said); "
                        + "expected the one started here")
            }
            return
        }
        guard !message.isLocal, message.isHeadless == remoteAreHeadless else {
            throw Violation(
                description: "engine \(rank) \(said) is expected from another machine, "
                    + (remoteAreHeadless ? "started with --headless" : "with a frontend of its own"))
        }
    }

    /// - Parameter identity: the ROUTER's first frame; the rest of the message follows as `payload`.
    package mutating func receive(
        identity: [UInt8], _ message: EngineHandshakeMessage
    ) throws(Violation) -> Action {
        guard let rank = EngineIdentity.rank(identity), phase(ofRank: rank) != nil else {
            let shown = identity.prefix(16).map { String($0, radix: 16) }.joined(separator: " ")
            throw Violation(
                description: "an engine with the unexpected identity [\(shown)] connected; expected "
                    + (phases.count == 1
                        ? "rank \(firstRank)" : "ranks \(firstRank) to \(firstRank + phases.count - 1)"))
        }
        let index = rank - firstRank
        switch (phases[index], message.status) {
        case (_, .hello) where mayReturn:
            phases[index] = .awaitingReady
            return .sendInit(rank: rank)
        case (.awaitingHello, .hello):
            try checkOrigin(rank, message)
            phases[index] = .awaitingReady
            return .sendInit(rank: rank)
        case (.awaitingReady, .ready):
            if let hash = message.parallelConfigHash {
                if let parallelConfigHash, parallelConfigHash != hash {
                    throw Violation(description: "engine \(rank) has another parallel configuration than the others")
                }
                parallelConfigHash = hash
            }
            phases[index] = .ready
            instances[index] = message.instanceID
            return .engineReady(rank: rank)
        case (_, .lost):
            try checkOrigin(rank, message)
            return .engineLost(rank: rank, returns: message.returns)
        case (.ready, .hello) where !localRanks.contains(rank):
            try checkOrigin(rank, message)
            return .engineReturned(rank: rank)
        case (_, .hello):
            throw Violation(
                description: "engine \(rank) connected twice: is there a second engine with the same --engine-index?")
        case (.awaitingHello, .ready):
            throw Violation(description: "engine \(rank) sent READY before HELLO")
        case (.ready, .ready):
            throw Violation(description: "engine \(rank) sent READY twice")
        }
    }
}
