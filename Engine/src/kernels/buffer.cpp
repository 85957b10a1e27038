#include "kernels/buffer.h"

#include <sys/mman.h>

#include <new>

namespace blas_engine {

namespace {
constexpr size_t page = 4096;
constexpr size_t huge_page = size_t{2} << 20;
}  // namespace

Buffer::Buffer(size_t bytes) {
    if (bytes == 0) return;
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    if (bytes < huge_page) {
        size_ = (bytes + page - 1) / page * page;
        data_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data_ == MAP_FAILED) {
            data_ = nullptr;
            size_ = 0;
            throw std::bad_alloc();
        }
        return;
    }
    // Reserve one huge page more than asked for and cut the ends off, so that the rest starts on a 2 MiB boundary.
    size_ = (bytes + huge_page - 1) / huge_page * huge_page;
    const size_t reserved = size_ + huge_page;
    void* base = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        size_ = 0;
        throw std::bad_alloc();
    }
    const auto start = reinterpret_cast<uintptr_t>(base);
    const uintptr_t aligned = (start + huge_page - 1) / huge_page * huge_page;
    if (aligned > start) munmap(base, aligned - start);
    const size_t tail = start + reserved - (aligned + size_);
    if (tail > 0) munmap(reinterpret_cast<void*>(aligned + size_), tail);
    data_ = reinterpret_cast<void*>(aligned);
    madvise(data_, size_, MADV_HUGEPAGE);  // a kernel without huge pages only makes this slower
}

void Buffer::reset() {
    if (data_ != nullptr) munmap(data_, size_);
    data_ = nullptr;
    size_ = 0;
}

void Buffer::reserve(size_t bytes) {
    if (bytes <= size_) return;
    reset();
    *this = Buffer(bytes + bytes / 4);
}

}  // namespace blas_engine
