// The `mock` model kind: no model, only tokens on a clock. It makes the real engine process a test bench for frontends.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/executor.h"

namespace blas_engine {

// A scripted failure: what happens, and after how many tokens (or for which request).
struct MockFault {
    enum class Kind {
        die,            // fatal error: ENGINE_CORE_DEAD, exit code 1
        exit,           // the process vanishes without a word, as after SIGKILL
        hang,           // the busy loop stops
        error_request,  // every Nth request ends with FinishReason::error on its first token
    };
    Kind kind;
    int64_t count;
};

// "die-after-tokens=N", "exit-after-tokens=N", "hang-after-tokens=N", "error-request=N".
std::optional<MockFault> parse_mock_fault(std::string_view text);

struct MockOptions {
    double ttft_seconds = 0;  // from ADD to the first token
    double itl_seconds = 0;   // from step to step
    int tokens_per_step = 1;  // of every request
    int vocab_size = 8192;
    int first_token = 3;    // lower ids are never made up (usually special tokens)
    int output_tokens = 0;  // then EOS; 0 = only max_tokens ends a request
    int max_position = 131072;
    uint64_t seed = 0;
    std::string dtype = "bfloat16";
    std::vector<MockFault> faults;
};

// All decoding requests step together on one clock, as in a real engine with continuous batching: a step happens
// itl_seconds after the previous one, and gives tokens to every request whose first-token time has come. Tokens depend
// on the seed, the prompt, the request's random key (unless greedy) and the position only.
class MockExecutor : public Executor {
  public:
    explicit MockExecutor(MockOptions options);

    const ExecutorInfo& info() const override { return info_; }
    size_t kv_bytes_per_block() const override { return 0; }
    void allocate_kv(int) override {}
    void execute(std::span<const ScheduledRequest> plan) override;
    double next_step_time() const override { return next_step_; }
    void request_added(const Request& request) override;
    void release_weights() override {}
    void reload_weights() override {}

  private:
    double first_token_time(const Request& request) const;
    int32_t make_token(const Request& request) const;
    void add_logprobs(Request& request) const;
    void score_prompt(Request& request) const;
    void apply_faults(Request& request);

    MockOptions options_;
    ExecutorInfo info_;
    double next_step_ = 0;
    int64_t tokens_made_ = 0;
    int64_t requests_started_ = 0;
};

}  // namespace blas_engine
