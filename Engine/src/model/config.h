// What a config.json says about a decoder, as options of one transformer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace blas_engine {

// Rotary position embedding, already reduced to what the computation needs.
struct Rope {
    std::vector<float> frequencies;  // inverse frequency of each rotated pair: head_dim / 2
    float magnitude = 1;             // factor of cosine and sine (yarn)
};

struct ModelConfig {
    std::string architecture;
    int vocab_size = 0;
    int hidden = 0;
    int intermediate = 0;
    int layers = 0;
    int heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    float norm_epsilon = 1e-6f;
    bool tied_embeddings = false;
    bool qkv_bias = false;
    bool output_bias = false;  // of the attention's output projection
    bool mlp_bias = false;
    bool qk_norm = false;      // RMSNorm of every query and key head before the rotation
    std::vector<int> windows;  // per layer: sliding window, 0 = full attention
    int max_position = 0;      // after rope scaling, vLLM's derived max_model_len
    Rope rope;
    std::vector<int32_t> eos_token_ids;
    std::string checkpoint_dtype;  // config.json's dtype, "" if it does not say
};

// Reads config.json and generation_config.json (if there) of a folder. Throws ModelError: missing or bad file, unknown
// architecture (naming the known ones), option that this engine does not compute, values out of bounds.
ModelConfig read_config(const std::string& folder);

// The storage of the weights for a `--dtype` value. As in vLLM, auto takes the checkpoint's dtype but stores float32
// checkpoints in bfloat16; float16 is stored as bfloat16. Throws ModelError for unknown names.
Storage choose_storage(const std::string& dtype, const ModelConfig& config);

// The precision of results. A bfloat16 checkpoint in bfloat16 storage is computed as vLLM computes it, rounded to
// bfloat16 after every operation, so that near-ties between tokens fall the same way. For other checkpoints bfloat16 is
// only a way to store weights: nothing else is rounded.
Storage choose_results(Storage storage, const ModelConfig& config);

}  // namespace blas_engine
