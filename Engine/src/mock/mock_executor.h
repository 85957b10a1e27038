// The `mock` model kind: no model, only tokens on a clock. It makes the real engine process a test bench for frontends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mock/distribution.h"
#include "mock/faults.h"
#include "mock/scripted_executor.h"

namespace blas_engine {

struct MockOptions {
    Distribution ttft;         // from ADD to the first token
    Distribution itl;          // from step to step
    bool shared_steps = true;  // else every request keeps its own pace
    int tokens_per_step = 1;   // of every request
    int vocab_size = 8192;
    int first_token = 3;            // lower ids are never made up (usually special tokens)
    std::string words_path;         // make up only visible words of this tokenizer
    std::vector<int32_t> word_ids;  // the words of words_path, once it is read
    int output_tokens = 0;          // then EOS; 0 = only max_tokens ends a request
    int max_position = 131072;
    uint64_t seed = 0;
    std::string dtype = "bfloat16";
    std::vector<MockFault> faults;
    std::string replay_path;  // play this recording back instead
};

// With shared steps all decoding requests step together on one clock, as in a real engine with continuous batching: a
// step happens one draw of `itl` after the previous one, and gives tokens to every request whose first-token time has
// come. Tokens depend on the seed, the prompt, the request's random key (unless greedy) and the position only; times on
// the seed and the order of arrival.
class MockExecutor final : public ScriptedExecutor {
  public:
    explicit MockExecutor(MockOptions options);

  protected:
    double begin(Request& request) override;
    double produce(Request& request, double now) override;
    double gap() override;

  private:
    int32_t make_token(const Request& request) const;

    MockOptions options_;
    FaultScript faults_;
    uint64_t steps_ = 0;
};

}  // namespace blas_engine
