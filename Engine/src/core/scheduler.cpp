#include "core/scheduler.h"

#include <algorithm>
#include <cassert>

#include "sampling/repetition.h"

namespace blas_engine {

Scheduler::Scheduler(const SchedulerConfig& config, BlockHasher hasher)
    : config_(config), hasher_(hasher), pool_(config.num_blocks, config.prefix_caching) {
    running_.reserve(config.max_num_seqs);
    plan_.reserve(config.max_num_seqs);
}

void Scheduler::record(Request& request, RequestEventType type, double now) const {
    if (config_.record_events) request.events.push_back({type, now});
}

bool Scheduler::runs_before(const Request& a, const Request& b) const {
    if (config_.priority_policy) {
        if (a.priority != b.priority) return a.priority < b.priority;
        if (a.arrival_time != b.arrival_time) return a.arrival_time < b.arrival_time;
    }
    return a.sequence_number < b.sequence_number;
}

bool Scheduler::add(std::unique_ptr<Request> request, double now) {
    auto [slot, inserted] = requests_.try_emplace(request->id, nullptr);
    if (!inserted) return false;
    request->sequence_number = next_sequence_number_++;
    request->admitted_at = now;
    record(*request, RequestEventType::queued, now);
    enqueue(request.get(), false);
    slot->second = std::move(request);
    return true;
}

void Scheduler::enqueue(Request* request, bool preempted) {
    if (config_.priority_policy) {
        waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), request,
                                         [&](const Request* a, const Request* b) { return runs_before(*a, *b); }),
                        request);
    } else if (preempted) {
        waiting_.push_front(request);
    } else {
        waiting_.push_back(request);
    }
}

std::unique_ptr<Request> Scheduler::remove(std::string_view id) {
    auto found = requests_.find(std::string(id));
    if (found == requests_.end()) return nullptr;
    std::unique_ptr<Request> request = std::move(found->second);
    requests_.erase(found);
    free_blocks(*request);
    if (request->running) {
        std::erase(running_, request.get());
        request->running = false;
    } else {
        std::erase(waiting_, request.get());
    }
    return request;
}

void Scheduler::pause(PauseState state) {
    pause_ = state;
    pause_before_ = next_sequence_number_;
}

bool Scheduler::may_run(const Request& request) const {
    return pause_ != PauseState::finish_current || request.sequence_number < pause_before_;
}

bool Scheduler::has_runnable() const {
    switch (pause_) {
        case PauseState::running:
            return !running_.empty() || !waiting_.empty();
        case PauseState::finish_current:
            return !running_.empty() ||
                   std::any_of(waiting_.begin(), waiting_.end(), [&](const Request* r) { return may_run(*r); });
        case PauseState::frozen:
            return false;
    }
    return false;
}

int Scheduler::chunk_limit(const Request& request) const {
    bool needs_prompt_rows = request.params.prompt_logprobs && !request.prompt_logprobs_done;
    return needs_prompt_rows ? config_.max_prompt_logprob_rows : config_.max_num_batched_tokens;
}

std::span<const ScheduledRequest> Scheduler::schedule(double now) {
    plan_.clear();
    if (pause_ == PauseState::frozen) return {};
    int budget = config_.max_num_batched_tokens;
    bool preempted = schedule_running(now, budget);
    // Blocks that a preemption has just freed belong to the requests that needed them.
    if (!preempted) schedule_waiting(now, budget);
    return plan_;
}

bool Scheduler::schedule_running(double now, int& budget) {
    bool any_preempted = false;
    for (size_t i = 0; i < running_.size() && budget > 0;) {
        Request* request = running_[i];
        int wanted = request->num_tokens() - request->num_computed;
        int num_tokens = std::min({wanted, budget, chunk_limit(*request)});
        bool preempted_itself = false;
        while (!grow_blocks(*request, num_tokens)) {
            Request* victim = pick_victim();
            // The victim may stand before this request (priority policy) and be planned already.
            drop_from_plan(victim, budget);
            size_t victim_index =
                static_cast<size_t>(std::find(running_.begin(), running_.end(), victim) - running_.begin());
            preempt(victim, now);
            any_preempted = true;
            if (victim == request) {
                preempted_itself = true;
                break;
            }
            if (victim_index < i) --i;
        }
        if (preempted_itself) continue;
        plan_.push_back({request, num_tokens, num_tokens == wanted});
        budget -= num_tokens;
        ++i;
    }
    return any_preempted;
}

