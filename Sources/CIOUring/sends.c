#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CIOUring.h"

struct io_uring_sends {
    int descriptor;
    uint32_t count;
    uint32_t capacity;
    /// Shared with the kernel.
    void* memory;
    size_t memory_size;
    struct io_uring_sqe* entries;
    size_t entries_size;
    uint32_t *submission_tail, *submission_head, submission_mask, *submission_array;
    uint32_t *completion_head, *completion_tail, completion_mask;
    struct io_uring_cqe* completions;
    int32_t results[];
};

static const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
/// Where no completion has come yet; no length, and no error number.
static const int32_t unknown = INT32_MIN;

static int supports_send(int descriptor) {
    size_t size = sizeof(struct io_uring_probe) + (IORING_OP_SEND + 1) * sizeof(struct io_uring_probe_op);
    struct io_uring_probe* probe = calloc(1, size);
    if (probe == NULL) return 0;
    long result = syscall(SYS_io_uring_register, descriptor, IORING_REGISTER_PROBE, probe, IORING_OP_SEND + 1);
    int supported = result == 0 && probe->ops_len > IORING_OP_SEND &&
                    (probe->ops[IORING_OP_SEND].flags & IO_URING_OP_SUPPORTED) != 0;
    free(probe);
    return supported;
}

static void* map(int descriptor, size_t size, off_t offset) {
    void* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, offset);
    return memory == MAP_FAILED ? NULL : memory;
}

io_uring_sends* io_uring_sends_open(uint32_t capacity) {
    io_uring_sends* ring = calloc(1, sizeof *ring + capacity * sizeof ring->results[0]);
    if (ring == NULL) return NULL;
    ring->capacity = capacity;
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof parameters);
    // The descriptor is close-on-exec.
    ring->descriptor = (int)syscall(SYS_io_uring_setup, capacity, &parameters);
    if (ring->descriptor < 0) {
        free(ring);
        return NULL;
    }
    if ((parameters.features & IORING_FEAT_SINGLE_MMAP) == 0 || !supports_send(ring->descriptor)) {
        io_uring_sends_close(ring);
        errno = ENOSYS;
        return NULL;
    }
    size_t submissions = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
    size_t completions = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
    ring->memory_size = submissions > completions ? submissions : completions;
    ring->memory = map(ring->descriptor, ring->memory_size, IORING_OFF_SQ_RING);
    ring->entries_size = parameters.sq_entries * sizeof(struct io_uring_sqe);
    ring->entries = map(ring->descriptor, ring->entries_size, IORING_OFF_SQES);
    if (ring->memory == NULL || ring->entries == NULL) {
        int error = errno;
        io_uring_sends_close(ring);
        errno = error;
        return NULL;
    }
    char* base = ring->memory;
    ring->submission_head = (uint32_t*)(base + parameters.sq_off.head);
    ring->submission_tail = (uint32_t*)(base + parameters.sq_off.tail);
    ring->submission_mask = *(uint32_t*)(base + parameters.sq_off.ring_mask);
    ring->submission_array = (uint32_t*)(base + parameters.sq_off.array);
    ring->completion_head = (uint32_t*)(base + parameters.cq_off.head);
    ring->completion_tail = (uint32_t*)(base + parameters.cq_off.tail);
    ring->completion_mask = *(uint32_t*)(base + parameters.cq_off.ring_mask);
    ring->completions = (struct io_uring_cqe*)(base + parameters.cq_off.cqes);
    return ring;
}

void io_uring_sends_close(io_uring_sends* ring) {
    if (ring->memory != NULL) munmap(ring->memory, ring->memory_size);
    if (ring->entries != NULL) munmap(ring->entries, ring->entries_size);
    close(ring->descriptor);
    free(ring);
}

void io_uring_sends_add(io_uring_sends* ring, int descriptor, const void* bytes, size_t count) {
    if (ring->count >= ring->capacity) abort();
    uint32_t tail = *ring->submission_tail;
    uint32_t position = tail & ring->submission_mask;
    struct io_uring_sqe* entry = &ring->entries[position];
    memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_SEND;
    entry->fd = descriptor;
    entry->addr = (uintptr_t)bytes;
    entry->len = count < INT32_MAX ? (uint32_t)count : INT32_MAX;
    // Such a send ends at once: no work of it is left to the kernel's threads.
    entry->msg_flags = (uint32_t)flags;
    entry->user_data = tail;
    ring->submission_array[position] = position;
    ring->results[ring->count] = unknown;
    // Nobody but the kernel reads it, and not before it is called.
    *ring->submission_tail = tail + 1;
    ring->count++;
}

/// Takes the completions there are; `first` is the number of the first send that was queued.
static uint32_t reap(io_uring_sends* ring, uint32_t first) {
    uint32_t head = *ring->completion_head;
    uint32_t tail = __atomic_load_n(ring->completion_tail, __ATOMIC_ACQUIRE);
    uint32_t count = tail - head;
    for (; head != tail; head++) {
        const struct io_uring_cqe* completion = &ring->completions[head & ring->completion_mask];
        uint32_t position = (uint32_t)completion->user_data - first;
        if (position < ring->count) ring->results[position] = completion->res;
    }
    __atomic_store_n(ring->completion_head, head, __ATOMIC_RELEASE);
    return count;
}

const int32_t* io_uring_sends_submit(io_uring_sends* ring) {
    uint32_t first = *ring->submission_tail - ring->count;
    uint32_t wanted = ring->count, submitted = ring->count, done = 0;
    do {
        long taken =
            syscall(SYS_io_uring_enter, ring->descriptor, wanted, submitted - done, IORING_ENTER_GETEVENTS, NULL, 0);
        int error = taken < 0 ? errno : 0;
        submitted = __atomic_load_n(ring->submission_head, __ATOMIC_ACQUIRE) - first;
        done += reap(ring, first);
        if (error != 0 && error != EINTR) break;
        // Only a kernel without memory takes less than it was given; what it took is done.
        wanted = 0;
    } while (done < submitted);
    for (uint32_t position = 0; position < ring->count; position++) {
        const struct io_uring_sqe* entry = &ring->entries[(first + position) & ring->submission_mask];
        if (position >= submitted) {
            ssize_t sent = send(entry->fd, (const void*)(uintptr_t)entry->addr, entry->len, flags);
            ring->results[position] = sent < 0 ? -errno : (int32_t)sent;
        } else if (ring->results[position] == unknown) {
            // Nobody knows what its client has got, so it must not get more.
            shutdown(entry->fd, SHUT_RDWR);
            ring->results[position] = -EPIPE;
        }
    }
    *ring->submission_tail = first + submitted;
    ring->count = 0;
    return ring->results;
}
