// The reference: plain loops, no vector vocabulary. Serves every CPU, and the other tables are tested against it.
#include <cmath>
#include <limits>

#include "kernels/bfloat16.h"
#include "kernels/kernels.h"

namespace blas_engine {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
constexpr float log2e = 1.44269504f;

size_t index(int i) { return static_cast<size_t>(i); }

// Element (k, column) of a panel-like block with `columns` columns.
float weight_at(const void* panel, Storage storage, int k, int column, int columns) {
    if (storage == Storage::f32) return static_cast<const float*>(panel)[index(k) * index(columns) + index(column)];
    return bf16_to_float(
        static_cast<const uint16_t*>(panel)[index(k / 2) * index(2 * columns) + index(2 * column + k % 2)]);
}

void store_one(void* out, size_t at, float value, Storage storage) {
    if (storage == Storage::bf16) {
        static_cast<uint16_t*>(out)[at] = float_to_bf16(value);
    } else {
        static_cast<float*>(out)[at] = storage == Storage::f32 ? value : bf16_rounded(value);
    }
}

const void* panel_at(const Product& p, int panel) {
    const size_t bytes = index((p.k + 1) / 2 * 2) * panel_columns * storage_bytes(p.storage);
    return static_cast<const std::byte*>(p.weights) + index(panel) * bytes;
}

void finish_row(const Product& p, int panel, int row, const float* sums) {
    const float* bias = p.bias != nullptr ? p.bias + panel * panel_columns : nullptr;
    const bool rounded = p.results == Storage::bf16_in_f32;
    const auto sum = [&](int column) {
        const float y = sums[column] + (bias != nullptr ? bias[column] : 0.0f);
        return rounded ? bf16_rounded(y) : y;
    };
    if (p.epilogue == Epilogue::silu_mul) {
        constexpr int half = panel_columns / 2;
        for (int c = 0; c < half && panel * half + c < p.n / 2; ++c) {
            const float gate = sum(c);
            const float silu = gate / (1.0f + std::exp(-gate));
            const float y = (rounded ? bf16_rounded(silu) : silu) * sum(half + c);
            store_one(p.out, index(row) * p.ldo + index(panel * half + c), y, p.results);
        }
        return;
    }
    float* out = static_cast<float*>(p.out) + index(row) * p.ldo;
    for (int c = 0; c < panel_columns && panel * panel_columns + c < p.n; ++c) {
        float& y = out[panel * panel_columns + c];
        y = p.epilogue == Epilogue::add ? sum(c) + y : sum(c);
    }
}

void product(const Product& p, int panel_begin, int panel_end) {
    for (int panel = panel_begin; panel < panel_end; ++panel) {
        const void* weights = panel_at(p, panel);
        for (int row = 0; row < p.rows; ++row) {
            const float* x = static_cast<const float*>(p.x) + index(row) * p.ldx;
            float sums[panel_columns] = {};
            for (int k = 0; k < p.k; ++k) {
                for (int c = 0; c < panel_columns; ++c) {
                    sums[c] += x[k] * weight_at(weights, p.storage, k, c, panel_columns);
                }
            }
            finish_row(p, panel, row, sums);
        }
    }
}

void finish(const Product& p, int panel, const float* sums, size_t lds) {
    for (int row = 0; row < p.rows; ++row) finish_row(p, panel, row, sums + index(row) * lds);
}

void unpack(const Product& p, int panel_begin, int panel_end, float* out, size_t ld) {
    for (int panel = panel_begin; panel < panel_end; ++panel, out += panel_columns) {
        const void* weights = panel_at(p, panel);
        for (int k = 0; k < p.k; ++k) {
            for (int c = 0; c < panel_columns; ++c) {
                out[index(k) * ld + index(c)] = weight_at(weights, p.storage, k, c, panel_columns);
            }
        }
    }
}

void convert(const float* x, int n, void* out, Storage storage) {
    for (int i = 0; i < n; ++i) store_one(out, index(i), x[i], storage);
}

void rms_norm(const float* x, const float* weight, int n, float epsilon, void* out, Storage storage, Storage results) {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum += x[i] * x[i];
    const float factor = 1.0f / std::sqrt(sum / static_cast<float>(n) + epsilon);
    for (int i = 0; i < n; ++i) {
        const float y = x[i] * factor;
        store_one(out, index(i), (results == Storage::f32 ? y : bf16_rounded(y)) * weight[i], storage);
    }
}

void rope(float* x, const float* cosine, const float* sine, int half, Storage storage) {
    for (int i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        store_one(x, index(i), a * cosine[i] - b * sine[i], storage);
        store_one(x, index(i + half), b * cosine[i] + a * sine[i], storage);
    }
}

void scale(const float* x, float factor, int n, void* out, Storage storage) {
    for (int i = 0; i < n; ++i) store_one(out, index(i), x[i] * factor, storage);
}

void attend_row(const AttentionTile& a, int row) {
    const float* query = static_cast<const float*>(a.queries) + index(row) * index(a.head_dim);
    float* out = a.out + index(row) * index(a.head_dim);
    float maximum = minus_infinity, sum = 0;
    for (int d = 0; d < a.head_dim; ++d) out[d] = 0;
    const int position = a.positions[row];
    const size_t element = storage_bytes(a.storage);
    const size_t tile_bytes = index(kv_tile_tokens) * index(a.head_dim) * element;
    for (int token = a.begin; token < a.end && token <= position; ++token) {
        if (a.window > 0 && token <= position - a.window) continue;
        const std::byte* block = a.cache + index(a.block_table[token / a.block_tokens]) * a.block_stride;
        const std::byte* keys = block + index(token % a.block_tokens / kv_tile_tokens) * tile_bytes;
        const std::byte* values = keys + index(a.block_tokens) * index(a.head_dim) * element;
        const int slot = token % kv_tile_tokens;
        float score = 0;
        for (int d = 0; d < a.head_dim; ++d) score += query[d] * weight_at(keys, a.storage, d, slot, kv_tile_tokens);
        score *= a.scale * log2e;
        const float larger = std::fmax(maximum, score);
        const float keep = std::exp2(maximum - larger), weight = std::exp2(score - larger);
        for (int d = 0; d < a.head_dim; ++d) {
            out[d] = out[d] * keep + weight * weight_at(values, a.storage, slot, d, a.head_dim);
        }
        sum = sum * keep + weight;
        maximum = larger;
    }
    a.maximum[row] = maximum;
    a.sum[row] = sum;
}

void attend(const AttentionTile& a) {
    for (int row = 0; row < a.rows; ++row) attend_row(a, row);
}

void merge(float* total, float* total_max, float* total_sum, const float* part, const float* part_max,
           const float* part_sum, int rows, int head_dim) {
    for (int r = 0; r < rows; ++r) {
        if (part_max[r] == minus_infinity) continue;
        const float larger = std::fmax(total_max[r], part_max[r]);
        const float keep = std::exp2(total_max[r] - larger), take = std::exp2(part_max[r] - larger);
        for (int i = r * head_dim; i < (r + 1) * head_dim; ++i) total[i] = total[i] * keep + part[i] * take;
        total_sum[r] = total_sum[r] * keep + part_sum[r] * take;
        total_max[r] = larger;
    }
}

}  // namespace

namespace detail {
const Kernels& scalar_kernels() {
    static constexpr Kernels table = [] {
        Kernels k;
        k.product = product;
        k.finish = finish;
        k.unpack = unpack;
        k.rms_norm = rms_norm;
        k.rope = rope;
        k.convert = convert;
        k.attend = attend;
        k.merge = merge;
        k.scale = scale;
        return k;
    }();
    return table;
}
}  // namespace detail

const Kernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
    switch (isa) {
        case Isa::avx512_bf16:
            return detail::avx512_bf16_kernels();
        case Isa::avx512:
            return detail::avx512_kernels();
        case Isa::avx2:
            return detail::avx2_kernels();
        case Isa::scalar:
            break;
    }
#endif
    return detail::scalar_kernels();
}

}  // namespace blas_engine
