#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

namespace blas_engine {

namespace {

constexpr int rows_per_chunk = 4;  // of element-wise work
constexpr int serial_rows = 2;     // up to here a join costs more than it saves
constexpr int max_block_tokens = 4096;

// A row length whose distance in bytes is no multiple of 1 KiB: rows at such distances compete for the same few cache
// sets, and a register tile reads twelve rows side by side.
size_t row_stride(int elements, Storage storage) {
    const size_t line = 64 / storage_bytes(storage);
    size_t stride = (static_cast<size_t>(elements) + line - 1) / line * line;
    if (stride * storage_bytes(storage) % 1024 == 0) stride += line;
    return stride;
}

size_t index(int i) { return static_cast<size_t>(i); }

int checked_block_size(int block_size) {
    if (block_size < kv_tile_tokens || block_size > max_block_tokens || block_size % kv_tile_tokens != 0) {
        throw ModelError("block size " + std::to_string(block_size) + " is not supported (supported: multiples of " +
                         std::to_string(kv_tile_tokens) + " up to " + std::to_string(max_block_tokens) + ")");
    }
    return block_size;
}

Isa isa_from_environment() {
    try {
        return choose_isa();
    } catch (const std::invalid_argument& error) {
        throw ModelError(error.what());
    }
}

// BLAS_ENGINE_GEMM=auto|own|blas; vLLM's VLLM_BATCH_INVARIANT=1 means own.
BlasUse blas_from_environment() {
    const auto value = [](const char* name) {
        const char* text = std::getenv(name);
        return std::string(text == nullptr ? "" : text);
    };
    const std::string wanted = value("BLAS_ENGINE_GEMM");
    if (!wanted.empty() && wanted != "auto" && wanted != "own" && wanted != "blas") {
        throw ModelError("BLAS_ENGINE_GEMM=" + wanted + " is unknown (auto, own, blas)");
    }
    if (wanted == "own" || value("VLLM_BATCH_INVARIANT") == "1") return BlasUse::never;
    return wanted == "blas" ? BlasUse::always : BlasUse::automatic;
}

}  // namespace

std::unique_ptr<Model> Model::load(const LoadOptions& options) {
    ModelConfig config = read_config(options.path);
    return std::make_unique<Transformer>(options, std::move(config), isa_from_environment(), blas_from_environment());
}

Transformer::Transformer(const LoadOptions& options, ModelConfig config, Isa isa, BlasUse blas)
    : config_(std::move(config)),
      storage_(choose_storage(options.dtype, config_)),
      path_(options.path),
      progress_(options.progress),
      pool_(options.threads),
      kernels_(kernels_for(isa)),
      products_(pool_, kernels_, blas),
      cache_(config_.layers, config_.kv_heads, config_.head_dim, checked_block_size(options.block_size), storage_),
      results_(choose_results(storage_, config_)),
      activations_(products_.activations(storage_) == Storage::bf16 ? Storage::bf16 : results_),
      attention_(pool_, kernels_, cache_, config_.heads, config_.kv_heads, config_.head_dim, results_),
      hidden_stride_(row_stride(config_.hidden, activations_)),
      attention_stride_(row_stride(config_.heads * config_.head_dim, activations_)),
      mlp_stride_(row_stride(config_.intermediate, activations_)) {
    info_.architecture = config_.architecture;
    info_.dtype = storage_ == Storage::bf16 ? "bfloat16" : "float32";
    info_.vocab_size = config_.vocab_size;
    info_.max_position = config_.max_position;
    info_.num_layers = config_.layers;
    info_.eos_token_ids = config_.eos_token_ids;
    load_weights();
}

void Transformer::load_weights() {
    weights_ = Weights::load(path_, config_, storage_, pool_, progress_);
    info_.weight_bytes = weights_->bytes();
}

void Transformer::release_weights() {
    weights_.reset();
    cache_.release();
    for (Buffer* buffer : {&residual_, &kept_residual_, &normed_, &attended_, &gated_, &qkv_, &queries_}) {
        buffer->reset();
    }
}

void Transformer::reload_weights() {
    if (!weights_) load_weights();
    if (!cache_.allocated() && cache_.blocks() > 0) cache_.allocate(cache_.blocks());
}

void Transformer::allocate_kv(int num_blocks) {
    try {
        cache_.allocate(num_blocks);
    } catch (const std::bad_alloc&) {
        throw ModelError("not enough memory for " + std::to_string(num_blocks) + " KV cache blocks");
    }
}

void Transformer::parallel_for(int n, const std::function<void(int)>& body) {
    pool_.run(n, [&](int chunk, int) { body(chunk); });
}

void Transformer::prepare(std::span<const SequenceInput> batch) {
    rows_ = output_rows_ = 0;
    spans_.clear();
    output_spans_.clear();
    tile_writes_.clear();
    for (const SequenceInput& sequence : batch) {
        const int count = static_cast<int>(sequence.tokens.size());
        if (count == 0) continue;
        const int wanted = std::clamp(sequence.logits_rows, 0, count);
        const int32_t* table = sequence.block_table.data();
        spans_.push_back({table, sequence.computed, count, rows_, rows_});
        if (wanted > 0) {
            const int skipped = count - wanted;
            output_spans_.push_back({table, sequence.computed + skipped, wanted, rows_ + skipped, output_rows_});
        }
        for (int done = 0; done < count;) {
            const int position = sequence.computed + done;
            const int part = std::min(count - done, kv_tile_tokens - position % kv_tile_tokens);
            tile_writes_.push_back({table, rows_ + done, position, part});
            done += part;
        }
        rows_ += count;
        output_rows_ += wanted;
    }
    const size_t half = config_.rope.frequencies.size();
    cosine_.resize(index(rows_) * half);
    sine_.resize(index(rows_) * half);
    pool_.run(static_cast<int>(tile_writes_.size()), [&](int chunk, int) {
        const TileWrite& tile = tile_writes_[index(chunk)];
        for (int i = 0; i < tile.count; ++i) {
            const auto position = static_cast<float>(tile.position + i);
            const size_t at = index(tile.row + i) * half;
            for (size_t d = 0; d < half; ++d) {
                const float angle = position * config_.rope.frequencies[d];  // in float, as the models were trained
                cosine_[at + d] = std::cos(angle) * config_.rope.magnitude;
                sine_[at + d] = std::sin(angle) * config_.rope.magnitude;
            }
            const int n = static_cast<int>(half);
            kernels_.convert(cosine_.data() + at, n, cosine_.data() + at, results_);
            kernels_.convert(sine_.data() + at, n, sine_.data() + at, results_);
        }
    });
    const size_t rows = index(rows_);
    const size_t heads = index(config_.heads), kv_heads = index(config_.kv_heads);
    residual_.reserve(rows * index(config_.hidden) * sizeof(float));
    kept_residual_.reserve(index(output_rows_) * index(config_.hidden) * sizeof(float));
    normed_.reserve(activation_bytes(rows * hidden_stride_));
    attended_.reserve(activation_bytes(rows * attention_stride_));
    gated_.reserve(activation_bytes(rows * mlp_stride_));
    qkv_.reserve(rows * (heads + 2 * kv_heads) * index(config_.head_dim) * sizeof(float));
    queries_.reserve(rows * heads * attention_.query_bytes());
}

void Transformer::embed(std::span<const SequenceInput> batch) {
    int row = 0;
    for (const SequenceInput& sequence : batch) {
        const auto count = static_cast<int>(sequence.tokens.size());
        const int first = row;
        const auto copy = [&](int i, int) {
            weights_->embed(sequence.tokens[index(i)],
                            residual_.as<float>() + index(first + i) * index(config_.hidden));
        };
        if (count <= serial_rows) {
            for (int i = 0; i < count; ++i) copy(i, 0);
        } else {
            pool_.run(count, copy);
        }
        row += count;
    }
}

// normed = rms_norm(residual) * weight. The last addition to the residual stream is rounded only after the norm has
// seen it, as in vLLM's fused kernel.
void Transformer::normalise(float* residual, const std::vector<float>& weight, int rows) {
    const auto one = [&](int row) {
        float* in = residual + index(row) * index(config_.hidden);
        kernels_.rms_norm(in, weight.data(), config_.hidden, config_.norm_epsilon,
                          normed_.as() + activation_bytes(index(row) * hidden_stride_), activations_, results_);
        if (results_ != Storage::f32) kernels_.convert(in, config_.hidden, in, results_);
    };
    if (rows <= serial_rows) {
        for (int row = 0; row < rows; ++row) one(row);
        return;
    }
    pool_.run((rows + rows_per_chunk - 1) / rows_per_chunk, [&](int chunk, int) {
        const int end = std::min(rows, (chunk + 1) * rows_per_chunk);
        for (int row = chunk * rows_per_chunk; row < end; ++row) one(row);
    });
}

void Transformer::multiply(const Linear& linear, const Buffer& x, size_t ldx, int rows, Epilogue epilogue, void* out,
                           size_t ldo) {
    Product product;
    product.x = x.as();
    product.ldx = ldx;
    product.rows = rows;
    product.weights = linear.matrix.data();
    product.storage = storage_;
    product.n = linear.matrix.n();
    product.k = linear.matrix.k();
    product.results = results_;
    product.bias = linear.bias.empty() ? nullptr : linear.bias.data();
    product.epilogue = epilogue;
    product.out = out;
    product.ldo = ldo;
    products_.run(product);
}

// Splits qkv: queries are normalised, rotated and converted, keys and values go to the cache.
void Transformer::rotate_and_store(int layer) {
    const LayerWeights& weights = weights_->layers()[index(layer)];
    const int dim = config_.head_dim;
    const size_t width = index(config_.heads + 2 * config_.kv_heads) * index(dim);
    const size_t half = index(dim / 2);
    const size_t query_bytes = attention_.query_bytes();
    const auto rotate = [&](float* head, const std::vector<float>& norm, size_t row) {
        if (!norm.empty()) kernels_.rms_norm(head, norm.data(), dim, config_.norm_epsilon, head, results_, results_);
        kernels_.rope(head, cosine_.data() + row * half, sine_.data() + row * half, dim / 2, results_);
    };
    const auto store_token = [&](const TileWrite& tile, int i) {
        const size_t row = index(tile.row + i);
        float* head = qkv_.as<float>() + row * width;
        std::byte* query = queries_.as() + row * index(config_.heads) * query_bytes;
        for (int h = 0; h < config_.heads; ++h, head += dim, query += query_bytes) {
            rotate(head, weights.query_norm, row);
            kernels_.convert(head, dim, query, activations_);
            std::memset(query + activation_bytes(index(dim)), 0, query_bytes - activation_bytes(index(dim)));
        }
        const int position = tile.position + i;
        const int32_t block = tile.block_table[position / cache_.block_tokens()];
        const float* value = head + index(config_.kv_heads) * index(dim);
        for (int h = 0; h < config_.kv_heads; ++h, head += dim, value += dim) {
            rotate(head, weights.key_norm, row);
            cache_.write(layer, h, block, position % cache_.block_tokens(), head, value);
        }
    };
    const auto store_tile = [&](int chunk, int) {
        const TileWrite& tile = tile_writes_[index(chunk)];
        for (int i = 0; i < tile.count; ++i) store_token(tile, i);
    };
    if (rows_ <= serial_rows) {
        for (size_t i = 0; i < tile_writes_.size(); ++i) store_tile(static_cast<int>(i), 0);
    } else {
        pool_.run(static_cast<int>(tile_writes_.size()), store_tile);
    }
}

// From the last layer's attention on, only rows whose logits are wanted matter.
void Transformer::keep_output_rows() {
    const size_t width = index(config_.hidden);
    for (const QuerySpan& span : output_spans_) {
        std::memcpy(kept_residual_.as<float>() + index(span.out_row) * width,
                    residual_.as<float>() + index(span.row) * width, index(span.count) * width * sizeof(float));
    }
}

void Transformer::run_layer(int layer, bool last) {
    const LayerWeights& weights = weights_->layers()[index(layer)];
    const size_t hidden = index(config_.hidden);
    float* residual = residual_.as<float>();
    normalise(residual, weights.input_norm, rows_);
    multiply(weights.qkv, normed_, hidden_stride_, rows_, Epilogue::store, qkv_.as(), index(weights.qkv.matrix.n()));
    rotate_and_store(layer);
    if (last && output_rows_ == 0) return;
    if (last) {
        keep_output_rows();
        residual = kept_residual_.as<float>();
    }
    const int rows = last ? output_rows_ : rows_;
    AttentionInput input;
    input.layer = layer;
    input.window = config_.windows[index(layer)];
    input.queries = queries_.as();
    input.out = attended_.as();
    input.ld_out = attention_stride_;
    attention_.run(last ? output_spans_ : spans_, input);
    multiply(weights.output, attended_, attention_stride_, rows, Epilogue::add, residual, hidden);
    normalise(residual, weights.post_norm, rows);
    multiply(weights.gate_up, normed_, hidden_stride_, rows, Epilogue::silu_mul, gated_.as(), mlp_stride_);
    multiply(weights.down, gated_, mlp_stride_, rows, Epilogue::add, residual, hidden);
}

void Transformer::forward(std::span<const SequenceInput> batch, float* logits) {
    if (!weights_ || !cache_.allocated()) throw ModelError("forward without weights or KV cache (engine is asleep)");
    prepare(batch);
    if (rows_ == 0) return;
    embed(batch);
    for (int layer = 0; layer < config_.layers; ++layer) run_layer(layer, layer + 1 == config_.layers);
    if (output_rows_ == 0) return;
    normalise(kept_residual_.as<float>(), weights_->final_norm(), output_rows_);
    multiply(weights_->lm_head(), normed_, hidden_stride_, output_rows_, Epilogue::store, logits,
             index(config_.vocab_size));
}

}  // namespace blas_engine
