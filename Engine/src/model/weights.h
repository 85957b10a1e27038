// All weights of a model, packed for the kernels in one piece of memory.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_pool.h"
#include "model/config.h"

namespace blas_engine {

// A linear layer: the matrix in panels, and its bias in panel order (empty = none), padded to whole panels.
struct Linear {
    PackedMatrix matrix;
    std::vector<float> bias;
};

struct LayerWeights {
    std::vector<float> input_norm, post_norm;  // hidden
    std::vector<float> query_norm, key_norm;   // head_dim, empty without qk_norm
    Linear qkv;                                // rows of q, then k, then v
    Linear output;                             // attention output projection
    Linear gate_up;  // 16 gate and 16 up columns in each panel, so that SiLU needs no second pass
    Linear down;
};

class Weights {
  public:
    using Progress = std::function<void(double fraction, const std::string& what)>;

    // Reads and packs everything. Throws ModelError naming file and tensor: missing tensors, shapes that do not fit the
    // config, element types other than BF16, F16, F32, tensors that this architecture does not know.
    static Weights load(const std::string& folder, const ModelConfig& config, Storage storage, ThreadPool& pool,
                        const Progress& progress);

    size_t bytes() const { return bytes_; }
    const std::vector<LayerWeights>& layers() const { return layers_; }
    const std::vector<float>& final_norm() const { return final_norm_; }
    const Linear& lm_head() const { return lm_head_; }
    // Row `token` of the embedding table as floats.
    void embed(int32_t token, float* out) const;

  private:
    friend class WeightLoader;
    Buffer memory_;
    size_t bytes_ = 0;
    std::vector<LayerWeights> layers_;
    std::vector<float> final_norm_;
    Linear lm_head_;
    const std::byte* embedding_ = nullptr;  // row-major in `storage`; null = tied: read from the LM head's panels
    int hidden_ = 0;
    Storage storage_ = Storage::bf16;
};

}  // namespace blas_engine
