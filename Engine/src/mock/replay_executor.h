// Plays a recording back: the tokens and the timing of a real run, without its model.
#pragma once

#include <unordered_map>
#include <vector>

#include "core/recording.h"
#include "mock/faults.h"
#include "mock/scripted_executor.h"

namespace blas_engine {

// A request gets the recorded answer to the same prompt; if there are several, in the order of the recording, from its
// beginning again after the last. A prompt that was not recorded gets the recorded answers in their order. Sampling
// parameters do not change the tokens, only where the answer ends; a request that asks for more than was recorded gets
// the same steps again, at the recorded distances.
class ReplayExecutor final : public ScriptedExecutor {
  public:
    ReplayExecutor(Recording recording, std::vector<MockFault> faults);

  protected:
    double begin(Request& request) override;
    double produce(Request& request, double now) override;

  private:
    struct Prompt {
        std::vector<size_t> answers;
        size_t next = 0;
    };

    Recording recording_;
    std::unordered_map<uint64_t, Prompt> prompts_;
    Prompt all_;
    FaultScript faults_;
};

}  // namespace blas_engine
