#include "mock/mock_executor.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <thread>

#include "core/clock.h"
#include "core/log.h"
#include "sampling/logprobs.h"
#include "sampling/random.h"

namespace blas_engine {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

bool is_stop_token(const SamplingParams& params, int32_t id) {
    return id == params.eos_token_id || std::find(params.all_stop_token_ids.begin(), params.all_stop_token_ids.end(),
                                                  id) != params.all_stop_token_ids.end();
}

// A few tokens of each end tell prompts apart well enough, and keep the cost independent of their length.
uint64_t prompt_key(std::span<const int32_t> prompt) {
    uint64_t key = mix64(prompt.size());
    for (int32_t id : prompt.first(std::min<size_t>(prompt.size(), 16))) key = mix64(key ^ static_cast<uint64_t>(id));
    for (int32_t id : prompt.last(std::min<size_t>(prompt.size(), 16))) key = mix64(key ^ static_cast<uint64_t>(id));
    return key;
}

}  // namespace

std::optional<MockFault> parse_mock_fault(std::string_view text) {
    constexpr struct {
        std::string_view name;
        MockFault::Kind kind;
    } names[] = {{"die-after-tokens", MockFault::Kind::die},
                 {"exit-after-tokens", MockFault::Kind::exit},
                 {"hang-after-tokens", MockFault::Kind::hang},
                 {"error-request", MockFault::Kind::error_request}};
    size_t equals = text.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    std::string_view number = text.substr(equals + 1);
    int64_t count = 0;
    auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
    if (error != std::errc() || end != number.data() + number.size() || count < 1) return std::nullopt;
    for (const auto& entry : names) {
        if (entry.name == text.substr(0, equals)) return MockFault{entry.kind, count};
    }
    return std::nullopt;
}

MockExecutor::MockExecutor(MockOptions options) : options_(std::move(options)) {
    info_.model = "mock";
    info_.architecture = "mock";
    info_.dtype = options_.dtype;
    info_.vocab_size = options_.vocab_size;
    info_.max_position = options_.max_position;
}

double MockExecutor::first_token_time(const Request& request) const {
    return request.admitted_at + options_.ttft_seconds;
}

void MockExecutor::request_added(const Request& request) {
    // Infinite only while nothing decodes and nothing is due: then the new request starts the clock.
    if (next_step_ == never) next_step_ = first_token_time(request);
}

void MockExecutor::execute(std::span<const ScheduledRequest> plan) {
    double now = monotonic_seconds();
    bool decoding = false;
    bool prefilling = false;
    double earliest_first = never;
    for (const ScheduledRequest& entry : plan) {
        Request& request = *entry.request;
        if (!entry.samples) {
            prefilling = true;
            continue;
        }
        if (request.num_output_tokens() == 0) {
            if (now < first_token_time(request)) {
                earliest_first = std::min(earliest_first, first_token_time(request));
                continue;
            }
            ++requests_started_;
            if (request.params.prompt_logprobs && !request.prompt_logprobs_done) score_prompt(request);
        }
        decoding = true;
        for (int i = 0; i < options_.tokens_per_step; ++i) request.new_tokens.push_back(make_token(request));
        tokens_made_ += options_.tokens_per_step;
        if (request.params.wants_logprobs()) add_logprobs(request);
        if (!options_.faults.empty()) apply_faults(request);
    }
    if (prefilling) {
        next_step_ = 0;
    } else if (decoding) {
        // Steps keep to a fixed grid, so that small delays do not add up; after a long stall the grid starts anew.
        double planned = next_step_ > 0 && next_step_ < never ? next_step_ + options_.itl_seconds : 0;
        next_step_ = planned > now ? planned : now + options_.itl_seconds;
    } else {
        next_step_ = earliest_first;
    }
}

