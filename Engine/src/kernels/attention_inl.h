// Paged attention of a few query rows. Part of kernels_inl.h.
#pragma once

#include "kernels/elementwise_inl.h"
#include "kernels/tiles_inl.h"

namespace blas_engine {
namespace {

constexpr int attention_rows = vec_width == 16 ? 12 : 6;
constexpr int kv_tile_vectors = kv_tile_tokens / vec_width;
constexpr int tiles_per_pass = softmax_tokens / kv_tile_tokens;

// scores[R][softmax_tokens] = queries times the keys of four KV tiles.
template <typename T, int R>
void query_keys(const typename T::Left* queries, int head_dim, const typename T::Right* const* keys, float* scores) {
    // Several tiles at once when there are few rows: more independent sums hide the latency of the multiply-add.
    constexpr int at_once = R * kv_tile_vectors * 4 <= vec_registers   ? 4
                            : R * kv_tile_vectors * 2 <= vec_registers ? 2
                                                                       : 1;
    const auto stride = static_cast<size_t>(head_dim);
    for (int tile = 0; tile < tiles_per_pass; tile += at_once) {
        Vec acc[at_once][R][kv_tile_vectors];
        for (int t = 0; t < at_once; ++t) {
            for (int r = 0; r < R; ++r) {
                for (int c = 0; c < kv_tile_vectors; ++c) acc[t][r][c] = zero();
            }
        }
        for (int d = 0; d < head_dim; d += T::k_step) {
            for (int t = 0; t < at_once; ++t) {
                T::template accumulate<R, kv_tile_vectors>(acc[t], queries + d, stride,
                                                           keys[tile + t] + d * kv_tile_tokens);
            }
        }
        for (int t = 0; t < at_once; ++t) {
            for (int r = 0; r < R; ++r) {
                for (int c = 0; c < kv_tile_vectors; ++c) {
                    store(scores + r * softmax_tokens + (tile + t) * kv_tile_tokens + c * vec_width, acc[t][r][c]);
                }
            }
        }
    }
}

// Attention weights as the left operand of a product with values. Bf16 dot products take them as a sum of two bf16
// numbers (planes): vLLM keeps them in float, and one rounding would be the largest error of attention.
template <typename T>
constexpr int weight_stride = T::weight_planes* softmax_tokens;

template <typename T>
void split_weights(const float* row, typename T::Left* out) {
    if constexpr (T::weight_planes == 1) {
        convert(row, softmax_tokens, out, Storage::f32);
    } else {
        for (int c = 0; c < softmax_tokens; c += vec_width) {
            const Vec weight = load(row + c);
            store_bf16(out + c, weight);
            store_bf16(out + softmax_tokens + c, sub(weight, round_to_bf16(weight)));
        }
    }
}

// out[R][head_dim] += weights[R][planes][softmax_tokens] times the values of `tiles` KV tiles, C vectors of columns
// from d on.
template <typename T, int R, int C>
[[gnu::always_inline]] inline void weigh_columns(const typename T::Left* weights,
                                                 const typename T::Right* const* values, int tiles, int head_dim, int d,
                                                 float* out) {
    Vec acc[R][C];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) acc[r][c] = load(out + r * head_dim + d + c * vec_width);
    }
    for (int tile = 0; tile < tiles; ++tile) {
        for (int plane = 0; plane < T::weight_planes; ++plane) {
            multiply<T, R, C>(acc, weights + plane * softmax_tokens + tile * kv_tile_tokens, weight_stride<T>,
                              values[tile] + d * T::lane, static_cast<size_t>(head_dim), kv_tile_tokens);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) store(out + r * head_dim + d + c * vec_width, acc[r][c]);
    }
}

template <typename T, int R>
void weigh_values(const typename T::Left* weights, const typename T::Right* const* values, int tiles, int head_dim,
                  float* out) {
    int d = 0;
    if constexpr (R * 4 <= vec_registers) {
        for (; d + 4 * vec_width <= head_dim; d += 4 * vec_width) {
            weigh_columns<T, R, 4>(weights, values, tiles, head_dim, d, out);
        }
    }
    if constexpr (R * 2 <= vec_registers) {
        for (; d + 2 * vec_width <= head_dim; d += 2 * vec_width) {
            weigh_columns<T, R, 2>(weights, values, tiles, head_dim, d, out);
        }
    }
    for (; d < head_dim; d += vec_width) weigh_columns<T, R, 1>(weights, values, tiles, head_dim, d, out);
}

template <typename T>
struct AttentionSteps {
    void (*query_keys)(const typename T::Left*, int, const typename T::Right* const*, float*);
    void (*weigh_values)(const typename T::Left*, const typename T::Right* const*, int, int, float*);
};

template <typename T>
AttentionSteps<T> attention_steps_for(int rows) {
    static constexpr AttentionSteps<T> table[attention_rows] = {
        {query_keys<T, 1>, weigh_values<T, 1>},
        {query_keys<T, 2>, weigh_values<T, 2>},
        {query_keys<T, 3>, weigh_values<T, 3>},
        {query_keys<T, 4>, weigh_values<T, 4>},
        {query_keys<T, 5>, weigh_values<T, 5>},
        {query_keys<T, 6>, weigh_values<T, 6>},
#if defined(__AVX512F__)
        {query_keys<T, 7>, weigh_values<T, 7>},
        {query_keys<T, 8>, weigh_values<T, 8>},
        {query_keys<T, 9>, weigh_values<T, 9>},
        {query_keys<T, 10>, weigh_values<T, 10>},
        {query_keys<T, 11>, weigh_values<T, 11>},
        {query_keys<T, 12>, weigh_values<T, 12>},
#endif
    };
    return table[rows - 1];
}

