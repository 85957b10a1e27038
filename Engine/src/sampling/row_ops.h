// Passes over a row of logits, written so that the compiler turns them into vector code for the baseline instruction
// set: a row has up to hundreds of thousands of entries, and every sampled token pays for each pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace blas_engine {

int count_nans(std::span<const float> row);

// Largest entry; NaNs are skipped, an empty or all-NaN row gives -infinity.
float row_max(std::span<const float> row);

// Index of the first largest entry (0 if there is none).
int32_t row_argmax(std::span<const float> row);

// out[i] = exp(row[i] - largest), relative error below 3e-7, 0 below the smallest normal float. `largest` must be at
// least every entry. The same on every machine, unlike libm's exp.
void exp_below(std::span<const float> row, float largest, std::span<float> out);

// Sum in double precision.
double row_sum(std::span<const float> row);

// Number and sum of the entries that are at least `threshold`.
struct HeavyEntries {
    int64_t count = 0;
    double sum = 0;
};
HeavyEntries entries_from(std::span<const float> row, float threshold);

}  // namespace blas_engine
