// Reference models for tests: what transformers computes with the tiny models of tools/fixtures, and a driver that
// feeds tokens to a Model in chosen chunks.
#pragma once

#include <string>
#include <vector>

#include "model/model.h"

namespace blas_engine::testing {

struct ReferencePrompt {
    std::string name;
    std::vector<int32_t> ids, greedy;
    std::vector<float> margins;          // of each greedy step, between the two best logits
    std::vector<float> logits;           // after the last token
    std::vector<float> prompt_logprobs;  // of the second and later tokens
};

struct Reference {
    std::string name, architecture;
    std::vector<ReferencePrompt> prompts;
};

const std::vector<std::string>& reference_names();
Reference read_reference(const std::string& name);
std::string fixture_folder(const std::string& name);

// Sets an environment variable for its lifetime.
class ScopedEnvironment {
  public:
    ScopedEnvironment(std::string name, const std::string& value);
    ~ScopedEnvironment();

  private:
    std::string name_, old_;
    bool had_;
};

// Names of the instruction sets that this machine can run, for BLAS_ENGINE_ISA.
std::vector<std::string> runnable_isas();

std::unique_ptr<Model> load_fixture(const std::string& name, const std::string& dtype, int blocks = 64,
                                    int block_size = 16, int threads = 2);

// One sequence with blocks of its own, taken from the high end or wherever `first_block` says, in reverse order so that
// neighbouring positions are not neighbours in memory.
class Sequence {
  public:
    Sequence(Model& model, int first_block, int block_count = 12, int block_size = 16);

    SequenceInput next(const std::vector<int32_t>& tokens, int logits_rows = 1);
    // Feeds the tokens in one step or in chunks; returns the logits after the last one.
    std::vector<float> feed(const std::vector<int32_t>& tokens, size_t chunk = SIZE_MAX);
    // Greedy continuation after `logits`.
    std::vector<int32_t> greedy(std::vector<float> logits, size_t steps);

  private:
    Model& model_;
    std::vector<int32_t> blocks_;
    std::vector<int32_t> tokens_;  // keeps the spans of next() alive
    int computed_ = 0;
};

int32_t argmax(const float* logits, size_t n);
// Largest absolute difference over the largest absolute value of `expected`.
double relative_error(const std::vector<float>& actual, const std::vector<float>& expected);

}  // namespace blas_engine::testing