// Scores of one row at tokens [first, first + softmax_tokens) to weights; keeps the row's running maximum and sum and
// rescales what it has gathered so far.
inline void softmax_row(float* scores, const AttentionTile& a, int row, int first, float* out) {
    const int low = a.window > 0 && a.positions[row] >= a.window ? a.positions[row] - a.window + 1 : 0;
    const int high = a.positions[row] < a.end ? a.positions[row] : a.end - 1;
    const bool whole = first >= low && first + softmax_tokens - 1 <= high;
    const Vec factor = splat(a.scale * log2e);
    Vec largest = splat(minus_infinity);
    for (int c = 0; c < softmax_tokens; c += vec_width) {
        Vec s = mul(load(scores + c), factor);
        if (!whole) s = keep_range(s, first + c, low, high, minus_infinity);
        store(scores + c, s);
        largest = max(largest, s);
    }
    const float part = max_lanes(largest);
    const float old = a.maximum[row];
    const float maximum = old > part ? old : part;
    if (maximum == minus_infinity) {
        for (int c = 0; c < softmax_tokens; ++c) scores[c] = 0.0f;
        return;
    }
    const Vec maxima = splat(maximum);
    Vec sums = zero();
    for (int c = 0; c < softmax_tokens; c += vec_width) {
        const Vec w = exp2(sub(load(scores + c), maxima));
        store(scores + c, w);
        sums = add(sums, w);
    }
    alignas(64) float lanes[vec_width];
    store(lanes, exp2(splat(old - maximum)));
    const float keep = lanes[0];
    a.sum[row] = a.sum[row] * keep + sum_lanes(sums);
    a.maximum[row] = maximum;
    if (keep != 1.0f) {
        const Vec keeps = splat(keep);
        for (int d = 0; d < a.head_dim; d += vec_width) store(out + d, mul(load(out + d), keeps));
    }
}

template <typename T>
void attend_rows(const AttentionTile& a) {
    for (int r = 0; r < a.rows; ++r) {
        a.maximum[r] = minus_infinity;
        a.sum[r] = 0.0f;
    }
    for (int i = 0; i < a.rows * a.head_dim; i += vec_width) store(a.out + i, zero());
    const AttentionSteps<T> steps = attention_steps_for<T>(a.rows);
    const size_t tile_elements = static_cast<size_t>(kv_tile_tokens) * static_cast<size_t>(a.head_dim);
    const size_t values_offset = static_cast<size_t>(a.block_tokens) * static_cast<size_t>(a.head_dim);
    alignas(64) float scores[attention_rows * softmax_tokens];
    alignas(64) typename T::Left weights[attention_rows * weight_stride<T>];
    const auto* queries = static_cast<const typename T::Left*>(a.queries);
    for (int first = a.begin; first < a.end; first += softmax_tokens) {
        const typename T::Right* keys[tiles_per_pass];
        const typename T::Right* values[tiles_per_pass];
        int tiles = 0;
        for (; tiles < tiles_per_pass && first + tiles * kv_tile_tokens < a.end; ++tiles) {
            const int token = first + tiles * kv_tile_tokens;
            const auto block = static_cast<size_t>(a.block_table[token / a.block_tokens]);
            const auto tile = static_cast<size_t>(token % a.block_tokens / kv_tile_tokens);
            const auto* base = reinterpret_cast<const typename T::Right*>(a.cache + block * a.block_stride);
            keys[tiles] = base + tile * tile_elements;
            values[tiles] = base + values_offset + tile * tile_elements;
        }
        // Scores of tiles that are not there are masked: any readable keys do.
        for (int t = tiles; t < tiles_per_pass; ++t) keys[t] = keys[tiles - 1];
        steps.query_keys(queries, a.head_dim, keys, scores);
        for (int r = 0; r < a.rows; ++r) {
            float* row = scores + r * softmax_tokens;
            softmax_row(row, a, r, first, a.out + r * a.head_dim);
            split_weights<T>(row, weights + r * weight_stride<T>);
        }
        steps.weigh_values(weights, values, tiles, a.head_dim, a.out);
    }
}

void attend(const AttentionTile& a) {
    for (int first = 0; first < a.rows; first += attention_rows) {
        AttentionTile part = a;
        part.rows = a.rows - first < attention_rows ? a.rows - first : attention_rows;
        const size_t offset = static_cast<size_t>(first) * static_cast<size_t>(a.head_dim);
        part.queries = static_cast<const std::byte*>(a.queries) + offset * storage_bytes(activation_storage(a.storage));
        part.positions = a.positions + first;
        part.out = a.out + offset;
        part.maximum = a.maximum + first;
        part.sum = a.sum + first;
        if (a.storage == Storage::bf16) {
            attend_rows<Bf16Tile>(part);
        } else {
            attend_rows<F32Tile>(part);
        }
    }
}

void merge(float* total, float* total_max, float* total_sum, const float* part, const float* part_max,
           const float* part_sum, int rows, int head_dim) {
    for (int r = 0; r < rows; ++r) {
        if (part_max[r] == minus_infinity) continue;
        const float maximum = total_max[r] > part_max[r] ? total_max[r] : part_max[r];
        alignas(64) float lanes[vec_width];
        store(lanes, exp2(splat(total_max[r] - maximum)));
        const float keep = lanes[0];
        store(lanes, exp2(splat(part_max[r] - maximum)));
        const float take = lanes[0];
        const Vec keeps = splat(keep), takes = splat(take);
        for (int d = 0; d < head_dim; d += vec_width) {
            const int at = r * head_dim + d;
            store(total + at, fma(load(part + at), takes, mul(load(total + at), keeps)));
        }
        total_sum[r] = total_sum[r] * keep + part_sum[r] * take;
        total_max[r] = maximum;
    }
}

}  // namespace
}  // namespace blas_engine
