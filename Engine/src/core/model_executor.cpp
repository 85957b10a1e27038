#include "core/model_executor.h"

#include <algorithm>

#include "sampling/logprobs.h"
#include "sampling/sampler.h"

namespace blas_engine {
namespace {

bool scores_prompt(const ScheduledRequest& entry) {
    const Request& request = *entry.request;
    return request.params.prompt_logprobs && !request.prompt_logprobs_done;
}

int rows_wanted(const ScheduledRequest& entry) {
    if (scores_prompt(entry)) return entry.num_tokens;
    return entry.samples ? 1 : 0;
}

}  // namespace

ModelExecutor::ModelExecutor(std::unique_ptr<Model> model, std::string name) : model_(std::move(model)) {
    const ModelInfo& facts = model_->info();
    info_.model = std::move(name);
    info_.architecture = facts.architecture;
    info_.dtype = facts.dtype;
    info_.vocab_size = facts.vocab_size;
    info_.max_position = facts.max_position;
    info_.threads = model_->threads();
}

void ModelExecutor::allocate_kv(int num_blocks) {
    num_blocks_ = num_blocks;
    model_->allocate_kv(num_blocks);
}

void ModelExecutor::reload_weights() {
    model_->reload_weights();
    model_->allocate_kv(num_blocks_);  // released together with the weights
}

float* ModelExecutor::logits_buffer(size_t floats) {
    if (floats > logits_capacity_) {
        logits_capacity_ = std::max(floats, 2 * logits_capacity_);
        logits_.reset();  // before allocating: two of them need not fit
        logits_ = std::make_unique_for_overwrite<float[]>(logits_capacity_);
    }
    return logits_.get();
}

void ModelExecutor::execute(std::span<const ScheduledRequest> plan) {
    inputs_.clear();
    first_rows_.clear();
    size_t rows = 0;
    for (const ScheduledRequest& entry : plan) {
        const Request& request = *entry.request;
        int wanted = rows_wanted(entry);
        auto tokens = std::span<const int32_t>(request.tokens)
                          .subspan(static_cast<size_t>(request.num_computed), static_cast<size_t>(entry.num_tokens));
        inputs_.push_back({tokens, request.num_computed, request.blocks, wanted});
        first_rows_.push_back(rows);
        rows += static_cast<size_t>(wanted);
    }
    auto vocab = static_cast<size_t>(info_.vocab_size);
    float* logits = logits_buffer(rows * vocab);
    model_->forward(inputs_, logits);
    model_->parallel_for(static_cast<int>(plan.size()), [&](int i) {
        auto index = static_cast<size_t>(i);
        finish_row_block(plan[index], logits + first_rows_[index] * vocab);
    });
}

void ModelExecutor::finish_row_block(const ScheduledRequest& entry, float* logits) {
    if (scores_prompt(entry)) {
        score_prompt(entry, logits);
        logits += static_cast<size_t>(entry.num_tokens - 1) * static_cast<size_t>(info_.vocab_size);
    }
    if (entry.samples) sample_token({logits, static_cast<size_t>(info_.vocab_size)}, *entry.request);
}

void ModelExecutor::score_prompt(const ScheduledRequest& entry, const float* logits) {
    Request& request = *entry.request;
    LogprobRows& rows = request.prompt_logprobs;
    int scored = request.prompt_length - 1;  // nothing predicts the first token
    if (rows.rows != scored) rows.resize(scored, logprob_columns(*request.params.prompt_logprobs, info_.vocab_size));
    auto vocab = static_cast<size_t>(info_.vocab_size);
    for (int i = 0; i < entry.num_tokens; ++i) {
        int position = request.num_computed + i;
        if (position >= scored) break;
        fill_logprob_row({logits + static_cast<size_t>(i) * vocab, vocab},
                         request.tokens[static_cast<size_t>(position) + 1], {}, rows, position);
    }
    if (entry.samples) request.prompt_logprobs_done = true;
}

}  // namespace blas_engine
