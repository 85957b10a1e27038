import EngineProtocol
import Synchronization

/// A request on its way from an event loop to the client's.
final class PendingRequest: Sendable {
    let request: EngineCoreRequest
    let inbox: any OutputInbox
    let receiver: any RequestReceiver

    init(request: EngineCoreRequest, inbox: any OutputInbox, receiver: any RequestReceiver) {
        self.request = request
        self.inbox = inbox
        self.receiver = receiver
    }
}

typealias StatsObserver = @Sendable (_ engine: Int, _ stats: SchedulerStats) -> Void
typealias IterationObserver = @Sendable (_ engine: Int, _ tokens: Int) -> Void
typealias StateObserver = @Sendable (EngineClientState) -> Void
typealias UtilityCompletion = @Sendable (Result<[UtilityOutput], EngineFailure>) -> Void
typealias ReadyWaiter = @Sendable (Result<EngineInformation, EngineFailure>) -> Void

enum Command: Sendable {
    case add(RequestHandle, PendingRequest)
    case abort(RequestHandle)
    /// Of the engine of that rank, or of all.
    case utility(String, [UInt8], rank: Int?, UtilityCompletion)
    case markHung(Set<Int>)
    case failRequests(rank: Int, EngineFailure)
    case engineDied(reason: String)
    case observeStats(StatsObserver)
    case observeIterations(IterationObserver)
    case observeState(StateObserver)
    case awaitReady(ReadyWaiter)
    case shutdown(drainTimeout: Duration, completion: @Sendable () -> Void)
}

/// Commands from any thread to the client's event loop, and the slot numbers both sides share.
///
/// Many commands cost one wake: only the one that finds the mailbox empty asks for the consumer.
final class Mailbox: Sendable {
    private struct State: ~Copyable {
        var commands: [Command] = []
        var isClosed = false
        /// Makes the consumer come; nil before it is there.
        var wake: (@Sendable () -> Void)?
        var freeSlots: [UInt32] = []
        /// Per slot ever used; a handle is valid while its generation is the slot's.
        var generations: [UInt32] = []
    }

    private let state = Mutex(State())

    /// - Returns: false when the client has ended and nobody will see the command.
    func post(_ command: Command) -> Bool {
        let (accepted, wake) = state.withLock { state -> (Bool, (@Sendable () -> Void)?) in
            if state.isClosed { return (false, nil) }
            state.commands.append(command)
            return (true, state.commands.count == 1 ? state.wake : nil)
        }
        wake?()
        return accepted
    }

    enum Admission {
        case accepted(RequestHandle)
        case full
        case closed
    }

    /// Takes a slot and posts the request.
    func add(_ pending: PendingRequest) -> Admission {
        let (admission, wake) = state.withLock { state -> (Admission, (@Sendable () -> Void)?) in
            if state.isClosed { return (.closed, nil) }
            let slot: UInt32
            if let free = state.freeSlots.popLast() {
                slot = free
            } else if state.generations.count < WireRequestID.slotLimit {
                slot = UInt32(state.generations.count)
                state.generations.append(0)
            } else {
                return (.full, nil)
            }
            let handle = RequestHandle(slot: slot, generation: state.generations[Int(slot)])
            state.commands.append(.add(handle, pending))
            return (.accepted(handle), state.commands.count == 1 ? state.wake : nil)
        }
        wake?()
        return admission
    }

    // MARK: - The consumer

    /// - Parameter wake: runs on any thread, when the mailbox is no longer empty; at once if it is not empty now.
    func setConsumer(_ wake: @escaping @Sendable () -> Void) {
        let isWaiting = state.withLock { state in
            state.wake = wake
            return !state.commands.isEmpty
        }
        if isWaiting { wake() }
    }

    /// Swaps the waiting commands with the (empty) array given, so that both keep their memory.
    func drain(into batch: inout [Command]) { state.withLock { swap(&$0.commands, &batch) } }

    /// Gives slots back; their handles become invalid.
    func release(_ slots: [UInt32]) {
        state.withLock { state in
            for slot in slots {
                state.generations[Int(slot)] &+= 1
                state.freeSlots.append(slot)
            }
        }
    }

    /// Refuses further commands.
    /// - Returns: those that were still waiting.
    func close() -> [Command] {
        state.withLock { state in
            state.isClosed = true
            state.wake = nil
            defer { state.commands = [] }
            return state.commands
        }
    }
}
