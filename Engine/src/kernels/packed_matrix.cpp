#include "kernels/packed_matrix.h"

#include "kernels/bfloat16.h"

namespace blas_engine {

namespace {
constexpr auto columns = static_cast<size_t>(panel_columns);
}

void PackedMatrix::pack_rows(const float* rows, int first, int count) {
    const auto k = static_cast<size_t>(k_);
    for (int row = 0; row < count; ++row, rows += k) {
        const int column = first + row;
        std::byte* panel = data_ + static_cast<size_t>(column / panel_columns) * panel_bytes();
        const auto lane = static_cast<size_t>(column % panel_columns);
        if (storage_ == Storage::f32) {
            float* out = reinterpret_cast<float*>(panel) + lane;
            for (size_t i = 0; i < k; ++i) out[i * columns] = rows[i];
        } else {
            uint32_t* out = reinterpret_cast<uint32_t*>(panel) + lane;  // one store per pair of k
            for (size_t i = 0; i < k; i += 2) {
                const uint32_t even = float_to_bf16(rows[i]);
                const uint32_t odd = i + 1 < k ? float_to_bf16(rows[i + 1]) : 0u;
                out[i / 2 * columns] = even | odd << 16;
            }
        }
    }
}

void PackedMatrix::unpack_row(int column, float* out) const {
    const std::byte* panel = data_ + static_cast<size_t>(column / panel_columns) * panel_bytes();
    const auto lane = static_cast<size_t>(column % panel_columns);
    const auto k = static_cast<size_t>(k_);
    if (storage_ == Storage::f32) {
        const float* in = reinterpret_cast<const float*>(panel) + lane;
        for (size_t i = 0; i < k; ++i) out[i] = in[i * columns];
    } else {
        const auto* in = reinterpret_cast<const uint16_t*>(panel) + 2 * lane;
        for (size_t i = 0; i < k; ++i) out[i] = bf16_to_float(in[i / 2 * (2 * columns) + i % 2]);
    }
}

}  // namespace blas_engine
