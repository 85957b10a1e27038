// Decides what each step computes: continuous batching over paged KV blocks with chunked prefill, prefix caching and
// preemption by recomputation (vLLM: Scheduler).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/block_hash.h"
#include "core/block_pool.h"
#include "core/request.h"

namespace blas_engine {

struct SchedulerConfig {
    int max_num_seqs = 128;
    int max_num_batched_tokens = 2048;
    int max_model_len = 0;
    int block_size = 16;
    int num_blocks = 0;
    bool prefix_caching = true;
    bool priority_policy = false;
    bool record_events = true;
    // Most logits rows a step may ask for on behalf of one request's prompt logprobs.
    int max_prompt_logprob_rows = 256;
};

// One request's part of a step: compute tokens [num_computed, num_computed + num_tokens).
struct ScheduledRequest {
    Request* request;
    int num_tokens;
    bool samples;  // these are its last known tokens, so a new one follows
};

// Deltas since the last time they were taken (vLLM: PrefixCacheStats); queries and hits count tokens.
struct PrefixCacheStats {
    bool reset = false;
    int64_t requests = 0, queries = 0, hits = 0;
    int64_t preempted_requests = 0, preempted_queries = 0, preempted_hits = 0;
};

// Which requests a paused scheduler still runs.
enum class PauseState { running, finish_current, frozen };

class Scheduler {
  public:
    Scheduler(const SchedulerConfig& config, BlockHasher hasher);

    // False if a request with this id is already here.
    bool add(std::unique_ptr<Request> request, double now);
    // Removes a request and gives its blocks back. Returns it (for a last output), null if it is unknown.
    std::unique_ptr<Request> remove(std::string_view id);

    // Plans the next step. The span stays valid until the next call. Empty if nothing can run.
    std::span<const ScheduledRequest> schedule(double now);
    // After the step was computed: advances all scheduled requests, appends their new_tokens and decides which ended
    // (`finish_reason`). Ended requests keep their ids until `remove`, but hold no blocks any more.
    void commit(std::span<const ScheduledRequest> plan);

    // vLLM's pause: finish_current runs only what was added before, frozen runs nothing.
    void pause(PauseState state);
    void resume() { pause_ = PauseState::running; }
    PauseState pause_state() const { return pause_; }
    // Something that the pause state allows to run.
    bool has_runnable() const;

    // Gives up all running requests' blocks; they start over from their tokens.
    void preempt_all(double now);
    // False while blocks are in use.
    bool reset_prefix_cache();

    int num_running() const { return static_cast<int>(running_.size()); }
    int num_waiting() const { return static_cast<int>(waiting_.size()); }
    bool empty() const { return requests_.empty(); }
    const BlockPool& blocks() const { return pool_; }
    PrefixCacheStats take_prefix_cache_stats();
    const std::unordered_map<std::string, std::unique_ptr<Request>>& requests() const { return requests_; }

  private:
    bool may_run(const Request& request) const;
    bool runs_before(const Request& a, const Request& b) const;
    void enqueue(Request* request, bool preempted);
    // True if a request had to give its blocks back.
    bool schedule_running(double now, int& budget);
    void schedule_waiting(double now, int& budget);
    int chunk_limit(const Request& request) const;
    void refresh_hashes(Request& request);
    int find_cached_prefix(Request& request, std::vector<int32_t>& blocks);
    bool grow_blocks(Request& request, int num_tokens);
    void free_blocks(Request& request);
    void preempt(Request* request, double now);
    Request* pick_victim() const;
    void drop_from_plan(const Request* request, int& budget);
    void publish_blocks(Request& request);
    void append_new_tokens(Request& request);
    bool check_stop(Request& request) const;
    void record(Request& request, RequestEventType type, double now) const;

    SchedulerConfig config_;
    BlockHasher hasher_;
    BlockPool pool_;
    std::unordered_map<std::string, std::unique_ptr<Request>> requests_;
    std::deque<Request*> waiting_;
    std::vector<Request*> running_;
    std::vector<ScheduledRequest> plan_;
    std::vector<int32_t> prefix_;  // scratch of schedule_waiting
    uint64_t next_sequence_number_ = 0;
    uint64_t pause_before_ = 0;
    PauseState pause_ = PauseState::running;
    PrefixCacheStats prefix_stats_;
};

}  // namespace blas_engine
