// Encodes what a step produced for one frontend (vLLM: EngineCoreOutputs) in the layout of the frontend's release.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/request.h"
#include "core/scheduler.h"
#include "wire/msgpack_writer.h"
#include "wire/protocol_family.h"

namespace blas_engine {

// One multipart message: the payload, then raw tensor frames that it refers to by index.
struct OutputMessage {
    int client_index = 0;
    std::vector<std::vector<uint8_t>> frames;
};

// vLLM: IterationDetails, what one step was made of.
struct IterationDetails {
    int64_t iteration_index = 0;
    int num_context_requests = 0;
    int num_context_tokens = 0;
    int num_generation_requests = 0;
    int num_generation_tokens = 0;
    double elapsed_ms = 0;
};

// Gauges after a step, and counters since the previous message (vLLM: SchedulerStats).
struct SchedulerStats {
    int num_running = 0;
    int num_waiting = 0;
    double kv_cache_usage = 0;
    int64_t current_wave = 0;
    PrefixCacheStats prefix_cache;
    std::optional<IterationDetails> iteration;
};

// Answer to a utility call.
struct UtilityResult {
    std::vector<uint8_t> call_id;        // msgpack integer, echoed
    std::optional<std::string> failure;  // or
    std::vector<uint8_t> value;          // msgpack value, empty = nil
};

struct StepOutputs {
    std::span<const Request* const> requests;
    const SchedulerStats* stats = nullptr;
    const UtilityResult* utility = nullptr;
    std::span<const std::string> finished;
    double timestamp = 0;
    std::string_view weight_version;
    // To the coordinator only.
    std::optional<int64_t> wave_complete;
    std::optional<int64_t> start_wave;
};

class OutputEncoder {
  public:
    OutputEncoder(OutputLayout layout, int engine_index) : layout_(layout), engine_index_(engine_index) {}

    // Fills message.frames (reusing their capacity). At least one part of `outputs` must be non-empty: frontends treat
    // a message without content as fatal.
    void encode(const StepOutputs& outputs, OutputMessage& message) const;

    const OutputLayout& layout() const { return layout_; }

  private:
    void encode_request(MsgpackWriter& writer, const Request& request, OutputMessage& message) const;
    void encode_stats(MsgpackWriter& writer, const SchedulerStats& stats) const;

    OutputLayout layout_;
    int engine_index_;
};

}  // namespace blas_engine
