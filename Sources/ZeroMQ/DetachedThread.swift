import CZeroMQ
import Glibc

/// Names the calling thread for debuggers and `top`; at most 15 bytes count.
package func nameThisThread(_ name: String) { vllm_name_this_thread(name) }

/// Starts a detached thread that takes over `owner` and runs `body` with it. Signals are for the main thread: this one
/// blocks them all, since it would only be interrupted by them.
///
/// - Parameter owner: what the thread owns from here on; nobody else may touch it unless it is thread-safe.
package func startDetachedThread<Owner: AnyObject>(
    named name: String, owning owner: Owner, _ body: @escaping (Owner) -> Void
) throws(ZMQError) {
    let start = Unmanaged.passRetained(
        ThreadStart {
            nameThisThread(name)
            body(owner)
        })
    var thread = pthread_t()
    var all = sigset_t()
    var previous = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &previous)
    let status = pthread_create(
        &thread, nil,
        { raw in
            Unmanaged<ThreadStart>.fromOpaque(raw!).takeRetainedValue().body()
            return nil
        }, start.toOpaque())
    pthread_sigmask(SIG_SETMASK, &previous, nil)
    guard status == 0 else {
        start.release()
        throw ZMQError(code: status, operation: "start the \(name) thread")
    }
    pthread_detach(thread)
}

private final class ThreadStart {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}