void Scheduler::schedule_waiting(double now, int& budget) {
    while (!waiting_.empty() && budget > 0 && num_running() < config_.max_num_seqs) {
        auto next = std::find_if(waiting_.begin(), waiting_.end(), [&](const Request* r) { return may_run(*r); });
        if (next == waiting_.end()) break;
        Request* request = *next;

        prefix_.clear();
        int cached = find_cached_prefix(*request, prefix_);
        int wanted = request->num_tokens() - cached;
        int num_tokens = std::min({wanted, budget, chunk_limit(*request)});
        // Cached blocks that nobody uses count as free, so taking them shrinks what is left for new blocks.
        int revived = static_cast<int>(
            std::count_if(prefix_.begin(), prefix_.end(), [&](int32_t block) { return pool_.is_free(block); }));
        int needed = (cached + num_tokens + config_.block_size - 1) / config_.block_size;
        if (needed - static_cast<int>(prefix_.size()) + revived > pool_.num_free()) break;

        for (int32_t block : prefix_) pool_.retain(block);
        request->blocks.assign(prefix_.begin(), prefix_.end());
        request->num_published_blocks = static_cast<int>(prefix_.size());
        request->num_computed = cached;
        bool grown = grow_blocks(*request, num_tokens);
        assert(grown);
        (void)grown;

        bool counted = config_.prefix_caching && !*request->params.skip_reading_prefix_cache;
        if (counted && request->num_preemptions == 0) {
            prefix_stats_.requests += 1;
            prefix_stats_.queries += request->num_tokens();
            prefix_stats_.hits += cached;
        } else if (counted) {
            prefix_stats_.preempted_requests += 1;
            prefix_stats_.preempted_queries += request->num_tokens();
            prefix_stats_.preempted_hits += cached;
        }
        if (request->num_output_tokens() == 0) {
            int whole_blocks = request->prompt_length / config_.block_size * config_.block_size;
            request->prefill_stats = {request->prompt_length, request->prompt_length - cached, cached,
                                      config_.prefix_caching ? std::max(0, whole_blocks - cached) : 0};
        }
        waiting_.erase(next);
        running_.push_back(request);
        request->running = true;
        record(*request, RequestEventType::scheduled, now);
        plan_.push_back({request, num_tokens, num_tokens == wanted});
        budget -= num_tokens;
    }
}

void Scheduler::refresh_hashes(Request& request) {
    size_t whole = static_cast<size_t>(request.num_tokens() / config_.block_size);
    while (request.block_hashes.size() < whole) {
        size_t index = request.block_hashes.size();
        BlockHash parent = index == 0 ? hasher_.root(request.cache_salt) : request.block_hashes.back();
        auto tokens = std::span<const int32_t>(request.tokens)
                          .subspan(index * config_.block_size, static_cast<size_t>(config_.block_size));
        request.block_hashes.push_back(hasher_.chain(parent, tokens));
    }
}

int Scheduler::find_cached_prefix(Request& request, std::vector<int32_t>& blocks) {
    if (!config_.prefix_caching || *request.params.skip_reading_prefix_cache) return 0;
    refresh_hashes(request);
    // The last token is always computed: its logits are needed.
    size_t limit = static_cast<size_t>((request.num_tokens() - 1) / config_.block_size);
    for (size_t i = 0; i < limit; ++i) {
        auto block = pool_.find(request.block_hashes[i]);
        if (!block) break;
        blocks.push_back(*block);
    }
    return static_cast<int>(blocks.size()) * config_.block_size;
}

bool Scheduler::grow_blocks(Request& request, int num_tokens) {
    int needed = (request.num_computed + num_tokens + config_.block_size - 1) / config_.block_size;
    int missing = needed - static_cast<int>(request.blocks.size());
    if (missing > pool_.num_free()) return false;
    for (int i = 0; i < missing; ++i) request.blocks.push_back(pool_.allocate());
    return true;
}

