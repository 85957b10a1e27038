// One request from ADD to its last output: what was asked, where it stands, what the current step produced.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/block_hash.h"
#include "sampling/sampling_params.h"

namespace blas_engine {

// Values as on the wire (vLLM: FinishReason).
enum class FinishReason : uint8_t { stop = 0, length = 1, abort = 2, error = 3, repetition = 4 };

// Values as on the wire (vLLM: EngineCoreEventType).
enum class RequestEventType : uint8_t { queued = 1, scheduled = 2, preempted = 3 };

struct RequestEvent {
    RequestEventType type;
    double timestamp;  // CLOCK_MONOTONIC seconds
};

// Why a request ended with FinishReason::error; frontends of 0.33 turn it into an HTTP status.
struct RequestError {
    std::string code;
    std::string message;
    bool retryable = false;
};

// P rows of K + 1 log-probabilities; column 0 is the token itself. Buffers are reused from step to step.
struct LogprobRows {
    int rows = 0;
    int columns = 0;
    std::vector<int32_t> token_ids;  // [rows, columns]
    std::vector<float> logprobs;     // [rows, columns]
    std::vector<int64_t> ranks;      // [rows], 1-based rank of column 0

    void resize(int new_rows, int new_columns) {
        rows = new_rows;
        columns = new_columns;
        token_ids.resize(static_cast<size_t>(rows) * columns);
        logprobs.resize(static_cast<size_t>(rows) * columns);
        ranks.resize(rows);
    }
};

// Prompt tokens of a request by origin (vLLM: PrefillStats).
struct PrefillStats {
    int num_prompt_tokens = 0;
    int num_computed_tokens = 0;
    int num_cached_tokens = 0;
    int num_cache_creation_tokens = 0;
};

struct Request {
    // Asked for.
    std::string id;
    int client_index = 0;
    std::vector<int32_t> tokens;  // the prompt, then what was generated
    int prompt_length = 0;
    SamplingParams params;
    double arrival_time = 0;  // unix seconds, as stamped by the frontend
    int64_t priority = 0;     // lower runs earlier
    int64_t wave = 0;         // in which the frontend sent it, see wave.h
    std::string cache_salt;
    std::vector<uint8_t> trace_headers;  // msgpack map, echoed; empty if there are none
    bool abort_immediately = false;

    // Where it stands.
    double received_at = 0;        // CLOCK_MONOTONIC seconds, as the ADD came off the socket
    size_t received_bytes = 0;     // of the ADD
    double admitted_at = 0;        // CLOCK_MONOTONIC seconds; later by what was left of the step under way
    uint64_t sequence_number = 0;  // order of admission
    uint64_t random_key = 0;       // key of its random numbers
    bool running = false;
    int num_computed = 0;          // tokens whose keys and values are in the cache
    std::vector<int32_t> blocks;   // its KV block table
    int num_published_blocks = 0;  // leading blocks that are in the prefix cache
    std::vector<BlockHash> block_hashes;
    int num_preemptions = 0;
    bool prefill_stats_sent = false;
    PrefillStats prefill_stats;
    bool prompt_logprobs_done = false;
    LogprobRows prompt_logprobs;
    std::vector<RequestEvent> events;  // not yet sent

    // Produced by the current step; the executor fills these.
    std::vector<int32_t> new_tokens;
    LogprobRows new_logprobs;
    int num_nans_in_logits = 0;
    std::optional<RequestError> error;

    // Where executors without a model (mock/) are with it; times are CLOCK_MONOTONIC seconds.
    struct Script {
        double due_at = 0;  // of its next tokens
        double origin = 0;  // replay: what recorded times count from
        size_t answer = 0, step = 0;
    } script;

    // Set when it ends.
    std::optional<FinishReason> finish_reason;
    std::optional<int32_t> stop_token;  // stop_reason when a stop token id matched

    int num_tokens() const { return static_cast<int>(tokens.size()); }
    int num_output_tokens() const { return num_tokens() - prompt_length; }
    std::span<const int32_t> prompt() const { return {tokens.data(), static_cast<size_t>(prompt_length)}; }
    std::span<const int32_t> output() const { return std::span(tokens).subspan(prompt_length); }
};

}  // namespace blas_engine
