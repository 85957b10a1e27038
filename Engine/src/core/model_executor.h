#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/executor.h"
#include "model/model.h"

namespace blas_engine {

// Runs a Model and samples from its logits, rows in parallel on the model's threads.
class ModelExecutor : public Executor {
  public:
    ModelExecutor(std::unique_ptr<Model> model, std::string name);

    const ExecutorInfo& info() const override { return info_; }
    size_t kv_bytes_per_block() const override { return model_->kv_bytes_per_block(); }
    void allocate_kv(int num_blocks) override;
    void execute(std::span<const ScheduledRequest> plan) override;
    void release_weights() override { model_->release_weights(); }
    void reload_weights() override;

  private:
    void finish_row_block(const ScheduledRequest& entry, float* logits);
    void score_prompt(const ScheduledRequest& entry, const float* logits);
    float* logits_buffer(size_t floats);

    std::unique_ptr<Model> model_;
    ExecutorInfo info_;
    int num_blocks_ = 0;
    std::vector<SequenceInput> inputs_;
    std::vector<size_t> first_rows_;
    std::unique_ptr<float[]> logits_;
    size_t logits_capacity_ = 0;
};

}  // namespace blas_engine
