#include "mock/mock_executor.h"

#include <algorithm>

#include "sampling/random.h"

namespace blas_engine {
namespace {

// Of the independent random sequences.
constexpr uint64_t ttft_key = 0x7474667400000000, itl_key = 0x69746c0000000000;

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

MockExecutor::MockExecutor(MockOptions options)
    : ScriptedExecutor(options.shared_steps), options_(std::move(options)), faults_(options_.faults) {
    info_.model = "mock";
    info_.architecture = "mock";
    info_.dtype = options_.dtype;
    info_.vocab_size = options_.vocab_size;
    info_.max_position = options_.max_position;
}

double MockExecutor::begin(Request& request) {
    return request.admitted_at + options_.ttft.sample(options_.seed ^ ttft_key, request.sequence_number);
}

double MockExecutor::gap() { return options_.itl.sample(options_.seed ^ itl_key, steps_++); }

double MockExecutor::produce(Request& request, double now) {
    const auto made = static_cast<uint64_t>(request.num_output_tokens());
    for (int i = 0; i < options_.tokens_per_step; ++i) request.new_tokens.push_back(make_token(request));
    faults_.apply(request, made == 0);
    if (options_.shared_steps) return 0;
    const uint64_t key = options_.seed ^ itl_key ^ mix64(request.sequence_number);
    return next_time(request.script.due_at, options_.itl.sample(key, made), now);
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
    const auto& words = options_.word_ids;
    auto choices = words.empty() ? static_cast<uint64_t>(options_.vocab_size - options_.first_token) : words.size();
    auto choice = [&](uint64_t i) {
        return words.empty() ? options_.first_token + static_cast<int32_t>(i % choices) : words[i % choices];
    };
    for (uint64_t i = 0; i < choices; ++i) {
        if (int32_t id = choice(bits % choices + i); !is_stop_token(params, id)) return id;
    }
    return choice(0);
}

}  // namespace blas_engine
