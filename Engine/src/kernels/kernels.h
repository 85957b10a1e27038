// The arithmetic of a transformer step as a table of functions per instruction set.
//
// Every function computes a row in an order of operations that depends on the row's own length only, never on how many
// rows are computed together. That is what makes a sequence's tokens independent of the batch it happens to be in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"

namespace blas_engine {

// How numbers are stored. Arithmetic is always in float. `bf16_in_f32` are floats of bf16 precision: what vLLM holds in
// a bf16 tensor and we in a float buffer; weights and caches are never stored like that.
enum class Storage { bf16, f32, bf16_in_f32 };

constexpr size_t storage_bytes(Storage storage) { return storage == Storage::bf16 ? 2 : 4; }

// Columns of a weight panel, see PackedMatrix in packed_matrix.h.
constexpr int panel_columns = 32;
// Largest number of rows that one pass over a panel serves.
constexpr int max_tile_rows = 12;
// Tokens of a KV tile: a KV block is a whole number of tiles.
constexpr int kv_tile_tokens = 16;
// Tokens of one softmax pass, and of one independently computed share of a long sequence. Both are fixed so that the
// order of summation depends on the position alone.
constexpr int softmax_tokens = 64;
constexpr int split_tokens = 1024;

// What happens to the columns of a product.
enum class Epilogue {
    store,     // out = x W^T + bias, float
    add,       // out += x W^T + bias, float (the residual stream)
    silu_mul,  // columns 0..15 of each panel are gate, 16..31 up: out = silu(gate) * up in activation storage
};

// One product out[rows, n] = x[rows, k] W[n, k]^T, W in panels.
struct Product {
    const void* x = nullptr;  // activations, rows of `ldx` elements, zero-padded to an even k
    size_t ldx = 0;
    int rows = 0;
    const void* weights = nullptr;
    Storage storage = Storage::bf16;
    int n = 0;  // output columns (for silu_mul: gate and up together)
    int k = 0;  // input columns
    // bf16_in_f32: sums (with bias) are rounded before the epilogue, silu(gate) before it is multiplied with up.
    Storage results = Storage::f32;
    const float* bias = nullptr;  // n floats rounded up to whole panels, in panel order, or null
    Epilogue epilogue = Epilogue::store;
    void* out = nullptr;  // rows of `ldo` elements
    size_t ldo = 0;
};

// Attention of a few query rows of one sequence to one KV head, over positions [begin, end) of one split.
// A KV block of one head holds keys, then values:
//   keys    per 16 tokens: [head_dim / 2][16 tokens][2] bf16, or [head_dim][16 tokens] float
//   values  per 16 tokens: [8 token pairs][head_dim][2] bf16, or [16 tokens][head_dim] float
struct AttentionTile {
    const void* queries = nullptr;    // rows of head_dim activations, contiguous
    const int* positions = nullptr;   // of each row
    int rows = 0;                     // <= max_tile_rows
    int head_dim = 0;                 // multiple of 16
    Storage storage = Storage::bf16;  // of the cache
    float scale = 1;
    int window = 0;                    // 0 = all earlier tokens, else row p sees (p - window, p]
    const std::byte* cache = nullptr;  // this layer's and KV head's part of block 0
    size_t block_stride = 0;           // bytes from one block to the next
    const int32_t* block_table = nullptr;
    int block_tokens = 16;
    int begin = 0;  // multiple of softmax_tokens
    int end = 0;
    float* out = nullptr;      // rows x head_dim, weighted sums not yet divided
    float* maximum = nullptr;  // per row: largest score times log2(e), -inf if no token was visible
    float* sum = nullptr;      // per row: sum of exp2(score * log2(e) - maximum)
};

struct Kernels {
    Isa isa = Isa::scalar;
    // Storage of activations that go into a product with bf16 weights, and of queries to a bf16 cache: bf16, or f32 for
    // floats of any precision. With float weights it is always f32.
    Storage bf16_activations = Storage::f32;

    // Columns [panel_begin, panel_end) x 32 of a product.
    void (*product)(const Product&, int panel_begin, int panel_end) = nullptr;
    // The epilogue alone for one panel whose sums were computed elsewhere (`sums`: rows of `lds` floats).
    void (*finish)(const Product&, int panel, const float* sums, size_t lds) = nullptr;
    // Panels [panel_begin, panel_end) as a row-major float matrix [k][ld], for a BLAS library.
    void (*unpack)(const Product&, int panel_begin, int panel_end, float* out, size_t ld) = nullptr;
    // out = x / rms(x) * weight, in `storage`; x / rms(x) is rounded to `results` before.
    void (*rms_norm)(const float* x, const float* weight, int n, float epsilon, void* out, Storage storage,
                     Storage results) = nullptr;
    // Rotates the two halves of x[2 * half] against each other, Hugging Face order. In place; f32 or bf16_in_f32.
    void (*rope)(float* x, const float* cosine, const float* sine, int half, Storage storage) = nullptr;
    void (*convert)(const float* x, int n, void* out, Storage storage) = nullptr;
    void (*attend)(const AttentionTile&) = nullptr;
    // total = total * exp2(old_max - new_max) + part * exp2(part_max - new_max), sums alike; rows x head_dim.
    void (*merge)(float* total, float* total_max, float* total_sum, const float* part, const float* part_max,
                  const float* part_sum, int rows, int head_dim) = nullptr;
    // y = x * factor, in `storage`.
    void (*scale)(const float* x, float factor, int n, void* out, Storage storage) = nullptr;
};

// The table of an instruction set that isa_supported() says is usable.
const Kernels& kernels_for(Isa isa);

namespace detail {
const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();
}  // namespace detail

}  // namespace blas_engine