void Scheduler::free_blocks(Request& request) {
    // Last block first: the end of a prompt is less likely to be shared than its beginning, so it is evicted earlier.
    for (auto block = request.blocks.rbegin(); block != request.blocks.rend(); ++block) pool_.release(*block);
    request.blocks.clear();
    request.num_published_blocks = 0;
}

Request* Scheduler::pick_victim() const {
    if (!config_.priority_policy) return running_.back();
    return *std::max_element(running_.begin(), running_.end(),
                             [&](const Request* a, const Request* b) { return runs_before(*a, *b); });
}

void Scheduler::drop_from_plan(const Request* request, int& budget) {
    auto planned =
        std::find_if(plan_.begin(), plan_.end(), [&](const auto& entry) { return entry.request == request; });
    if (planned == plan_.end()) return;
    budget += planned->num_tokens;
    plan_.erase(planned);
}

void Scheduler::preempt(Request* request, double now) {
    std::erase(running_, request);
    free_blocks(*request);
    request->running = false;
    request->num_computed = 0;
    request->num_preemptions += 1;
    record(*request, RequestEventType::preempted, now);
    enqueue(request, true);
}

void Scheduler::preempt_all(double now) {
    while (!running_.empty()) preempt(running_.back(), now);
}

bool Scheduler::reset_prefix_cache() {
    if (!pool_.reset_cache()) return false;
    prefix_stats_ = {};
    prefix_stats_.reset = true;
    return true;
}

void Scheduler::publish_blocks(Request& request) {
    if (!config_.prefix_caching) return;
    int whole = request.num_computed / config_.block_size;
    if (request.num_published_blocks >= whole) return;
    refresh_hashes(request);
    for (; request.num_published_blocks < whole; ++request.num_published_blocks) {
        pool_.publish(request.blocks[request.num_published_blocks], request.block_hashes[request.num_published_blocks]);
    }
}

void Scheduler::commit(std::span<const ScheduledRequest> plan) {
    for (const ScheduledRequest& entry : plan) {
        Request& request = *entry.request;
        request.num_computed += entry.num_tokens;
        publish_blocks(request);
        if (request.error) {
            request.new_tokens.clear();
            request.finish_reason = FinishReason::error;
        } else if (entry.samples) {
            append_new_tokens(request);
        }
        if (request.finish_reason) {
            free_blocks(request);
            request.running = false;
        }
    }
    std::erase_if(running_, [](const Request* request) { return !request->running; });
}

void Scheduler::append_new_tokens(Request& request) {
    for (size_t i = 0; i < request.new_tokens.size(); ++i) {
        request.tokens.push_back(request.new_tokens[i]);
        if (check_stop(request)) {
            request.new_tokens.resize(i + 1);
            return;
        }
    }
}

bool Scheduler::check_stop(Request& request) const {
    const SamplingParams& params = request.params;
    int outputs = request.num_output_tokens();
    int32_t token = request.tokens.back();
    bool out_of_room = request.num_tokens() >= config_.max_model_len;
    if (outputs >= params.min_tokens) {
        if (params.eos_token_id && token == *params.eos_token_id) {
            request.finish_reason = FinishReason::stop;
        } else if (std::find(params.stop_token_ids.begin(), params.stop_token_ids.end(), token) !=
                   params.stop_token_ids.end()) {
            request.finish_reason = FinishReason::stop;
            request.stop_token = token;
        } else if (out_of_room || (params.max_tokens && outputs >= *params.max_tokens)) {
            request.finish_reason = FinishReason::length;
        } else if (ends_in_repetition(request.output(), params.repetition_detection)) {
            request.finish_reason = FinishReason::repetition;
        }
    } else if (out_of_room) {
        request.finish_reason = FinishReason::length;
    }
    return request.finish_reason.has_value();
}

PrefixCacheStats Scheduler::take_prefix_cache_stats() {
    PrefixCacheStats taken = prefix_stats_;
    prefix_stats_ = {};
    return taken;
}

}  // namespace blas_engine
