#pragma once
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <zmq.h>

// Linux calls that Swift's Glibc module does not export.

static inline int vllm_eventfd_create(void) {
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline void vllm_name_this_thread(const char *name) {
    prctl(PR_SET_NAME, name, 0, 0, 0);
}
