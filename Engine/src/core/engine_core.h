// The busy loop: takes input, plans a step, computes it, sends what came out (vLLM: EngineCore).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/executor.h"
#include "core/input_queue.h"
#include "core/pulse.h"
#include "core/recording.h"
#include "core/scheduler.h"
#include "core/stamp_file.h"
#include "wire/output_encoder.h"
#include "wire/transport.h"
#include "wire/wave_channel.h"

namespace blas_engine {

struct EngineCoreConfig {
    SchedulerConfig scheduler;
    int engine_index = 0;
    OutputLayout layout = safe_output_layout();
    bool log_stats = true;
    bool iteration_details = false;
    double shutdown_timeout_seconds = 0;
    uint64_t seed = 0;
    std::string stamps_path;  // empty = no stamps
    std::string record_path;  // empty = no recording
    int lockstep_ranks = 1;
    bool starts_waves = true;  // of frontends from 0.33 on; before, they do it themselves
};

// Something the engine cannot survive; frontends are told with ENGINE_CORE_DEAD.
struct FatalError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class EngineCore {
  public:
    // `waves`: to the other ranks if there are several in lockstep, else null.
    EngineCore(EngineCoreConfig config, Executor& executor, InputQueue& input, OutputThread& output, Pulse& pulse,
               WaveChannel* waves = nullptr);

    // Runs until a shutdown request has been carried out. Throws on anything fatal.
    void run();

  private:
    friend class UtilityCalls;

    // A utility reply that waits for running requests to end.
    struct DeferredReply {
        int client_index;
        UtilityResult result;
        bool clear_cache;
        bool sleep;
    };

    void handle_events(double deadline);
    void handle(AddMessage& message);
    void handle(RejectedAdd& message);
    void handle(AbortMessage& message);
    void handle(UtilityMessage& message);
    void handle(FrontendLost& message);
    void handle(ShutdownRequested& message);
    void handle(TransportFailed& message);
    void handle(WaveStart& message);
    void handle(WaveReport& message);
    void handle(WaveCompleted& message);

    void join_wave(const Request& request);
    void settle_wave();
    void send_wave(std::optional<int64_t> completed, std::optional<int64_t> start);

    void step();
    void report_step(std::span<const ScheduledRequest> plan, const IterationDetails& details);
    void send_outputs(std::span<const Request* const> requests, std::span<const std::string> finished, int client_index,
                      const SchedulerStats* stats);
    void refuse(std::unique_ptr<Request> request, FinishReason reason, std::optional<RequestError> error);
    // Ends requests with FinishReason::abort and tells their frontends.
    void abort_all();
    void reply(int client_index, const UtilityResult& result);
    // Answers pauses whose requests have ended.
    void settle_pause();
    // Answers pauses that a resume has overtaken.
    void cancel_pause();
    void enter_sleep();
    void publish_counts();
    SchedulerStats gauges() const;
    SchedulerStats current_stats();

    EngineCoreConfig config_;
    Executor& executor_;
    InputQueue& input_;
    OutputThread& output_;
    Pulse& pulse_;
    Scheduler scheduler_;
    OutputEncoder encoder_;
    StampFile stamps_;
    Recorder recorder_;
    WaveChannel* wave_channel_;
    std::optional<Wave> wave_;  // none for an engine that is independent of others
    std::string weight_version_ = "default";

    std::vector<InputEvent> events_;
    std::vector<std::vector<Request*>> outputs_by_client_;
    std::vector<std::vector<std::string>> finished_by_client_;
    std::vector<DeferredReply> deferred_;
    uint64_t requests_admitted_ = 0;
    int64_t iteration_ = 0;
    // After the last request one more message tells the frontends that the engine is empty.
    bool final_stats_due_ = false;
    bool reject_while_paused_ = false;
    bool weights_asleep_ = false;
    bool kv_asleep_ = false;
    bool scheduling_asleep_ = false;
    bool shutting_down_ = false;
    double drain_deadline_ = 0;
    std::pair<int, int> published_counts_{0, 0};
};

}  // namespace blas_engine
