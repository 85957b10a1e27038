// Tells other processes how far loading is, through a file that they share: 64 bytes for each engine, at its index. The
// first byte is the percentage, the rest what is being done, filled up with zeros.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace blas_engine {

class LoadProgress {
  public:
    // descriptor: -1 = nobody wants to know.
    LoadProgress(int descriptor, int engine_index)
        : descriptor_(descriptor), offset_(static_cast<off_t>(engine_index) * record_size) {}

    void note(double fraction, std::string_view phase) const {
        if (descriptor_ < 0) return;
        std::array<char, record_size> record{};
        record[0] = static_cast<char>(std::clamp(fraction, 0.0, 1.0) * 100);
        std::memcpy(record.data() + 1, phase.data(), std::min(phase.size(), record.size() - 2));
        // Whoever waits can do without.
        [[maybe_unused]] ssize_t written = pwrite(descriptor_, record.data(), record.size(), offset_);
    }

  private:
    static constexpr size_t record_size = 64;
    int descriptor_;
    off_t offset_;
};

}  // namespace blas_engine
