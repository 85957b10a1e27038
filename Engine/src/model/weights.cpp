#include "model/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <set>

#include "kernels/bfloat16.h"
#include "model/model.h"
#include "model/safetensors.h"

namespace blas_engine {

namespace {

constexpr size_t alignment = 4096;
constexpr int rows_per_job = 4 * panel_columns;

// Where the output columns of a packed matrix come from: the rows of its tensors one after the other, or, for gate and
// up, 16 of each in turn.
struct PackPlan {
    Linear* linear = nullptr;
    std::vector<const Tensor*> tensors;
    bool interleave = false;

    std::pair<const Tensor*, size_t> row_of(int column) const {
        auto row = static_cast<size_t>(column);
        if (interleave) {
            constexpr size_t half = panel_columns / 2;
            return {tensors[row / half % 2], row / panel_columns * half + row % half};
        }
        size_t i = 0;
        while (row >= static_cast<size_t>(tensors[i]->shape[0])) row -= static_cast<size_t>(tensors[i++]->shape[0]);
        return {tensors[i], row};
    }
    // Panel columns including the gaps of an interleaved last panel.
    int columns() const { return interleave ? linear->matrix.panels() * panel_columns : linear->matrix.n(); }
};

struct Job {
    const PackPlan* plan;  // null = embedding rows
    int begin, end;
};

}  // namespace

class WeightLoader {
  public:
    WeightLoader(const std::string& folder, const ModelConfig& config, Storage storage)
        : config_(config), storage_(storage), files_(folder) {}

    Weights load(ThreadPool& pool, const Weights::Progress& progress) {
        plan();
        refuse_unknown_tensors();
        place();
        pack(pool, progress);
        return std::move(weights_);
    }

  private:
    const Tensor& tensor(const std::string& name, std::vector<int64_t> shape) {
        const Tensor* found = files_.find(name);
        if (found == nullptr) throw ModelError(files_.source() + ": tensor " + name + " is missing");
        if (found->shape != shape) {
            Tensor expected;
            expected.shape = shape;
            throw ModelError(found->file + ": tensor " + name + " has shape " + found->shape_text() +
                             ", config.json implies " + expected.shape_text());
        }
        if (found->type == TensorType::other) {
            throw ModelError(found->file + ": tensor " + name + " has element type " + found->type_name +
                             " (supported: BF16, F16, F32)");
        }
        used_.insert(name);
        return *found;
    }

    std::vector<float> vector(const std::string& name, int n) {
        const Tensor& source = tensor(name, {n});
        std::vector<float> out(static_cast<size_t>(n));
        source.read(0, out.size(), out.data());
        // A bfloat16 model has all its parameters in bfloat16, also those that we keep as floats.
        if (storage_ == Storage::bf16) {
            for (float& value : out) value = bf16_to_float(float_to_bf16(value));
        }
        return out;
    }

    // Biases of the parts one after the other, in the order of the matrix' columns.
    std::vector<float> bias(const std::vector<std::pair<std::string, int>>& parts, bool interleave) {
        std::vector<float> out;
        if (interleave) {
            const std::vector<float> gate = vector(parts[0].first, parts[0].second);
            const std::vector<float> up = vector(parts[1].first, parts[1].second);
            constexpr size_t half = panel_columns / 2;
            out.assign((gate.size() + half - 1) / half * panel_columns, 0.0f);
            for (size_t i = 0; i < gate.size(); ++i) {
                out[i / half * panel_columns + i % half] = gate[i];
                out[i / half * panel_columns + half + i % half] = up[i];
            }
            return out;
        }
        for (const auto& [name, n] : parts) {
            const std::vector<float> part = vector(name, n);
            out.insert(out.end(), part.begin(), part.end());
        }
        out.resize((out.size() + panel_columns - 1) / panel_columns * panel_columns, 0.0f);
        return out;
    }

    void plan_linear(Linear& linear, const std::vector<std::pair<std::string, int>>& parts, int k, bool with_bias,
                     bool interleave = false) {
        PackPlan plan{&linear, {}, interleave};
        std::vector<std::pair<std::string, int>> biases;
        int n = 0;
        for (const auto& [name, rows] : parts) {
            plan.tensors.push_back(&tensor(name + ".weight", {rows, k}));
            biases.emplace_back(name + ".bias", rows);
            n += rows;
        }
        linear.matrix = PackedMatrix(n, k, storage_);
        if (with_bias) linear.bias = bias(biases, interleave);
        plans_.push_back(std::move(plan));
    }

    void plan_layer(LayerWeights& layer, const std::string& prefix) {
        const ModelConfig& c = config_;
        const int queries = c.heads * c.head_dim, keys = c.kv_heads * c.head_dim;
        layer.input_norm = vector(prefix + "input_layernorm.weight", c.hidden);
        layer.post_norm = vector(prefix + "post_attention_layernorm.weight", c.hidden);
        const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
        if (c.qk_norm) {
            layer.query_norm = vector(attention + "q_norm.weight", c.head_dim);
            layer.key_norm = vector(attention + "k_norm.weight", c.head_dim);
        }
        plan_linear(layer.qkv,
                    {{attention + "q_proj", queries}, {attention + "k_proj", keys}, {attention + "v_proj", keys}},
                    c.hidden, c.qkv_bias);
        plan_linear(layer.output, {{attention + "o_proj", c.hidden}}, queries, c.output_bias);
        plan_linear(layer.gate_up, {{mlp + "gate_proj", c.intermediate}, {mlp + "up_proj", c.intermediate}}, c.hidden,
                    c.mlp_bias, true);
        plan_linear(layer.down, {{mlp + "down_proj", c.hidden}}, c.intermediate, c.mlp_bias);
    }

