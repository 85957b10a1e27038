#include "core/engine_core.h"

#include <algorithm>
#include <limits>

#include "core/clock.h"
#include "core/log.h"
#include "core/utility_calls.h"
#include "sampling/random.h"

namespace blas_engine {
namespace {

constexpr double forever = std::numeric_limits<double>::infinity();

}  // namespace

EngineCore::EngineCore(EngineCoreConfig config, Executor& executor, InputQueue& input, OutputThread& output,
                       Pulse& pulse, WaveChannel* waves)
    : config_(std::move(config)),
      executor_(executor),
      input_(input),
      output_(output),
      pulse_(pulse),
      scheduler_(config_.scheduler, BlockHasher::random()),
      encoder_(config_.layout, config_.engine_index),
      stamps_(config_.stamps_path),
      recorder_(config_.record_path, executor.info()),
      wave_channel_(waves),
      outputs_by_client_(static_cast<size_t>(output.num_clients())),
      finished_by_client_(static_cast<size_t>(output.num_clients())) {
    if (waves != nullptr) wave_.emplace(config_.engine_index, config_.lockstep_ranks, config_.starts_waves);
}

void EngineCore::run() {
    for (;;) {
        settle_pause();
        bool runnable = scheduler_.has_runnable() || final_stats_due_;
        double deadline = runnable ? executor_.next_step_time() : forever;
        if (final_stats_due_) deadline = 0;
        if (shutting_down_) deadline = std::min(deadline, drain_deadline_);
        handle_events(deadline);
        if (shutting_down_) {
            if (monotonic_seconds() >= drain_deadline_) abort_all();
            if (scheduler_.empty()) return;
        }
        bool due = executor_.next_step_time() <= monotonic_seconds();
        if (final_stats_due_ || (due && scheduler_.has_runnable())) step();
        settle_wave();
    }
}

void EngineCore::handle_events(double deadline) {
    events_.clear();
    pulse_.busy_since.store(0, std::memory_order_relaxed);
    input_.take(events_, deadline);
    pulse_.turns.fetch_add(1, std::memory_order_relaxed);
    pulse_.busy_since.store(monotonic_seconds(), std::memory_order_relaxed);
    for (InputEvent& event : events_) {
        std::visit([&](auto& message) { handle(message); }, event);
    }
    if (!events_.empty()) publish_counts();
}

void EngineCore::handle(AddMessage& message) {
    std::unique_ptr<Request> request = std::move(message.request);
    if (shutting_down_) return refuse(std::move(request), FinishReason::abort, std::nullopt);
    if (reject_while_paused_) {
        return refuse(std::move(request), FinishReason::error,
                      RequestError{"engine_paused", "Generation is paused.", true});
    }
    // Kept out of the batch altogether: the frontend expects no output.
    if (request->abort_immediately) return;
    uint64_t key = request->params.seed ? static_cast<uint64_t>(*request->params.seed)
                                        : mix64(config_.seed) ^ mix64(~requests_admitted_);
    request->random_key = key;
    ++requests_admitted_;
    Request& added = *request;
    if (!scheduler_.add(std::move(request), monotonic_seconds())) {
        // An answer under this id would end the request that has it.
        log(LogLevel::warning, "dropped an ADD whose request id is already in use");
        return;
    }
    stamps_.received(added);
    recorder_.admitted(added);
    join_wave(added);
    executor_.request_added(added);
}

void EngineCore::handle(RejectedAdd& message) {
    auto request = std::make_unique<Request>();
    request->id = std::move(message.id);
    request->client_index = message.client_index;
    log(LogLevel::warning, "refused request %s: %s", request->id.c_str(), message.error.message.c_str());
    if (scheduler_.requests().contains(request->id)) return;
    refuse(std::move(request), FinishReason::error, std::move(message.error));
}

void EngineCore::handle(AbortMessage& message) {
    for (const std::string& id : message.ids) {
        if (auto request = scheduler_.remove(id)) {
            log(LogLevel::debug, "request %s aborted after %d tokens", id.c_str(), request->num_output_tokens());
            final_stats_due_ = config_.log_stats && scheduler_.empty();
            // There is no output for it, but vLLM's frontends with a coordinator count their requests down by this.
            if (output_.has_coordinator()) {
                finished_by_client_[static_cast<size_t>(request->client_index)].push_back(id);
            }
        }
    }
    for (size_t client = 0; client < finished_by_client_.size(); ++client) {
        if (finished_by_client_[client].empty()) continue;
        send_outputs({}, finished_by_client_[client], static_cast<int>(client), nullptr);
        finished_by_client_[client].clear();
    }
}

void EngineCore::handle(UtilityMessage& message) { UtilityCalls(*this).call(message); }

void EngineCore::handle(FrontendLost& message) {
    std::vector<std::string> orphans;
    for (const auto& [id, request] : scheduler_.requests()) {
        if (request->client_index == message.client_index) orphans.push_back(id);
    }
    for (const std::string& id : orphans) scheduler_.remove(id);
    if (!orphans.empty()) {
        log(LogLevel::info, "aborted %zu requests of frontend %d", orphans.size(), message.client_index);
    }
    std::erase_if(deferred_, [&](const DeferredReply& reply) { return reply.client_index == message.client_index; });
}

void EngineCore::handle(ShutdownRequested& message) {
    if (shutting_down_) return;
    shutting_down_ = true;
    drain_deadline_ = monotonic_seconds() + config_.shutdown_timeout_seconds;
    log(LogLevel::info, "signal %d: %s %zu requests", message.signal,
        config_.shutdown_timeout_seconds > 0 ? "draining" : "aborting", scheduler_.requests().size());
    if (config_.shutdown_timeout_seconds <= 0) abort_all();
    // Nothing may keep requests waiting for a resume that can no longer come.
    reject_while_paused_ = false;
    if (!weights_asleep_ && !kv_asleep_) {
        scheduler_.resume();
    } else {
        abort_all();
    }
}

void EngineCore::handle(TransportFailed& message) { throw FatalError(message.reason); }

void EngineCore::step() {
    final_stats_due_ = false;
    double start = monotonic_seconds();
    std::span<const ScheduledRequest> plan = scheduler_.schedule(start);
    IterationDetails details;
    for (const ScheduledRequest& entry : plan) {
        entry.request->new_tokens.clear();
        bool context = entry.request->num_computed < entry.request->prompt_length;
        (context ? details.num_context_requests : details.num_generation_requests) += 1;
        (context ? details.num_context_tokens : details.num_generation_tokens) += entry.num_tokens;
    }
    if (!plan.empty()) {
        executor_.execute(plan);
        scheduler_.commit(plan);
        details.iteration_index = iteration_++;
        details.elapsed_ms = (monotonic_seconds() - start) * 1e3;
    }
    report_step(plan, details);
}

SchedulerStats EngineCore::current_stats() {
    SchedulerStats stats = gauges();
    stats.prefix_cache = scheduler_.take_prefix_cache_stats();
    return stats;
}

SchedulerStats EngineCore::gauges() const {
    SchedulerStats stats;
    stats.num_running = scheduler_.num_running();
    stats.num_waiting = scheduler_.num_waiting();
    stats.kv_cache_usage = scheduler_.blocks().usage();
    stats.current_wave = wave_ ? wave_->current() : 0;
    return stats;
}

void EngineCore::report_step(std::span<const ScheduledRequest> plan, const IterationDetails& details) {
    bool any_finished = false;
    for (const ScheduledRequest& entry : plan) {
        Request& request = *entry.request;
        if (request.new_tokens.empty() && !request.finish_reason) continue;
        auto client = static_cast<size_t>(request.client_index);
        outputs_by_client_[client].push_back(&request);
        if (request.finish_reason) {
            any_finished = true;
            if (output_.has_coordinator()) finished_by_client_[client].push_back(request.id);
        }
    }
    SchedulerStats stats;
    bool stats_due = config_.log_stats;
    if (stats_due) {
        stats = current_stats();
        if (config_.iteration_details && !plan.empty()) stats.iteration = details;
    }
    for (size_t client = 0; client < outputs_by_client_.size(); ++client) {
        if (outputs_by_client_[client].empty()) continue;
        send_outputs(outputs_by_client_[client], finished_by_client_[client], static_cast<int>(client),
                     stats_due ? &stats : nullptr);
        stats_due = false;
    }
    // A step without output (a chunk of a long prompt, the last word after the last request) still moves the gauges.
    if (stats_due) send_outputs({}, {}, output_.first_client(), &stats);

    for (size_t client = 0; client < outputs_by_client_.size(); ++client) {
        for (Request* request : outputs_by_client_[client]) {
            request->events.clear();
            if (!request->new_tokens.empty()) request->prefill_stats_sent = true;
            if (request->prompt_logprobs_done) request->prompt_logprobs = {};
            if (request->finish_reason) {
                log(LogLevel::debug, "request %s finished (%d) after %d tokens", request->id.c_str(),
                    static_cast<int>(*request->finish_reason), request->num_output_tokens());
                scheduler_.remove(std::string(request->id));
            }
        }
        outputs_by_client_[client].clear();
        finished_by_client_[client].clear();
    }
    if (any_finished && scheduler_.empty()) {
        stamps_.flush();
        recorder_.flush();
    }
    if (any_finished) final_stats_due_ = config_.log_stats && scheduler_.empty();
    publish_counts();
}

void EngineCore::send_outputs(std::span<const Request* const> requests, std::span<const std::string> finished,
                              int client_index, const SchedulerStats* stats) {
    auto message = output_.acquire();
    message->client_index = client_index;
    StepOutputs outputs;
    outputs.requests = requests;
    outputs.stats = stats;
    outputs.finished = finished;
    outputs.timestamp = monotonic_seconds();
    outputs.weight_version = weight_version_;
    encoder_.encode(outputs, *message);
    size_t bytes = 0;
    for (const auto& frame : message->frames) bytes += frame.size();
    output_.send(std::move(message));
    stamps_.sent(requests, outputs.timestamp, bytes);
    recorder_.sent(requests, outputs.timestamp);
}

void EngineCore::refuse(std::unique_ptr<Request> request, FinishReason reason, std::optional<RequestError> error) {
    request->new_tokens.clear();
    request->finish_reason = reason;
    request->error = std::move(error);
    if (config_.log_stats) request->events.push_back({RequestEventType::queued, monotonic_seconds()});
    const Request* outputs[] = {request.get()};
    const std::string finished[] = {request->id};
    send_outputs(outputs, finished, request->client_index, nullptr);
}

void EngineCore::abort_all() {
    std::vector<std::string> ids;
    for (const auto& [id, request] : scheduler_.requests()) ids.push_back(id);
    std::vector<std::unique_ptr<Request>> aborted;
    for (const std::string& id : ids) aborted.push_back(scheduler_.remove(id));
    for (auto& request : aborted) {
        request->new_tokens.clear();
        request->events.clear();
        request->finish_reason = FinishReason::abort;
        auto client = static_cast<size_t>(request->client_index);
        outputs_by_client_[client].push_back(request.get());
        finished_by_client_[client].push_back(request->id);
    }
    for (size_t client = 0; client < outputs_by_client_.size(); ++client) {
        if (!outputs_by_client_[client].empty()) {
            send_outputs(outputs_by_client_[client], finished_by_client_[client], static_cast<int>(client), nullptr);
        }
        outputs_by_client_[client].clear();
        finished_by_client_[client].clear();
    }
}

void EngineCore::reply(int client_index, const UtilityResult& result) {
    auto message = output_.acquire();
    message->client_index = client_index;
    StepOutputs outputs;
    outputs.utility = &result;
    outputs.timestamp = monotonic_seconds();
    encoder_.encode(outputs, *message);
    output_.send(std::move(message));
}

void EngineCore::settle_pause() {
    if (deferred_.empty() || scheduler_.has_runnable()) return;
    for (const DeferredReply& pending : deferred_) {
        if (pending.clear_cache) scheduler_.reset_prefix_cache();
        if (pending.sleep) enter_sleep();
        reply(pending.client_index, pending.result);
    }
    deferred_.clear();
}

void EngineCore::cancel_pause() {
    for (const DeferredReply& pending : deferred_) reply(pending.client_index, pending.result);
    deferred_.clear();
}

void EngineCore::enter_sleep() {
    scheduler_.pause(PauseState::frozen);
    // Their keys and values are about to go; what they have generated stays.
    scheduler_.preempt_all(monotonic_seconds());
    scheduler_.reset_prefix_cache();
    if (!weights_asleep_) executor_.release_weights();
    weights_asleep_ = true;
    kv_asleep_ = true;
}

void EngineCore::publish_counts() {
    if (!output_.has_coordinator() || !config_.log_stats) return;
    std::pair<int, int> counts{scheduler_.num_running(), scheduler_.num_waiting()};
    if (counts == published_counts_) return;
    published_counts_ = counts;
    SchedulerStats stats = gauges();
    send_outputs({}, {}, coordinator_client, &stats);
}

}  // namespace blas_engine
