// The decoder-only transformer behind Model, with the options of ModelConfig.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/product_runner.h"
#include "kernels/thread_pool.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/model.h"
#include "model/weights.h"

namespace blas_engine {

class Transformer final : public Model {
  public:
    Transformer(const LoadOptions& options, ModelConfig config, Isa isa, BlasUse blas);

    const ModelInfo& info() const override { return info_; }
    size_t kv_bytes_per_block() const override { return cache_.bytes_per_block(); }
    void allocate_kv(int num_blocks) override;
    void forward(std::span<const SequenceInput> batch, float* logits) override;
    void release_weights() override;
    void reload_weights() override;
    int threads() const override { return pool_.threads(); }
    void parallel_for(int n, const std::function<void(int)>& body) override;

  private:
    // Tokens of one sequence that share a KV tile: one thread writes a tile, so that it can clear it first.
    struct TileWrite {
        const int32_t* block_table;
        int row, position, count;
    };

    void load_weights();
    void prepare(std::span<const SequenceInput> batch);
    void embed(std::span<const SequenceInput> batch);
    void normalise(float* residual, const std::vector<float>& weight, int rows);
    void multiply(const Linear& linear, const Buffer& x, size_t ldx, int rows, Epilogue epilogue, void* out,
                  size_t ldo);
    void rotate_and_store(int layer);
    void keep_output_rows();
    void run_layer(int layer, bool last);
    size_t activation_bytes(size_t elements) const { return elements * storage_bytes(activations_); }

    const ModelConfig config_;
    const Storage storage_;
    const std::string path_;
    const std::function<void(double, const std::string&)> progress_;
    ThreadPool pool_;
    const Kernels& kernels_;
    ProductRunner products_;
    KvCache cache_;
    // Precision of what is computed, and how it is stored as an operand.
    const Storage results_, activations_;
    Attention attention_;
    ModelInfo info_;
    std::optional<Weights> weights_;

    // Of the current step. Strides are padded so that rows do not fall on the same cache sets.
    int rows_ = 0, output_rows_ = 0;
    std::vector<QuerySpan> spans_, output_spans_;
    std::vector<TileWrite> tile_writes_;
    std::vector<float> cosine_, sine_;  // per row: head_dim / 2
    size_t hidden_stride_, attention_stride_, mlp_stride_;
    Buffer residual_, kept_residual_;   // rows of hidden floats
    Buffer normed_, attended_, gated_;  // activations
    Buffer qkv_, queries_;
};

}  // namespace blas_engine
