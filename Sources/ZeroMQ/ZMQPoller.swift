import CZeroMQ
import Glibc

/// Waits on sockets and plain file descriptors together. Belongs to the thread that owns the sockets.
///
/// Does what `zmq_poll` does with a third of its system calls. A socket's descriptor only tells of a *change*, and any
/// operation on the socket may take that news away: so a socket that was used since it was last found empty is asked
/// before the thread goes to sleep. With that, nothing can be missed.
package final class ZMQPoller {
    private var entries: [pollfd] = []
    /// Per entry; nil for plain descriptors. Keeps the sockets open while they are polled.
    private var sockets: [ZMQSocket?] = []
    private var ready: [Bool] = []

    package init() {}

    /// - Returns: the index to ask ``isReadable(_:)`` about.
    @discardableResult
    package func add(_ socket: ZMQSocket) throws(ZMQError) -> Int {
        add(try socket.pollDescriptor(), socket)
    }

    @discardableResult
    package func add(descriptor: Int32) -> Int { add(descriptor, nil) }

    private func add(_ descriptor: Int32, _ socket: ZMQSocket?) -> Int {
        entries.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
        sockets.append(socket)
        ready.append(false)
        return entries.count - 1
    }

    package func removeAll() {
        entries.removeAll()
        sockets.removeAll()
        ready.removeAll()
    }

    /// - Parameter milliseconds: -1 waits forever.
    /// - Returns: how many items are ready; 0 after a timeout or a signal, and sometimes without either.
    @discardableResult
    package func wait(milliseconds: Int) throws(ZMQError) -> Int {
        var found = 0
        for index in entries.indices {
            ready[index] = false
            guard let socket = sockets[index], socket.mayHaveInput, try socket.checkInput() else { continue }
            ready[index] = true
            found += 1
        }
        let timeout = found > 0 ? 0 : Int32(clamping: milliseconds)
        if poll(&entries, nfds_t(entries.count), timeout) < 0 {
            if errno == EINTR { return found }
            throw ZMQError(code: errno, operation: "poll")
        }
        for index in entries.indices where entries[index].revents != 0 && !ready[index] {
            // Failed descriptors count as readable, so that the owner reads them and finds out.
            ready[index] = try sockets[index]?.checkInput() ?? true
            if ready[index] { found += 1 }
        }
        return found
    }

    package func isReadable(_ index: Int) -> Bool { ready[index] }
}
