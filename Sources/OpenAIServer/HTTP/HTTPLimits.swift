import NIOCore

/// What one client may cost. Zero switches a limit or timeout off where that is said.
package struct HTTPLimits: Sendable, Equatable {
    /// `VLLM_HTTP_MAX_REQUEST_BODY_SIZE`; 0 = unlimited.
    package var maxBodyBytes = 32 << 20
    /// `h11_max_header_count`.
    package var maxHeaderCount = 256
    /// `h11_max_incomplete_event_size`: bytes of all header names and values of one request.
    package var maxHeaderBytes = 4 << 20
    package var maxURIBytes = 64 << 10
    /// Idle time after which a connection is closed; 0 = no keep-alive at all.
    package var keepAliveTimeout: TimeAmount = .seconds(5)
    /// A request head must be complete this long after its first byte was noticed.
    package var headTimeout: TimeAmount = .seconds(5)
    /// In each period of this length, a body must grow by ``minBodyProgress`` bytes or end.
    package var bodyTimeout: TimeAmount = .seconds(20)
    package var minBodyProgress = 4096
    /// Unread bytes after which a client of an event stream is dropped.
    package var maxStreamBacklog = 1 << 20
    /// Rest of a refused request's body that is read and thrown away to keep the connection.
    package var maxDiscardedBody = 64 << 10
    /// How long a closing connection waits for the client to take the last response.
    package var lingerTimeout: TimeAmount = .seconds(1)

    package init() {}
}
