import CZeroMQ

extension ZMQSocket {
    /// A descriptor for `poll` loops of one's own. It is edge-triggered and says only "look again": after it became
    /// readable, after every send, and once before the first wait, receive until nothing is left.
    package func eventDescriptor() throws(ZMQError) -> Int32 {
        var descriptor: Int32 = -1
        var size = MemoryLayout<Int32>.size
        guard zmq_getsockopt(try handle("FD"), ZMQ_FD, &descriptor, &size) == 0 else { throw .last("FD") }
        return descriptor
    }
}
