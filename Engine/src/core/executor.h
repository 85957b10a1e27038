// The seam between scheduling and whatever produces tokens: a real model, or the mock.
#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>

#include "core/scheduler.h"

namespace blas_engine {

struct ExecutorInfo {
    std::string model;  // for the log
    std::string architecture;
    std::string dtype;  // as vLLM names it: bfloat16, float32, ...
    int vocab_size = 0;
    int max_position = 0;  // longest sequence the model can hold
    int threads = 1;
};

class Executor {
  public:
    virtual ~Executor() = default;

    virtual const ExecutorInfo& info() const = 0;
    virtual size_t kv_bytes_per_block() const = 0;
    virtual void allocate_kv(int num_blocks) = 0;

    // Computes one step: for every entry that samples, appends to request.new_tokens (empty on entry) and fills
    // request.new_logprobs, request.prompt_logprobs and request.error where they apply. An exception is fatal for the
    // engine, `request.error` only for that request.
    virtual void execute(std::span<const ScheduledRequest> plan) = 0;

    // CLOCK_MONOTONIC seconds before which the next step should not start; 0 = at once.
    virtual double next_step_time() const { return 0; }
    // A request has arrived (the mock's clock may have to run earlier).
    virtual void request_added(Request&) {}

    virtual void release_weights() = 0;
    virtual void reload_weights() = 0;
};

}  // namespace blas_engine
