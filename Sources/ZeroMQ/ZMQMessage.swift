import CZeroMQ
import Glibc

/// One frame owned by us (`zmq_msg_t`): received bytes are read in place, without a copy.
package struct ZMQMessage: ~Copyable {
    var raw = zmq_msg_t()

    /// An empty frame.
    package init() { zmq_msg_init(&raw) }

    package init(copying bytes: UnsafeRawBufferPointer) throws(ZMQError) {
        guard zmq_msg_init_size(&raw, bytes.count) == 0 else { throw .last("allocate a message") }
        if let source = bytes.baseAddress, bytes.count > 0 { memcpy(zmq_msg_data(&raw), source, bytes.count) }
    }

    deinit {
        // Small messages live inside the struct, so the address of a copy serves as well.
        var copy = raw
        zmq_msg_close(&copy)
    }

    package var count: Int { withUnsafePointer(to: raw) { zmq_msg_size($0) } }

    /// The frame's bytes, valid inside `body` only.
    package func withUnsafeBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        var copy = raw
        return try withUnsafeMutablePointer(to: &copy) { pointer throws(E) in
            try body(UnsafeRawBufferPointer(start: zmq_msg_data(pointer), count: zmq_msg_size(pointer)))
        }
    }
}

/// The frames of one multipart message, reused from message to message so that receiving allocates nothing here.
///
/// The buffers handed out stay valid until the next receive into the same object or its end.
package final class ZMQFrames {
    private var storage: UnsafeMutablePointer<zmq_msg_t>
    private var capacity: Int
    package private(set) var count = 0

    package init() {
        capacity = 4
        storage = .allocate(capacity: capacity)
    }

    deinit {
        removeAll()
        storage.deallocate()
    }

    package subscript(index: Int) -> UnsafeRawBufferPointer {
        precondition(index >= 0 && index < count, "frame index out of range")
        return UnsafeRawBufferPointer(start: zmq_msg_data(storage + index), count: zmq_msg_size(storage + index))
    }

    package func removeAll() {
        for index in 0..<count { zmq_msg_close(storage + index) }
        count = 0
    }

    /// A new, empty last frame; the pointer is valid until the next append.
    func append() -> UnsafeMutablePointer<zmq_msg_t> {
        if count == capacity {
            let grown = UnsafeMutablePointer<zmq_msg_t>.allocate(capacity: capacity * 2)
            for index in 0..<count {
                zmq_msg_init(grown + index)
                zmq_msg_move(grown + index, storage + index)
                zmq_msg_close(storage + index)
            }
            storage.deallocate()
            storage = grown
            capacity *= 2
        }
        let slot = storage + count
        zmq_msg_init(slot)
        count += 1
        return slot
    }
}