int32_t MockExecutor::make_token(const Request& request) const {
    const SamplingParams& params = request.params;
    auto made = static_cast<int64_t>(request.num_output_tokens()) + static_cast<int64_t>(request.new_tokens.size());
    if (options_.output_tokens > 0 && made >= options_.output_tokens && made >= params.min_tokens &&
        params.eos_token_id) {
        return static_cast<int32_t>(*params.eos_token_id);
    }
    uint64_t key = options_.seed ^ prompt_key(request.prompt());
    if (!params.greedy()) key ^= mix64(request.random_key);
    uint64_t bits = random_bits(key, static_cast<uint64_t>(made));
    if (params.has_allowed_token_ids) {
        const auto& allowed = params.allowed_token_ids;
        for (size_t i = 0; i < allowed.size(); ++i) {
            int32_t id = allowed[(bits + i) % allowed.size()];
            if (made >= params.min_tokens || !is_stop_token(params, id)) return id;
        }
        return allowed.front();
    }
    auto choices = static_cast<uint64_t>(options_.vocab_size - options_.first_token);
    for (uint64_t i = 0; i < choices; ++i) {
        auto id = static_cast<int32_t>(static_cast<uint64_t>(options_.first_token) + (bits + i) % choices);
        if (!is_stop_token(params, id)) return id;
    }
    return options_.first_token;
}

// Made-up values of the right shape: the token at -0.5, alternatives below it at -1, -2, ...
void MockExecutor::add_logprobs(Request& request) const {
    const SamplingParams& params = request.params;
    int columns = params.has_logprob_token_ids ? static_cast<int>(params.logprob_token_ids.size()) + 1
                                               : logprob_columns(*params.logprobs, options_.vocab_size);
    LogprobRows& rows = request.new_logprobs;
    rows.resize(static_cast<int>(request.new_tokens.size()), columns);
    for (int row = 0; row < rows.rows; ++row) {
        auto start = static_cast<size_t>(row) * static_cast<size_t>(columns);
        int32_t token = request.new_tokens[static_cast<size_t>(row)];
        rows.ranks[static_cast<size_t>(row)] = 1;
        rows.token_ids[start] = token;
        rows.logprobs[start] = -0.5F;
        for (int column = 1; column < columns; ++column) {
            auto at = start + static_cast<size_t>(column);
            rows.token_ids[at] = params.has_logprob_token_ids
                                     ? params.logprob_token_ids[static_cast<size_t>(column) - 1]
                                     : (token + column - 1) % options_.vocab_size;
            rows.logprobs[at] = rows.token_ids[at] == token ? -0.5F : -static_cast<float>(column);
        }
    }
}

void MockExecutor::score_prompt(Request& request) const {
    LogprobRows& rows = request.prompt_logprobs;
    rows.resize(request.prompt_length - 1, logprob_columns(*request.params.prompt_logprobs, options_.vocab_size));
    for (int row = 0; row < rows.rows; ++row) {
        int32_t token = request.tokens[static_cast<size_t>(row) + 1];
        rows.ranks[static_cast<size_t>(row)] = 1;
        for (int column = 0; column < rows.columns; ++column) {
            auto at = static_cast<size_t>(row) * static_cast<size_t>(rows.columns) + static_cast<size_t>(column);
            int offset = std::max(column - 1, 0);
            rows.token_ids[at] = (token + offset) % options_.vocab_size;
            rows.logprobs[at] = -0.5F - static_cast<float>(offset);
        }
    }
    request.prompt_logprobs_done = true;
}

void MockExecutor::apply_faults(Request& request) {
    for (const MockFault& fault : options_.faults) {
        if (fault.kind == MockFault::Kind::error_request) {
            if (request.num_output_tokens() == 0 && requests_started_ % fault.count == 0) {
                request.error = RequestError{"internal_error", "Scripted failure of this request.", false};
            }
            continue;
        }
        if (tokens_made_ < fault.count) continue;
        switch (fault.kind) {
            case MockFault::Kind::die:
                throw std::runtime_error("scripted death of the mock engine");
            case MockFault::Kind::exit:
                log(LogLevel::warning, "scripted exit of the mock engine");
                _exit(1);
            case MockFault::Kind::hang:
                log(LogLevel::warning, "scripted hang of the mock engine");
                for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
            case MockFault::Kind::error_request:
                break;
        }
    }
}

}  // namespace blas_engine
