// Memory for weights, KV cache and activations: anonymous pages that ask for 2 MiB pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace blas_engine {

// Zero-filled anonymous memory, aligned to at least 4 KiB (2 MiB when large). Huge pages give about 1.7 times the read
// bandwidth of 4 KiB pages, and a file mapping cannot have them, which is why weights are copied out of the file.
// Pages are taken from the system on first write. Throws std::bad_alloc.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes);
    ~Buffer() { reset(); }
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    void reset();                // returns the memory to the system
    void reserve(size_t bytes);  // grows to at least `bytes`; the contents are lost when it has to grow
    size_t size() const { return size_; }
    template <typename T = std::byte>
    T* as() const {
        return static_cast<T*>(data_);
    }

  private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace blas_engine
