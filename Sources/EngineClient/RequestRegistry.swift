import EngineProtocol
import Glibc

/// The running requests, by slot, and what waits to be delivered to their inboxes. On the client's event loop only.
struct RequestRegistry {
    private struct Slot {
        /// Nil when the slot is free.
        var receiver: (any RequestReceiver)?
        /// The same, for deliveries; meaningless when the slot is free.
        var target: ReceiverReference?
        var generation: UInt32 = 0
        var engine = 0
        var inbox = 0
        var wireID = ""
        /// Of the weights that its last output came from; 0 = none yet.
        var weightEpoch: UInt32 = 0
    }

    private struct Inbox {
        var inbox: (any OutputInbox)?
        var requests = 0
        var batch: [Delivery] = []
        /// Receivers of requests that are over, kept until what was delivered to them has arrived.
        var retired: [any RequestReceiver] = []
        /// The size of the last batch: the next one is likely to be as large.
        var expected = 0

        var isIdle: Bool { batch.isEmpty && retired.isEmpty }
    }

    let ids: WireRequestID
    private var slots: [Slot] = []
    private var inboxes: [Inbox] = []
    private var inboxIndexes: [ObjectIdentifier: Int] = [:]
    private var freeInboxes: [Int] = []
    /// Inboxes with something to deliver.
    private var touched: [Int] = []
    private(set) var count = 0
    /// Slots to give back to the mailbox.
    var released: [UInt32] = []

    init(ids: WireRequestID) { self.ids = ids }

    // MARK: - Life of a request

    /// - Returns: the id for the wire.
    mutating func insert(_ handle: RequestHandle, _ pending: PendingRequest, engine: Int) -> String {
        let index = Int(handle.slot)
        while slots.count <= index { slots.append(Slot()) }
        let wireID = ids.make(pending.request.requestID, slot: handle.slot, generation: handle.generation)
        slots[index] = Slot(
            receiver: pending.receiver, target: ReceiverReference(pending.receiver), generation: handle.generation,
            engine: engine, inbox: retainInbox(pending.inbox), wireID: wireID)
        count += 1
        return wireID
    }

    /// Frees the slot of a finished or aborted request.
    mutating func remove(_ slot: Int) {
        let inbox = slots[slot].inbox
        if let receiver = slots[slot].receiver {
            touch(inbox)
            inboxes[inbox].retired.append(receiver)
        }
        slots[slot] = Slot()
        count -= 1
        released.append(UInt32(slot))
        inboxes[inbox].requests -= 1
        if inboxes[inbox].requests == 0 { dropInboxIfIdle(inbox) }
    }

    /// The slot of a running request.
    func find(_ handle: RequestHandle) -> Int? {
        let index = Int(handle.slot)
        guard index < slots.count, slots[index].receiver != nil, slots[index].generation == handle.generation else {
            return nil
        }
        return index
    }

    /// The slot of the running request with that id on the wire.
    func find(wireID: UnsafeRawBufferPointer) -> Int? {
        guard let (slot, low) = ids.parse(wireID), slot < slots.count else { return nil }
        let index = Int(slot)
        guard slots[index].receiver != nil, WireRequestID.matches(generation: slots[index].generation, low: low),
            // The rest of the id guards against another frontend's outputs and against generations that wrapped.
            equal(slots[index].wireID, wireID)
        else { return nil }
        return index
    }

    private func equal(_ text: String, _ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let start = bytes.baseAddress else { return false }
        var text = text
        return text.withUTF8 { $0.count == bytes.count && memcmp($0.baseAddress!, start, bytes.count) == 0 }
    }

    func handle(of slot: Int) -> RequestHandle {
        RequestHandle(slot: UInt32(slot), generation: slots[slot].generation)
    }
    func engine(of slot: Int) -> Int { slots[slot].engine }
    func wireID(of slot: Int) -> String { slots[slot].wireID }

    /// Whether the output at hand is the request's first one from these weights.
    mutating func hasNewWeights(_ slot: Int, epoch: UInt32) -> Bool {
        guard slots[slot].weightEpoch != epoch else { return false }
        slots[slot].weightEpoch = epoch
        return true
    }

    /// The running requests, optionally of one engine only.
    func running(on engine: Int? = nil) -> [Int] {
        slots.indices.filter { slots[$0].receiver != nil && (engine == nil || slots[$0].engine == engine) }
    }

    // MARK: - Deliveries

    /// Puts an event into the batch of the request's inbox.
    mutating func enqueue(_ event: RequestEvent, for slot: Int) {
        guard let target = slots[slot].target else { return }
        append(Delivery(borrowing: target, event: event), to: slots[slot].inbox)
    }

    /// For a request that never got as far as a slot here.
    mutating func enqueue(_ event: RequestEvent, for pending: PendingRequest) {
        let index = retainInbox(pending.inbox)
        append(Delivery(receiver: pending.receiver, event: event), to: index)
        inboxes[index].requests -= 1
    }

    private mutating func append(_ delivery: Delivery, to inbox: Int) {
        touch(inbox)
        if inboxes[inbox].batch.isEmpty {
            if let spare = inboxes[inbox].inbox?.spareBatch() { inboxes[inbox].batch = spare }
            inboxes[inbox].batch.reserveCapacity(inboxes[inbox].expected)
        }
        inboxes[inbox].batch.append(delivery)
    }

    /// Notes that the inbox has something to be flushed; before that is added.
    private mutating func touch(_ inbox: Int) {
        if inboxes[inbox].isIdle { touched.append(inbox) }
    }

    /// Hands every inbox its batch, in one call each.
    mutating func flush() {
        guard !touched.isEmpty else { return }
        for index in touched {
            var batch: [Delivery] = []
            swap(&batch, &inboxes[index].batch)
            var retired: [any RequestReceiver] = []
            swap(&retired, &inboxes[index].retired)
            if !batch.isEmpty {
                inboxes[index].expected = batch.count
                inboxes[index].inbox?.deliver(batch)
            }
            if !retired.isEmpty { inboxes[index].inbox?.release(retired) }
            if inboxes[index].requests == 0 { dropInboxIfIdle(index) }
        }
        touched.removeAll(keepingCapacity: true)
    }

    // MARK: - Inboxes

    private mutating func retainInbox(_ inbox: any OutputInbox) -> Int {
        let identity = ObjectIdentifier(inbox)
        if let index = inboxIndexes[identity] {
            inboxes[index].requests += 1
            return index
        }
        let entry = Inbox(inbox: inbox, requests: 1)
        let index: Int
        if let free = freeInboxes.popLast() {
            inboxes[free] = entry
            index = free
        } else {
            index = inboxes.count
            inboxes.append(entry)
        }
        inboxIndexes[identity] = index
        return index
    }

    /// An inbox without requests is forgotten, or a server that makes many of them would leak.
    private mutating func dropInboxIfIdle(_ index: Int) {
        guard inboxes[index].isIdle, let inbox = inboxes[index].inbox else { return }
        inboxIndexes[ObjectIdentifier(inbox)] = nil
        inboxes[index] = Inbox()
        freeInboxes.append(index)
    }
}
