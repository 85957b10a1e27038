#include "sampling/repetition.h"

#include <algorithm>

namespace blas_engine {

bool ends_in_repetition(std::span<const int32_t> output, const RepetitionDetection& detection) {
    if (detection.max_pattern_size <= 0) return false;
    auto length = static_cast<int64_t>(output.size());
    // Compared by division, since client-chosen counts could overflow a product.
    int64_t largest = std::min(detection.max_pattern_size, length / detection.min_count);
    for (int64_t size = std::max<int64_t>(detection.min_pattern_size, 1); size <= largest; ++size) {
        auto tail = output.last(static_cast<size_t>(size * detection.min_count));
        // A sequence repeats with period `size` exactly if it equals itself shifted by `size`.
        if (std::equal(tail.begin() + size, tail.end(), tail.begin())) return true;
    }
    return false;
}

}  // namespace blas_engine
