// Products with packed weights. Part of kernels_inl.h.
#pragma once

#include "kernels/tiles_inl.h"

namespace blas_engine {
namespace {

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

void finish_rows(const Product& p, int panel, int first_row, int rows, const float* sums, size_t lds) {
    const float* bias = p.bias != nullptr ? p.bias + panel * panel_columns : nullptr;
    const int column = panel * panel_columns;
    const bool rounded = p.results == Storage::bf16_in_f32;
    if (p.epilogue == Epilogue::silu_mul) {
        constexpr int half = panel_columns / 2;
        const Storage storage = activation_storage(p.storage) == Storage::bf16 ? Storage::bf16 : p.results;
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
                if (rounded) {
                    gate = round_to_bf16(gate);
                    up = round_to_bf16(up);
                }
                const Vec activated = silu(gate);
                const Vec y = mul(rounded ? round_to_bf16(activated) : activated, up);
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
            if (rounded) y = round_to_bf16(y);
            if (p.epilogue == Epilogue::add) y = add(y, load(out + c));
            store(out + c, y);
        }
        for (; c < columns; ++c) {
            float y = sums[c] + (bias != nullptr ? bias[c] : 0.0f);
            if (rounded) y = bf16_rounded(y);
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

}  // namespace
}  // namespace blas_engine
