// When the pacer gave out a token: memory that it shares with the client, which takes the difference as it reads the
// token.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <stdexcept>

inline uint64_t monotonic_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

class Stamps {
  public:
    static constexpr uint64_t kRequests = 4096, kTokens = 512;

    Stamps(const char* path, bool create) {
        int descriptor = open(path, create ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
        if (descriptor < 0 || ftruncate(descriptor, kRequests * kTokens * 8) != 0)
            throw std::runtime_error("no stamp file");
        void* memory = mmap(nullptr, kRequests * kTokens * 8, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        close(descriptor);
        if (memory == MAP_FAILED) throw std::runtime_error("cannot map the stamp file");
        cells_ = static_cast<std::atomic<uint64_t>*>(memory);
    }

    // Requests without a number, and tokens beyond the table, have no stamps.
    void set(uint64_t request, uint64_t token, uint64_t ns) {
        if (request < kRequests && token < kTokens)
            cells_[request * kTokens + token].store(ns, std::memory_order_release);
    }
    uint64_t get(uint64_t request, uint64_t token) const {
        if (request >= kRequests || token >= kTokens) return 0;
        return cells_[request * kTokens + token].load(std::memory_order_acquire);
    }

  private:
    std::atomic<uint64_t>* cells_;
};