    void plan() {
        weights_.hidden_ = config_.hidden;
        weights_.storage_ = storage_;
        weights_.layers_.resize(static_cast<size_t>(config_.layers));
        for (size_t i = 0; i < weights_.layers_.size(); ++i) {
            plan_layer(weights_.layers_[i], "model.layers." + std::to_string(i) + ".");
        }
        weights_.final_norm_ = vector("model.norm.weight", config_.hidden);
        const std::string embedding = "model.embed_tokens";
        if (config_.tied_embeddings) {
            plan_linear(weights_.lm_head_, {{embedding, config_.vocab_size}}, config_.hidden, false);
        } else {
            embedding_ = &tensor(embedding + ".weight", {config_.vocab_size, config_.hidden});
            plan_linear(weights_.lm_head_, {{"lm_head", config_.vocab_size}}, config_.hidden, false);
        }
    }

    // A tensor that nothing uses, a bias for instance, would mean that we compute something else than the model.
    void refuse_unknown_tensors() const {
        const auto harmless = [&](const std::string& name) {
            return name.ends_with(".rotary_emb.inv_freq") || (config_.tied_embeddings && name == "lm_head.weight");
        };
        for (const auto& [name, found] : files_.tensors()) {
            if (used_.count(name) == 0 && !harmless(name)) {
                throw ModelError(found.file + ": tensor " + name + " is not part of " + config_.architecture +
                                 " with this config.json");
            }
        }
    }

    static size_t aligned(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

    void place() {
        const size_t embedding_bytes = embedding_ == nullptr ? 0 : embedding_->elements * storage_bytes(storage_);
        size_t total = aligned(embedding_bytes);
        for (const PackPlan& plan : plans_) total += aligned(plan.linear->matrix.bytes());
        try {
            weights_.memory_ = Buffer(total);
        } catch (const std::bad_alloc&) {
            throw ModelError("not enough memory for " + std::to_string(total >> 20) + " MiB of weights");
        }
        weights_.bytes_ = total;
        // In the order in which a step uses them.
        std::byte* at = weights_.memory_.as();
        if (embedding_ != nullptr) {
            embedding_out_ = at;
            weights_.embedding_ = at;
            at += aligned(embedding_bytes);
        }
        for (const PackPlan& plan : plans_) {
            plan.linear->matrix.place(at);
            at += aligned(plan.linear->matrix.bytes());
        }
    }

    void pack_job(const Job& job, std::vector<float>& row) {
        if (job.plan == nullptr) {
            const auto width = static_cast<size_t>(config_.hidden);
            row.resize(width);
            for (int i = job.begin; i < job.end; ++i) {
                const auto first = static_cast<size_t>(i) * width;
                embedding_->read(first, width, row.data());
                if (storage_ == Storage::f32) {
                    std::memcpy(embedding_out_ + first * 4, row.data(), width * 4);
                    continue;
                }
                auto* out = reinterpret_cast<uint16_t*>(embedding_out_) + first;
                for (size_t d = 0; d < width; ++d) out[d] = float_to_bf16(row[d]);
            }
            return;
        }
        PackedMatrix& matrix = job.plan->linear->matrix;
        const auto k = static_cast<size_t>(matrix.k());
        row.resize(k);
        for (int column = job.begin; column < job.end; ++column) {
            const auto [source, index] = job.plan->row_of(column);
            if (index >= static_cast<size_t>(source->shape[0])) continue;
            source->read(index * k, k, row.data());
            matrix.pack_rows(row.data(), column, 1);
        }
    }

    void pack(ThreadPool& pool, const Weights::Progress& progress) {
        std::vector<Job> jobs;
        const auto add = [&](const PackPlan* plan, int columns) {
            for (int begin = 0; begin < columns; begin += rows_per_job) {
                jobs.push_back({plan, begin, std::min(columns, begin + rows_per_job)});
            }
        };
        if (embedding_ != nullptr) add(nullptr, config_.vocab_size);
        for (const PackPlan& plan : plans_) add(&plan, plan.columns());
        std::vector<std::vector<float>> rows(static_cast<size_t>(pool.threads()));
        // In some twenty rounds, so that progress can be told from the calling thread.
        const size_t round = std::max<size_t>(1, jobs.size() / 20);
        for (size_t begin = 0; begin < jobs.size(); begin += round) {
            if (progress) progress(static_cast<double>(begin) / static_cast<double>(jobs.size()), "packing weights");
            const size_t end = std::min(jobs.size(), begin + round);
            pool.run(static_cast<int>(end - begin), [&](int chunk, int thread) {
                pack_job(jobs[begin + static_cast<size_t>(chunk)], rows[static_cast<size_t>(thread)]);
            });
        }
        if (progress) progress(1.0, "weights packed");
    }

    const ModelConfig& config_;
    Storage storage_;
    Safetensors files_;
    Weights weights_;
    std::vector<PackPlan> plans_;
    std::set<std::string> used_;
    const Tensor* embedding_ = nullptr;
    std::byte* embedding_out_ = nullptr;
};

Weights Weights::load(const std::string& folder, const ModelConfig& config, Storage storage, ThreadPool& pool,
                      const Progress& progress) {
    return WeightLoader(folder, config, storage).load(pool, progress);
}

void Weights::embed(int32_t token, float* out) const {
    if (embedding_ == nullptr) return lm_head_.matrix.unpack_row(token, out);
    const auto width = static_cast<size_t>(hidden_);
    const size_t first = static_cast<size_t>(token) * width;
    if (storage_ == Storage::f32) {
        std::memcpy(out, embedding_ + first * 4, width * 4);
        return;
    }
    const auto* row = reinterpret_cast<const uint16_t*>(embedding_) + first;
    for (size_t d = 0; d < width; ++d) out[d] = bf16_to_float(row[d]);
}

}  // namespace blas_engine
