import CZeroMQ
import Glibc

/// Waits on sockets and plain file descriptors together (`zmq_poll`: level-triggered, so nothing can be missed).
/// Belongs to the thread that owns the sockets.
package final class ZMQPoller {
    private var items: [zmq_pollitem_t] = []
    /// Keeps the sockets open while they are polled.
    private var sockets: [ZMQSocket] = []

    package init() {}

    /// - Returns: the index to ask ``isReadable(_:)`` about.
    @discardableResult
    package func add(_ socket: ZMQSocket) throws(ZMQError) -> Int {
        let handle = try socket.handle("poll")
        sockets.append(socket)
        items.append(zmq_pollitem_t(socket: handle, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0))
        return items.count - 1
    }

    @discardableResult
    package func add(descriptor: Int32) -> Int {
        items.append(zmq_pollitem_t(socket: nil, fd: descriptor, events: Int16(ZMQ_POLLIN), revents: 0))
        return items.count - 1
    }

    package func removeAll() {
        items.removeAll()
        sockets.removeAll()
    }

    /// - Parameter milliseconds: -1 waits forever.
    /// - Returns: how many items are ready; 0 after a timeout or a signal.
    @discardableResult
    package func wait(milliseconds: Int) throws(ZMQError) -> Int {
        for index in items.indices { items[index].revents = 0 }
        let ready = zmq_poll(&items, Int32(items.count), milliseconds)
        if ready < 0 {
            if zmq_errno() == EINTR { return 0 }
            throw .last("poll")
        }
        return Int(ready)
    }

    /// Readable or failed (a descriptor's hang-up counts, so that the owner reads it and finds out).
    package func isReadable(_ index: Int) -> Bool {
        items[index].revents & Int16(ZMQ_POLLIN | ZMQ_POLLERR) != 0
    }
}
