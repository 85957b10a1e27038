import Glibc

/// Several listening sockets on one TCP address, among which the kernel deals new connections by weight.
///
/// A classic BPF program, which needs no privileges, draws a random number for each connection. So shares hold on
/// average, and per connection: the requests of one that is kept alive all go to the same socket.
package final class ReusePortGroup {
    package struct Member {
        package let listener: HTTPListener
        package let weight: Int
    }

    /// In the order in which the kernel counts them.
    package private(set) var members: [Member]
    /// Client ports whose connections go to a certain member, for as long as they connect.
    private var steered: [UInt16: ObjectIdentifier] = [:]

    /// Listens on `first` and on a new socket for each further weight.
    package init(first: HTTPListener, weights: [Int]) throws {
        guard first.port != nil else {
            throw SupervisionError(.usage, "--split needs a TCP port: unix sockets cannot be shared")
        }
        setSocketFlag(first.descriptor.rawValue, SOL_SOCKET, SO_REUSEPORT, true)
        members = [Member(listener: first, weight: weights[0])]
        for weight in weights.dropFirst() { members.append(Member(listener: try first.sibling(), weight: weight)) }
        // Their order in the group is the order of these calls. The frontends call it again, which changes nothing.
        for member in members where listen(member.listener.descriptor.rawValue, 2048) != 0 {
            throw SupervisionError(
                .addressInUse, "cannot listen on \(first.displayAddress): \(describeErrno(errno))")
        }
        // Alone it is no group yet, for the kernel.
        if members.count > 1 { try install() }
    }

    /// From now on every new connection goes to one more socket, the one returned. The others keep what waits in their
    /// queues, and the processes that have them notice nothing.
    package func takeOver() throws -> HTTPListener {
        let listener = try members[0].listener.sibling()
        guard listen(listener.descriptor.rawValue, 2048) == 0 else {
            throw SupervisionError(
                .addressInUse, "cannot listen on \(listener.displayAddress): \(describeErrno(errno))")
        }
        members = members.map { Member(listener: $0.listener, weight: 0) } + [Member(listener: listener, weight: 1)]
        steered = [:]
        try install()
        return listener
    }

    /// Nothing is dealt to this one any more; what waits in its queue is refused.
    package func remove(_ listener: HTTPListener) {
        guard members.count > 1, let index = members.firstIndex(where: { $0.listener === listener }) else { return }
        listener.close()
        // As the kernel does it: the last one takes the free place.
        members.swapAt(index, members.count - 1)
        members.removeLast()
        steered = steered.filter { port, _ in self.target(of: port) != nil }
        try? install()
    }

    /// Gives up all sockets, or all but these. Idempotent.
    package func close(except kept: [HTTPListener] = []) {
        for member in members where !kept.contains(where: { $0 === member.listener }) { member.listener.close() }
    }

    /// A socket that connects to this member's listener, whatever the weights say. `settled` ends the exception; call it
    /// once the connection is there or has failed.
    package func connect(
        to listener: HTTPListener
    ) throws -> (socket: FileDescriptor, settled: () -> Void) {
        let target = listener.probeAddress
        let socket = try makeStreamSocket(target.family, nonBlocking: true)
        guard let source = try? SocketAddress.resolve(host: target.host, port: 0),
            source.withPointer({ Glibc.bind(socket.rawValue, $0, $1) }) == 0,
            let port = SocketAddress.ofSocket(socket.rawValue)?.port
        else { throw SupervisionError(.failure, "cannot bind a client socket: \(describeErrno(errno))") }
        steered[port] = ObjectIdentifier(listener)
        try install()
        let status = target.withPointer { Glibc.connect(socket.rawValue, $0, $1) }
        guard status == 0 || errno == EINPROGRESS else {
            steered[port] = nil
            throw SupervisionError(.failure, "cannot connect to the frontend: \(describeErrno(errno))")
        }
        return (
            socket,
            { [weak self] in
                guard let self, steered.removeValue(forKey: port) != nil else { return }
                try? install()
            }
        )
    }

    private func target(of port: UInt16) -> Int? {
        members.firstIndex { ObjectIdentifier($0.listener) == steered[port] }
    }

    // MARK: - The program

    /// `struct sock_filter`
    private struct Instruction {
        var code: UInt16
        var ifTrue: UInt8 = 0
        var ifFalse: UInt8 = 0
        var operand: UInt32
    }

    /// `struct sock_fprog`
    private struct Program {
        var count: UInt16
        var instructions: UnsafePointer<Instruction>
    }

    private func install() throws {
        guard let first = members.first, first.listener.descriptor.isOpen else { return }
        let instructions = makeProgram(isIPv6: first.listener.probeAddress.family == AF_INET6)
        let status = instructions.withUnsafeBufferPointer { buffer -> Int32 in
            guard let base = buffer.baseAddress else { return -1 }
            var program = Program(count: UInt16(buffer.count), instructions: base)
            return setsockopt(
                first.listener.descriptor.rawValue, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
                socklen_t(MemoryLayout<Program>.size))
        }
        guard status == 0 else {
            throw SupervisionError(
                .failure, "the kernel does not take the weights of --split: \(describeErrno(errno))")
        }
    }

    /// Returns the index of the member.
    private func makeProgram(isIPv6: Bool) -> [Instruction] {
        let loadHalf: UInt16 = 0x28
        let loadWord: UInt16 = 0x20
        let modulo: UInt16 = 0x94
        let jumpIfEqual: UInt16 = 0x15
        let jumpIfGreaterOrEqual: UInt16 = 0x35
        let answer: UInt16 = 0x06
        // SKF_NET_OFF and SKF_AD_OFF + SKF_AD_RANDOM.
        let networkHeader = UInt32(bitPattern: -0x100000)
        let random = UInt32(bitPattern: -0x1000 + 56)

        var program: [Instruction] = []
        // Our own connections come over the loopback interface, where there are no options in front of the ports.
        for (port, _) in steered {
            guard let index = target(of: port) else { continue }
            program.append(Instruction(code: loadHalf, operand: networkHeader + (isIPv6 ? 40 : 20)))
            program.append(Instruction(code: jumpIfEqual, ifFalse: 1, operand: UInt32(port)))
            program.append(Instruction(code: answer, operand: UInt32(index)))
        }
        program.append(Instruction(code: loadWord, operand: random))
        program.append(Instruction(code: modulo, operand: UInt32(members.reduce(0) { $0 + $1.weight })))
        var bound = 0
        for (index, member) in members.enumerated().dropLast() {
            bound += member.weight
            program.append(Instruction(code: jumpIfGreaterOrEqual, ifTrue: 1, operand: UInt32(bound)))
            program.append(Instruction(code: answer, operand: UInt32(index)))
        }
        program.append(Instruction(code: answer, operand: UInt32(members.count - 1)))
        return program
    }
}
