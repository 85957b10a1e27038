#include "sampling/row_ops.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace blas_engine {
namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();
// Independent lanes: a single running maximum or sum would wait for itself at every entry.
constexpr size_t lanes = 16;

// exp(x) for x <= 0 as 2^n * 2^f with f in [0, 1); the polynomial is a least-squares fit of 2^f with exact ends.
inline float exp_nonpositive(float x) {
    // What underflows (and NaN) becomes 0 by way of n = -127; it also keeps the conversion below defined.
    x = x > -88.0F ? x : -88.0F;
    float t = x * 1.44269504F;
    auto truncated = static_cast<int32_t>(t);
    int32_t n = truncated - (static_cast<float>(truncated) > t ? 1 : 0);
    // ln 2 in two parts, of which the first times n is exact: otherwise t's rounding would show for large |x|.
    float remainder = x - static_cast<float>(n) * 0.693359375F + static_cast<float>(n) * 2.12194440e-4F;
    float f = remainder * 1.44269504F;
    float p = 2.161381e-4F;
    p = p * f + 1.246738e-3F;
    p = p * f + 9.675533e-3F;
    p = p * f + 5.5485220e-2F;
    p = p * f + 2.40229325e-1F;
    p = p * f + 6.93147042e-1F;
    p = p * f + 1.0F;
    return p * std::bit_cast<float>((n + 127) << 23);
}

}  // namespace

int count_nans(std::span<const float> row) {
    int count = 0;
    for (float value : row) count += value != value ? 1 : 0;
    return count;
}

float row_max(std::span<const float> row) {
    float best[lanes];
    std::fill(best, best + lanes, lowest);
    size_t whole = row.size() / lanes * lanes;
    for (size_t i = 0; i < whole; i += lanes) {
        for (size_t lane = 0; lane < lanes; ++lane)
            best[lane] = row[i + lane] > best[lane] ? row[i + lane] : best[lane];
    }
    for (size_t i = whole; i < row.size(); ++i) best[0] = row[i] > best[0] ? row[i] : best[0];
    return *std::max_element(best, best + lanes);
}

int32_t row_argmax(std::span<const float> row) {
    auto found = std::find(row.begin(), row.end(), row_max(row));
    return found == row.end() ? 0 : static_cast<int32_t>(found - row.begin());
}

void exp_below(std::span<const float> row, float largest, std::span<float> out) {
    for (size_t i = 0; i < row.size(); ++i) out[i] = exp_nonpositive(row[i] - largest);
}

double row_sum(std::span<const float> row) {
    double sum[lanes] = {};
    size_t whole = row.size() / lanes * lanes;
    for (size_t i = 0; i < whole; i += lanes) {
        for (size_t lane = 0; lane < lanes; ++lane) sum[lane] += row[i + lane];
    }
    for (size_t i = whole; i < row.size(); ++i) sum[0] += row[i];
    double total = 0;
    for (double part : sum) total += part;
    return total;
}

HeavyEntries entries_from(std::span<const float> row, float threshold) {
    // Single precision within a stretch, double across: conversions would cost more than the comparison.
    constexpr size_t stretch = 64 * lanes;
    HeavyEntries total;
    for (size_t start = 0; start < row.size(); start += stretch) {
        size_t end = std::min(row.size(), start + stretch);
        size_t whole = start + (end - start) / lanes * lanes;
        float sum[lanes] = {};
        int32_t count[lanes] = {};
        for (size_t i = start; i < whole; i += lanes) {
            for (size_t lane = 0; lane < lanes; ++lane) {
                bool heavy = row[i + lane] >= threshold;
                sum[lane] += heavy ? row[i + lane] : 0;
                count[lane] += heavy ? 1 : 0;
            }
        }
        for (size_t i = whole; i < end; ++i) {
            bool heavy = row[i] >= threshold;
            sum[0] += heavy ? row[i] : 0;
            count[0] += heavy ? 1 : 0;
        }
        for (size_t lane = 0; lane < lanes; ++lane) {
            total.sum += sum[lane];
            total.count += count[lane];
        }
    }
    return total;
}

}  // namespace blas_engine
