// What the mock and the replay have in common: tokens on a clock instead of a model.
#pragma once

#include <limits>

#include "core/executor.h"

namespace blas_engine {

class ScriptedExecutor : public Executor {
  public:
    const ExecutorInfo& info() const override { return info_; }
    size_t kv_bytes_per_block() const override { return 0; }
    void allocate_kv(int) override {}
    void execute(std::span<const ScheduledRequest> plan) override;
    double next_step_time() const override { return next_step_; }
    void request_added(Request& request) override;
    void release_weights() override {}
    void reload_weights() override {}

  protected:
    // `shared_steps`: requests that have begun get tokens together, every gap(); else each at the time of its own.
    explicit ScriptedExecutor(bool shared_steps) : shared_steps_(shared_steps) {}

    // All times are CLOCK_MONOTONIC seconds. When the first token of a request is due.
    virtual double begin(Request& request) = 0;
    // Appends a step's tokens to request.new_tokens and returns when the next ones are due (unused for shared steps).
    virtual double produce(Request& request, double now) = 0;
    // Seconds to the next shared step.
    virtual double gap() { return 0; }

    // Times keep to their plan, so that small delays do not add up; after a long stall the plan starts anew.
    static double next_time(double previous, double gap, double now) {
        return previous + gap > now ? previous + gap : now + gap;
    }

    ExecutorInfo info_;

  private:
    static constexpr double never = std::numeric_limits<double>::infinity();

    void add_logprobs(Request& request) const;
    void score_prompt(Request& request) const;

    bool shared_steps_;
    bool stepping_ = false;  // somebody gets tokens with the next shared step
    double next_step_ = never;
};

}  // namespace blas_engine
