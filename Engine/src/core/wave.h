// Waves: how the ranks of a lockstep (mixture-of-experts) deployment start and stop together (vLLM: DPEngineCoreProc).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace blas_engine {

// The coordinator tells all ranks to step (START_DP_WAVE).
struct WaveStart {
    int64_t wave;
    std::optional<int64_t> excluded_rank;  // the one that asked for it
};

// What a rank tells rank 0: it has no unfinished requests in this wave, or has some again.
struct WaveReport {
    int rank;
    int64_t wave;
    bool idle;
};

// Rank 0 tells the others that all were idle.
struct WaveCompleted {
    int64_t wave;
};

// One rank's view. Vllm's ranks find out by an all-reduce over their steps that all are idle; ours, whose steps do not
// depend on each other, report changes to rank 0. A request that comes while the last report is on its way finds its
// wave over and starts the next one.
class Wave {
  public:
    // `starts_itself`: the engine starts waves (from 0.33); before, frontends do, and an engine only for requests that
    // were sent in an earlier wave.
    Wave(int rank, int size, bool starts_itself) : rank_(rank), starts_itself_(starts_itself), idle_in_(size, -1) {}

    int64_t current() const { return current_; }
    bool running() const { return running_; }

    // A request was admitted. The results of this and of completed() are the wave that the coordinator has to start.
    std::optional<int64_t> request_added(int64_t request_wave, bool paused);
    void start(const WaveStart& message);
    std::optional<int64_t> completed(const WaveCompleted& message, bool unfinished);

    // After anything has changed: what rank 0 has to know.
    std::optional<WaveReport> report(bool unfinished);
    // Rank 0 alone: takes a report. Then, whether that ended the wave, which current() counts from then on.
    void take(const WaveReport& report);
    std::optional<WaveCompleted> finish_if_idle();

  private:
    int rank_;
    bool starts_itself_;
    int64_t current_ = 0;
    bool running_ = false;
    std::optional<WaveReport> reported_;
    std::vector<int64_t> idle_in_;  // rank 0: the wave in which each rank is idle, -1 if it is not
};

}  // namespace blas_engine
