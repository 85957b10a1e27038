#include "mock/scripted_executor.h"

#include <algorithm>

#include "core/clock.h"
#include "sampling/logprobs.h"

namespace blas_engine {

void ScriptedExecutor::request_added(Request& request) {
    request.script.due_at = begin(request);
    // A request that begins between two shared steps waits for the next one.
    if (!stepping_ || !shared_steps_) next_step_ = std::min(next_step_, request.script.due_at);
}

void ScriptedExecutor::execute(std::span<const ScheduledRequest> plan) {
    const double now = monotonic_seconds();
    bool prefilling = false;
    double earliest = never;
    stepping_ = false;
    for (const ScheduledRequest& entry : plan) {
        Request& request = *entry.request;
        if (!entry.samples) {
            prefilling = true;
            continue;
        }
        const bool begun = request.num_output_tokens() > 0;
        if (now < request.script.due_at && !(shared_steps_ && begun)) {
            earliest = std::min(earliest, request.script.due_at);
            continue;
        }
        if (!begun && request.params.prompt_logprobs && !request.prompt_logprobs_done) score_prompt(request);
        request.script.due_at = produce(request, now);
        if (request.params.wants_logprobs()) add_logprobs(request);
        earliest = std::min(earliest, request.script.due_at);
        stepping_ = true;
    }
    if (prefilling) {
        next_step_ = 0;
    } else if (stepping_ && shared_steps_) {
        next_step_ = next_time(next_step_ < never ? next_step_ : 0, gap(), now);
    } else {
        next_step_ = earliest;
    }
}

// Made-up values of the right shape: the token at -0.5, alternatives below it at -1, -2, ...
void ScriptedExecutor::add_logprobs(Request& request) const {
    const SamplingParams& params = request.params;
    int columns = params.has_logprob_token_ids ? static_cast<int>(params.logprob_token_ids.size()) + 1
                                               : logprob_columns(*params.logprobs, info_.vocab_size);
    LogprobRows& rows = request.new_logprobs;
    rows.resize(static_cast<int>(request.new_tokens.size()), columns);
    for (int row = 0; row < rows.rows; ++row) {
        auto start = static_cast<size_t>(row) * static_cast<size_t>(columns);
        int32_t token = request.new_tokens[static_cast<size_t>(row)];
        rows.ranks[static_cast<size_t>(row)] = 1;
        rows.token_ids[start] = token;
        rows.logprobs[start] = -0.5F;
        for (int column = 1; column < columns; ++column) {
            auto at = start + static_cast<size_t>(column);
            rows.token_ids[at] = params.has_logprob_token_ids
                                     ? params.logprob_token_ids[static_cast<size_t>(column) - 1]
                                     : (token + column - 1) % info_.vocab_size;
            rows.logprobs[at] = rows.token_ids[at] == token ? -0.5F : -static_cast<float>(column);
        }
    }
}

void ScriptedExecutor::score_prompt(Request& request) const {
    LogprobRows& rows = request.prompt_logprobs;
    rows.resize(request.prompt_length - 1, logprob_columns(*request.params.prompt_logprobs, info_.vocab_size));
    for (int row = 0; row < rows.rows; ++row) {
        int32_t token = request.tokens[static_cast<size_t>(row) + 1];
        rows.ranks[static_cast<size_t>(row)] = 1;
        for (int column = 0; column < rows.columns; ++column) {
            auto at = static_cast<size_t>(row) * static_cast<size_t>(rows.columns) + static_cast<size_t>(column);
            int offset = std::max(column - 1, 0);
            rows.token_ids[at] = (token + offset) % info_.vocab_size;
            rows.logprobs[at] = -0.5F - static_cast<float>(offset);
        }
    }
    request.prompt_logprobs_done = true;
}

}  // namespace blas_engine
