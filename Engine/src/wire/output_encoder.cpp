#include "wire/output_encoder.h"

#include <algorithm>

namespace blas_engine {
namespace {

// vLLM: VLLM_MSGPACK_ZERO_COPY_THRESHOLD. Arrays of this many bytes or more travel as frames of their own.
constexpr size_t aux_frame_threshold = 256;
constexpr int8_t raw_view_extension = 3;

template <class T>
void encode_array(MsgpackWriter& writer, OutputMessage& message, std::string_view dtype,
                  std::span<const int> dimensions, std::span<const T> values) {
    writer.array(3);
    writer.string(dtype);
    writer.array(dimensions.size());
    for (int dimension : dimensions) writer.integer(dimension);
    std::span<const uint8_t> raw(reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes());
    if (raw.size() < aux_frame_threshold) {
        writer.extension_header(raw_view_extension, raw.size());
        writer.bytes(raw);
    } else {
        writer.integer(static_cast<int64_t>(message.frames.size()));
        message.frames.emplace_back(raw.begin(), raw.end());
    }
}

void encode_logprobs(MsgpackWriter& writer, OutputMessage& message, const LogprobRows& rows) {
    const int matrix[] = {rows.rows, rows.columns};
    writer.array(4);
    encode_array<int32_t>(writer, message, "<i4", matrix, rows.token_ids);
    encode_array<float>(writer, message, "<f4", matrix, rows.logprobs);
    encode_array<int64_t>(writer, message, "<i8", std::span(matrix, 1), rows.ranks);
    writer.nil();
}

void encode_prompt_logprobs(MsgpackWriter& writer, OutputMessage& message, const LogprobRows& rows, int elements) {
    const int matrix[] = {rows.rows, rows.columns};
    std::vector<int32_t> ranks(rows.ranks.begin(), rows.ranks.end());
    writer.array(static_cast<size_t>(elements));
    encode_array<int32_t>(writer, message, "int32", matrix, rows.token_ids);
    encode_array<float>(writer, message, "float32", matrix, rows.logprobs);
    encode_array<int32_t>(writer, message, "int32", std::span(matrix, 1), ranks);
    for (int i = 3; i < elements; ++i) writer.nil();
}

void encode_prefill_stats(MsgpackWriter& writer, const PrefillStats& stats, bool cache_creation) {
    writer.map(cache_creation ? 6 : 5);
    writer.string("num_prompt_tokens");
    writer.integer(stats.num_prompt_tokens);
    writer.string("num_computed_tokens");
    writer.integer(stats.num_computed_tokens);
    writer.string("num_cached_tokens");
    writer.integer(stats.num_cached_tokens);
    writer.string("num_local_cached_tokens");
    writer.integer(stats.num_cached_tokens);
    writer.string("num_external_cached_tokens");
    writer.integer(0);
    if (cache_creation) {
        writer.string("num_cache_creation_tokens");
        writer.integer(stats.num_cache_creation_tokens);
    }
}

void encode_events(MsgpackWriter& writer, std::span<const RequestEvent> events) {
    writer.array(events.size());
    for (const RequestEvent& event : events) {
        writer.map(2);
        writer.string("type");
        writer.integer(static_cast<int>(event.type));
        writer.string("timestamp");
        writer.number(event.timestamp);
    }
}

void encode_error(MsgpackWriter& writer, const RequestError& error) {
    writer.map(3);
    writer.string("code");
    writer.string(error.code);
    writer.string("message");
    writer.string(error.message);
    writer.string("retryable");
    writer.boolean(error.retryable);
}

}  // namespace

void OutputEncoder::encode_request(MsgpackWriter& writer, const Request& request, OutputMessage& message) const {
    // Positions behind kv_transfer_params (8) moved by one in 0.28.
    const int shift = layout_.ec_transfer_slot ? 1 : 0;
    const int trace_headers = 9 + shift;
    const int prefill_stats = 10 + shift;
    const int num_nans = 12 + shift;
    constexpr int error = 18;

    bool has_tokens = !request.new_tokens.empty();
    bool has_logprobs = has_tokens && request.new_logprobs.rows > 0;
    bool has_prompt_logprobs = request.prompt_logprobs_done && request.prompt_logprobs.rows > 0;
    bool has_prefill_stats = has_tokens && !request.prefill_stats_sent;

    // Everything after the last interesting element is left out: short arrays are accepted by every frontend, long ones
    // are fatal for older Rust frontends.
    int last = 1;
    if (has_logprobs) last = 2;
    if (has_prompt_logprobs) last = 3;
    if (request.finish_reason) last = 5;
    if (request.stop_token || request.finish_reason == FinishReason::repetition) last = 6;
    if (!request.events.empty()) last = 7;
    if (!request.trace_headers.empty()) last = trace_headers;
    if (has_prefill_stats) last = prefill_stats;
    if (request.num_nans_in_logits > 0) last = num_nans;
    if (request.error && layout_.request_error) last = error;

    writer.array(static_cast<size_t>(last) + 1);
    for (int position = 0; position <= last; ++position) {
        if (position == 0) {
            writer.string(request.id);
        } else if (position == 1) {
            writer.array(request.new_tokens.size());
            for (int32_t token : request.new_tokens) writer.integer(token);
        } else if (position == 2 && has_logprobs) {
            encode_logprobs(writer, message, request.new_logprobs);
        } else if (position == 3 && has_prompt_logprobs) {
            encode_prompt_logprobs(writer, message, request.prompt_logprobs, layout_.prompt_logprobs_elements);
        } else if (position == 5 && request.finish_reason) {
            writer.integer(static_cast<int>(*request.finish_reason));
        } else if (position == 6 && request.stop_token) {
            writer.integer(*request.stop_token);
        } else if (position == 6 && request.finish_reason == FinishReason::repetition) {
            writer.string("repetition_detected");
        } else if (position == 7 && !request.events.empty()) {
            encode_events(writer, request.events);
        } else if (position == trace_headers && !request.trace_headers.empty()) {
            writer.bytes(request.trace_headers);
        } else if (position == prefill_stats && has_prefill_stats) {
            encode_prefill_stats(writer, request.prefill_stats, layout_.cache_creation_stat);
        } else if (position == num_nans) {
            writer.integer(request.num_nans_in_logits);
        } else if (position == error) {
            encode_error(writer, *request.error);
        } else {
            writer.nil();
        }
    }
}

void OutputEncoder::encode_stats(MsgpackWriter& writer, const SchedulerStats& stats) const {
    writer.map(18);
    auto integer = [&](std::string_view key, int64_t value) {
        writer.string(key);
        writer.integer(value);
    };
    integer("num_running_reqs", stats.num_running);
    integer("num_waiting_reqs", stats.num_waiting);
    integer("num_skipped_waiting_reqs", 0);
    integer("step_counter", 0);
    integer("current_wave", stats.current_wave);
    writer.string("kv_cache_usage");
    writer.number(stats.kv_cache_usage);
    writer.string("num_kv_fetch_reqs_by_stage");
    writer.map(3);
    integer("waiting_to_start", 0);
    integer("in_progress", 0);
    integer("completed_waiting", 0);
    writer.string("prefix_cache_stats");
    const PrefixCacheStats& cache = stats.prefix_cache;
    writer.map(8);
    writer.string("reset");
    writer.boolean(cache.reset);
    integer("requests", cache.requests);
    integer("queries", cache.queries);
    integer("hits", cache.hits);
    integer("preempted_requests", cache.preempted_requests);
    integer("preempted_queries", cache.preempted_queries);
    integer("preempted_hits", cache.preempted_hits);
    writer.string("hits_by_source");
    writer.map(0);
    writer.string("kv_cache_eviction_events");
    writer.array(0);
    writer.string("waiting_lora_adapters");
    writer.map(0);
    writer.string("running_lora_adapters");
    writer.map(0);
    writer.string("iteration_details");
    if (stats.iteration) {
        const IterationDetails& details = *stats.iteration;
        writer.map(9);
        integer("iteration_index", details.iteration_index);
        integer("num_ctx_requests", details.num_context_requests);
        integer("num_ctx_tokens", details.num_context_tokens);
        integer("num_generation_requests", details.num_generation_requests);
        integer("num_generation_tokens", details.num_generation_tokens);
        writer.string("elapsed_ms");
        writer.number(details.elapsed_ms);
        integer("num_encoder_inputs", 0);
        integer("num_encoder_output_tokens", 0);
        writer.string("is_dummy");
        writer.boolean(false);
    } else {
        writer.nil();
    }
    for (std::string_view absent : {"connector_prefix_cache_stats", "spec_decoding_stats", "kv_connector_stats",
                                    "ec_connector_stats", "cudagraph_stats", "perf_stats"}) {
        writer.string(absent);
        writer.nil();
    }
}

void OutputEncoder::encode(const StepOutputs& outputs, OutputMessage& message) const {
    message.frames.resize(1);
    // Built apart from message.frames, which grows (and moves) when aux frames are added.
    std::vector<uint8_t> payload = std::move(message.frames[0]);
    payload.clear();
    MsgpackWriter writer(payload);

    bool has_weight_version = layout_.weight_version && !outputs.weight_version.empty() && !outputs.utility;
    bool has_wave = outputs.wave_complete || outputs.start_wave;
    size_t size = has_weight_version ? 9 : has_wave ? 8 : !outputs.finished.empty() ? 6 : outputs.utility ? 5 : 4;
    writer.array(size);
    writer.integer(engine_index_);
    writer.array(outputs.requests.size());
    for (const Request* request : outputs.requests) encode_request(writer, *request, message);
    if (outputs.stats) {
        encode_stats(writer, *outputs.stats);
    } else {
        writer.nil();
    }
    writer.number(outputs.timestamp);
    if (size > 4) {
        if (outputs.utility) {
            const UtilityResult& utility = *outputs.utility;
            writer.array(3);
            writer.bytes(utility.call_id);
            if (utility.failure) {
                writer.string(*utility.failure);
                writer.nil();
            } else {
                writer.nil();
                writer.array(2);  // [type hint, value]
                writer.nil();
                if (utility.value.empty()) {
                    writer.nil();
                } else {
                    writer.bytes(utility.value);
                }
            }
        } else {
            writer.nil();
        }
    }
    if (size > 5) {
        if (outputs.finished.empty()) {
            writer.nil();
        } else {
            writer.array(outputs.finished.size());
            for (const std::string& id : outputs.finished) writer.string(id);
        }
    }
    if (size > 7) {
        for (const std::optional<int64_t>& wave : {outputs.wave_complete, outputs.start_wave}) {
            if (wave) {
                writer.integer(*wave);
            } else {
                writer.nil();
            }
        }
    }
    if (has_weight_version) writer.string(outputs.weight_version);
    message.frames[0] = std::move(payload);
}

}  // namespace blas_engine
