// Sends on many sockets with one system call. A ring belongs to one thread; nothing in it outlives a call of
// io_uring_sends_submit.
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct io_uring_sends io_uring_sends;

/// A ring for up to `capacity` sends at a time (a power of two). NULL with errno if the kernel is too old, or does not
/// allow it: containers and hardened systems often do not.
io_uring_sends* io_uring_sends_open(uint32_t capacity);
void io_uring_sends_close(io_uring_sends* ring);

/// Queues a send; `bytes` must stay as they are until it is submitted. Not more than the ring's capacity.
void io_uring_sends_add(io_uring_sends* ring, int descriptor, const void* bytes, size_t count);

/// Sends what was queued, in that order, and never waits for a socket.
/// - Returns: for each the number of bytes that its socket took, or a negative error number; valid until the next call.
const int32_t* io_uring_sends_submit(io_uring_sends* ring);
