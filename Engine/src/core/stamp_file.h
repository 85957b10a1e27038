// Times at which requests came in and tokens went out (--stamps), for those who measure frontends.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace blas_engine {

struct Request;

// Appends 24-byte records in the machine's byte order, see Engine/README.md. Writing fails silently after the file was
// opened: a full disk must not end an engine.
class StampFile {
  public:
    // Does nothing without a path. Throws std::runtime_error if the file cannot be created.
    explicit StampFile(const std::string& path);
    ~StampFile();
    StampFile(const StampFile&) = delete;
    StampFile& operator=(const StampFile&) = delete;

    bool is_open() const { return descriptor_ >= 0; }
    void received(const Request& request);
    // `seconds`: CLOCK_MONOTONIC when the step's message was handed over; `bytes`: of all its frames.
    void sent(std::span<const Request* const> requests, double seconds, size_t bytes);
    void flush();

  private:
    void append(double seconds, const Request& request, uint32_t kind, size_t count);

    int descriptor_ = -1;
    std::vector<unsigned char> buffer_;
};

}  // namespace blas_engine
