// The vector kernels, written once over the vocabulary of a vec_*.h header (ENGINE_VECTOR_HEADER) and compiled once per
// instruction set.
//
// Everything here has internal linkage and uses no inline function of the standard library: a copy of one, compiled
// for wider registers, could otherwise be the one the linker keeps for the whole program.
//
// With ENGINE_BF16_DOT the products of bf16 numbers use the bf16 dot product instruction and take bf16 activations;
// without it bf16 weights are widened in registers and multiplied with float activations.
#pragma once

#include "kernels/bfloat16.h"
#include "kernels/kernels.h"
#include ENGINE_VECTOR_HEADER

namespace blas_engine {
namespace {

constexpr float log2e = 1.44269504f;
constexpr float minus_infinity = -__builtin_inff();

// ---------------------------------------------------------------------------------------------------------------
// Register tiles. A tile is R rows times C vectors of columns; `step` is the distance from one k (or pair of k) of the
// right operand to the next. Each sum is one chain over k, the same for every R and C.

struct F32Tile {
    using Left = float;
    static constexpr int k_step = 1;  // k consumed per step of the right operand
    static constexpr Storage storage = Storage::f32;
    template <int R, int C>
    [[gnu::always_inline]] static void accumulate(Vec (&acc)[R][C], const float* x, size_t ldx, const float* w) {
        Vec b[C];
        for (int c = 0; c < C; ++c) b[c] = load(w + c * vec_width);
        for (int r = 0; r < R; ++r) {
            const Vec a = splat(x[static_cast<size_t>(r) * ldx]);
            for (int c = 0; c < C; ++c) acc[r][c] = fma(a, b[c], acc[r][c]);
        }
    }
    using Right = float;
    static constexpr int lane = 1;  // elements of the right operand per column and step
    static constexpr int query_planes = 1;
};

#if defined(ENGINE_BF16_DOT)
struct Bf16Tile {
    using Left = uint16_t;
    static constexpr int k_step = 2;
    static constexpr Storage storage = Storage::bf16;
    template <int R, int C>
    [[gnu::always_inline]] static void accumulate(Vec (&acc)[R][C], const uint16_t* x, size_t ldx, const uint16_t* w) {
        __m512bh b[C];
        for (int c = 0; c < C; ++c) b[c] = (__m512bh)_mm512_loadu_si512(w + c * 2 * vec_width);
        for (int r = 0; r < R; ++r) {
            int32_t pair;
            __builtin_memcpy(&pair, x + static_cast<size_t>(r) * ldx, sizeof pair);
            const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
            for (int c = 0; c < C; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], a, b[c]);
        }
    }
    using Right = uint16_t;
    static constexpr int lane = 2;
    static constexpr int query_planes = 2;
};
#else
struct Bf16Tile {
    using Left = float;
    static constexpr int k_step = 2;
    static constexpr Storage storage = Storage::f32;
    template <int R, int C>
    [[gnu::always_inline]] static void accumulate(Vec (&acc)[R][C], const float* x, size_t ldx, const uint16_t* w) {
        Vec low[C], high[C];
        for (int c = 0; c < C; ++c) {
            const Pairs pairs = load_pairs(w + c * 2 * vec_width);
            low[c] = even(pairs);
            high[c] = odd(pairs);
        }
        for (int r = 0; r < R; ++r) {
            const float* row = x + static_cast<size_t>(r) * ldx;
            const Vec a = splat(row[0]), b = splat(row[1]);
            for (int c = 0; c < C; ++c) acc[r][c] = fma(b, high[c], fma(a, low[c], acc[r][c]));
        }
    }
    using Right = uint16_t;
    static constexpr int lane = 2;
    static constexpr int query_planes = 1;
};
#endif

// acc (+)= x[R, k] times right[k, C vectors]; `stride` is the right operand's step in columns.
template <typename T, int R, int C>
[[gnu::always_inline]] inline void multiply(Vec (&acc)[R][C], const typename T::Left* x, size_t ldx,
                                            const typename T::Right* right, size_t stride, int k) {
    const size_t step = stride * T::lane;
    const int steps = (k + T::k_step - 1) / T::k_step;
#pragma GCC unroll 4
    for (int i = 0; i < steps; ++i) {
        T::template accumulate<R, C>(acc, x, ldx, right);
        x += T::k_step;
        right += step;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Products with packed weights.

// How many vectors of a panel one register tile of R rows takes (the panel is passed over again for the others).
constexpr int panel_vectors = panel_columns / vec_width;
constexpr int columns_for(int rows) {
    return rows * panel_vectors <= vec_registers ? panel_vectors : panel_vectors / 2;
}
constexpr int product_rows = vec_registers / (panel_vectors > 2 ? panel_vectors / 2 : panel_vectors);

template <typename T, int R>
void panel_tile(const void* x, size_t ldx, const void* panel, int k, float* sums) {
    constexpr int C = columns_for(R);
    for (int first = 0; first < panel_vectors; first += C) {
        Vec acc[R][C];
        for (int r = 0; r < R; ++r) {
            for (int c = 0; c < C; ++c) acc[r][c] = zero();
        }
        multiply<T, R, C>(acc, static_cast<const typename T::Left*>(x), ldx,
                          static_cast<const typename T::Right*>(panel) + first * vec_width * T::lane, panel_columns, k);
        for (int r = 0; r < R; ++r) {
            for (int c = 0; c < C; ++c) store(sums + r * panel_columns + (first + c) * vec_width, acc[r][c]);
        }
    }
}

using PanelTile = void (*)(const void* x, size_t ldx, const void* panel, int k, float* sums);

template <typename T>
PanelTile panel_tile_for(int rows) {
    static constexpr PanelTile table[max_tile_rows] = {
        panel_tile<T, 1>,
        panel_tile<T, 2>,
        panel_tile<T, 3>,
        panel_tile<T, 4>,
        panel_tile<T, 5>,
        panel_tile<T, 6>,
#if defined(__AVX512F__)
        panel_tile<T, 7>,
        panel_tile<T, 8>,
        panel_tile<T, 9>,
        panel_tile<T, 10>,
        panel_tile<T, 11>,
        panel_tile<T, 12>,
#endif
    };
    static_assert(product_rows <= max_tile_rows);
    return table[rows - 1];
}

inline Vec silu(Vec x) { return div(x, add(splat(1.0f), exp2(mul(x, splat(-log2e))))); }

inline void store_as(void* out, size_t index, Vec v, Storage storage) {
    if (storage == Storage::bf16) {
        store_bf16(static_cast<uint16_t*>(out) + index, v);
    } else {
        store(static_cast<float*>(out) + index, v);
    }
}

inline void store_one(void* out, size_t index, float v, Storage storage) {
    if (storage == Storage::bf16) {
        static_cast<uint16_t*>(out)[index] = float_to_bf16(v);
    } else {
        static_cast<float*>(out)[index] = v;
    }
}

// What a product with these weights takes and what silu_mul therefore makes for the next one.
Storage activation_storage(Storage weights) { return weights == Storage::bf16 ? Bf16Tile::storage : Storage::f32; }

void finish_rows(const Product& p, int panel, int first_row, int rows, const float* sums, size_t lds) {
    const float* bias = p.bias != nullptr ? p.bias + panel * panel_columns : nullptr;
    const int column = panel * panel_columns;
    if (p.epilogue == Epilogue::silu_mul) {
        constexpr int half = panel_columns / 2;
        const Storage storage = activation_storage(p.storage);
        const int left = p.n / 2 - panel * half;  // the last panel may be part empty
        for (int r = 0; r < rows; ++r, sums += lds) {
            const size_t at = static_cast<size_t>(first_row + r) * p.ldo + static_cast<size_t>(panel * half);
            float tail[half];
            for (int c = 0; c < half; c += vec_width) {
                Vec gate = load(sums + c), up = load(sums + half + c);
                if (bias != nullptr) {
                    gate = add(gate, load(bias + c));
                    up = add(up, load(bias + half + c));
                }
                const Vec y = mul(silu(gate), up);
                if (left >= half) {
                    store_as(p.out, at + static_cast<size_t>(c), y, storage);
                } else {
                    store(tail + c, y);
                }
            }
            for (int c = 0; left < half && c < left; ++c)
                store_one(p.out, at + static_cast<size_t>(c), tail[c], storage);
        }
        return;
    }
    const int columns = p.n - column < panel_columns ? p.n - column : panel_columns;
    for (int r = 0; r < rows; ++r, sums += lds) {
        float* out = static_cast<float*>(p.out) + static_cast<size_t>(first_row + r) * p.ldo + column;
        int c = 0;
        for (; c + vec_width <= columns; c += vec_width) {
            Vec y = load(sums + c);
            if (bias != nullptr) y = add(y, load(bias + c));
            if (p.epilogue == Epilogue::add) y = add(y, load(out + c));
            store(out + c, y);
        }
        for (; c < columns; ++c) {
            float y = sums[c] + (bias != nullptr ? bias[c] : 0.0f);
            if (p.epilogue == Epilogue::add) y += out[c];
            out[c] = y;
        }
    }
}

template <typename T>
void product_of(const Product& p, int panel_begin, int panel_end) {
    const size_t panel_size = static_cast<size_t>((p.k + 1) / 2 * 2) * panel_columns;
    const int tiles = (p.rows + product_rows - 1) / product_rows;
    alignas(64) float sums[max_tile_rows * panel_columns];
    for (int panel = panel_begin; panel < panel_end; ++panel) {
        const auto* weights =
            static_cast<const typename T::Right*>(p.weights) + static_cast<size_t>(panel) * panel_size;
        for (int tile = 0; tile < tiles; ++tile) {
            // Tiles of nearly equal height: 16 rows are 8 + 8, not 12 + 4.
            const int first = static_cast<int>(static_cast<int64_t>(p.rows) * tile / tiles);
            const int rows = static_cast<int>(static_cast<int64_t>(p.rows) * (tile + 1) / tiles) - first;
            const auto* x = static_cast<const typename T::Left*>(p.x) + static_cast<size_t>(first) * p.ldx;
            panel_tile_for<T>(rows)(x, p.ldx, weights, p.k, sums);
            finish_rows(p, panel, first, rows, sums, panel_columns);
        }
    }
}

void product(const Product& p, int panel_begin, int panel_end) {
    if (p.storage == Storage::bf16) {
        product_of<Bf16Tile>(p, panel_begin, panel_end);
    } else {
        product_of<F32Tile>(p, panel_begin, panel_end);
    }
}

void finish(const Product& p, int panel, const float* sums, size_t lds) { finish_rows(p, panel, 0, p.rows, sums, lds); }

void unpack(const Product& p, int panel_begin, int panel_end, float* out, size_t ld) {
    const size_t panel_size = static_cast<size_t>((p.k + 1) / 2 * 2) * panel_columns;
    for (int panel = panel_begin; panel < panel_end; ++panel, out += panel_columns) {
        if (p.storage == Storage::f32) {
            const float* w = static_cast<const float*>(p.weights) + static_cast<size_t>(panel) * panel_size;
            for (int k = 0; k < p.k; ++k, w += panel_columns) {
                float* row = out + static_cast<size_t>(k) * ld;
                for (int c = 0; c < panel_columns; c += vec_width) store(row + c, load(w + c));
            }
        } else {
            const auto* w = static_cast<const uint16_t*>(p.weights) + static_cast<size_t>(panel) * panel_size;
            for (int k = 0; k < p.k; k += 2, w += 2 * panel_columns) {
                float* row = out + static_cast<size_t>(k) * ld;
                for (int c = 0; c < panel_columns; c += vec_width) {
                    const Pairs pairs = load_pairs(w + 2 * c);
                    store(row + c, even(pairs));
                    if (k + 1 < p.k) store(row + ld + c, odd(pairs));
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Element-wise.

void convert(const float* x, int n, void* out, Storage storage) {
    int i = 0;
    for (; i + vec_width <= n; i += vec_width) store_as(out, static_cast<size_t>(i), load(x + i), storage);
    for (; i < n; ++i) store_one(out, static_cast<size_t>(i), x[i], storage);
}

void rms_norm(const float* x, const float* weight, int n, float epsilon, void* out, Storage storage) {
    Vec squares[2] = {zero(), zero()};
    int i = 0;
    for (; i + 2 * vec_width <= n; i += 2 * vec_width) {
        const Vec a = load(x + i), b = load(x + i + vec_width);
        squares[0] = fma(a, a, squares[0]);
        squares[1] = fma(b, b, squares[1]);
    }
    float sum = sum_lanes(add(squares[0], squares[1]));
    for (; i < n; ++i) sum += x[i] * x[i];
    const float factor = 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + epsilon);
    const Vec factors = splat(factor);
    for (i = 0; i + vec_width <= n; i += vec_width) {
        store_as(out, static_cast<size_t>(i), mul(mul(load(x + i), factors), load(weight + i)), storage);
    }
    for (; i < n; ++i) store_one(out, static_cast<size_t>(i), x[i] * factor * weight[i], storage);
}

void rope(float* x, const float* cosine, const float* sine, int half) {
    float* y = x + half;
    int i = 0;
    for (; i + vec_width <= half; i += vec_width) {
        const Vec a = load(x + i), b = load(y + i), c = load(cosine + i), s = load(sine + i);
        store(x + i, sub(mul(a, c), mul(b, s)));
        store(y + i, add(mul(b, c), mul(a, s)));
    }
    for (; i < half; ++i) {
        const float a = x[i], b = y[i];
        x[i] = a * cosine[i] - b * sine[i];
        y[i] = b * cosine[i] + a * sine[i];
    }
}

void scale(const float* x, float factor, int n, void* out, Storage storage) {
    const Vec factors = splat(factor);
    int i = 0;
    for (; i + vec_width <= n; i += vec_width) {
        store_as(out, static_cast<size_t>(i), mul(load(x + i), factors), storage);
    }
    for (; i < n; ++i) store_one(out, static_cast<size_t>(i), x[i] * factor, storage);
}

// ---------------------------------------------------------------------------------------------------------------
// Attention.

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
    const size_t stride = static_cast<size_t>(T::query_planes) * static_cast<size_t>(head_dim);
    for (int tile = 0; tile < tiles_per_pass; tile += at_once) {
        Vec acc[at_once][R][kv_tile_vectors];
        for (int t = 0; t < at_once; ++t) {
            for (int r = 0; r < R; ++r) {
                for (int c = 0; c < kv_tile_vectors; ++c) acc[t][r][c] = zero();
            }
        }
        for (int d = 0; d < head_dim; d += T::k_step) {
            for (int t = 0; t < at_once; ++t) {
                for (int plane = 0; plane < T::query_planes; ++plane) {
                    T::template accumulate<R, kv_tile_vectors>(acc[t], queries + plane * head_dim + d, stride,
                                                               keys[tile + t] + d * kv_tile_tokens);
                }
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

// out[R][head_dim] += weights[R][softmax_tokens] times the values of `tiles` KV tiles, C vectors of columns from d on.
template <typename T, int R, int C>
[[gnu::always_inline]] inline void weigh_columns(const typename T::Left* weights,
                                                 const typename T::Right* const* values, int tiles, int head_dim, int d,
                                                 float* out) {
    Vec acc[R][C];
    for (int r = 0; r < R; ++r) {
        for (int c = 0; c < C; ++c) acc[r][c] = load(out + r * head_dim + d + c * vec_width);
    }
    for (int tile = 0; tile < tiles; ++tile) {
        multiply<T, R, C>(acc, weights + tile * kv_tile_tokens, softmax_tokens, values[tile] + d * T::lane,
                          static_cast<size_t>(head_dim), kv_tile_tokens);
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

size_t query_bytes(Storage cache) {
    if (cache == Storage::f32) return sizeof(float);
    return static_cast<size_t>(Bf16Tile::query_planes) * storage_bytes(Bf16Tile::storage);
}

void convert_query(const float* x, int n, int padded, void* out, Storage cache) {
#if defined(ENGINE_BF16_DOT)
    if (cache == Storage::bf16) {
        auto* high = static_cast<uint16_t*>(out);
        uint16_t* low = high + padded;
        for (int d = 0; d < padded; ++d) {
            high[d] = d < n ? float_to_bf16(x[d]) : uint16_t{0};
            low[d] = d < n ? float_to_bf16(x[d] - bf16_to_float(high[d])) : uint16_t{0};
        }
        return;
    }
#endif
    static_cast<void>(cache);
    for (int d = 0; d < padded; ++d) static_cast<float*>(out)[d] = d < n ? x[d] : 0.0f;
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
    alignas(64) typename T::Left weights[attention_rows * softmax_tokens];
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
            convert(row, softmax_tokens, weights + r * softmax_tokens, T::storage);
        }
        steps.weigh_values(weights, values, tiles, a.head_dim, a.out);
    }
}

void attend(const AttentionTile& a) {
    for (int first = 0; first < a.rows; first += attention_rows) {
        AttentionTile part = a;
        part.rows = a.rows - first < attention_rows ? a.rows - first : attention_rows;
        const size_t offset = static_cast<size_t>(first) * static_cast<size_t>(a.head_dim);
        part.queries = static_cast<const std::byte*>(a.queries) + offset * query_bytes(a.storage);
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

constexpr Kernels make_kernels(Isa isa) {
    Kernels k;
    k.isa = isa;
    k.bf16_activations = Bf16Tile::storage;
    k.product = product;
    k.finish = finish;
    k.unpack = unpack;
    k.rms_norm = rms_norm;
    k.rope = rope;
    k.convert = convert;
    k.query_bytes = query_bytes;
    k.convert_query = convert_query;
    k.attend = attend;
    k.merge = merge;
    k.scale = scale;
    return k;
}

}  // namespace
}  // namespace blas_engine
