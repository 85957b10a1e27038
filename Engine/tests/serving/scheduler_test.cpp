#include "core/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace blas_engine {
namespace {

SchedulerConfig small_config() {
    SchedulerConfig config;
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 32;
    config.max_model_len = 64;
    config.block_size = 4;
    config.num_blocks = 16;
    return config;
}

std::unique_ptr<Request> make_request(const std::string& id, std::vector<int32_t> prompt, int max_tokens) {
    auto request = std::make_unique<Request>();
    request->id = id;
    request->prompt_length = static_cast<int>(prompt.size());
    request->tokens = std::move(prompt);
    request->params.max_tokens = max_tokens;
    request->params.skip_reading_prefix_cache = false;
    return request;
}

std::vector<int32_t> iota_prompt(int size, int32_t start = 0) {
    std::vector<int32_t> prompt(static_cast<size_t>(size));
    for (int i = 0; i < size; ++i) prompt[static_cast<size_t>(i)] = start + i;
    return prompt;
}

// Stands in for the model: remembers which token each cache slot was computed for, and checks that every sequence finds
// exactly its own history in its blocks.
class FakeCache {
  public:
    explicit FakeCache(const SchedulerConfig& config)
        : block_size_(config.block_size), slots_(static_cast<size_t>(config.num_blocks * config.block_size), -1) {}

    void execute(std::span<const ScheduledRequest> plan) {
        for (const ScheduledRequest& entry : plan) {
            Request& request = *entry.request;
            request.new_tokens.clear();
            for (int i = 0; i < entry.num_tokens; ++i) {
                int position = request.num_computed + i;
                slot(request, position) = request.tokens[static_cast<size_t>(position)];
            }
        }
        for (const ScheduledRequest& entry : plan) {
            Request& request = *entry.request;
            for (int position = 0; position < request.num_computed + entry.num_tokens; ++position) {
                ASSERT_EQ(slot(request, position), request.tokens[static_cast<size_t>(position)]) << request.id;
            }
            // The next token depends on all that came before, so a wrong prefix would show in the output, too.
            int32_t next = 17;
            for (int32_t token : request.tokens) next = (next * 31 + token) % 1000;
            if (entry.samples) request.new_tokens.push_back(next);
        }
    }

  private:
    int32_t& slot(const Request& request, int position) {
        int32_t block = request.blocks.at(static_cast<size_t>(position / block_size_));
        return slots_.at(static_cast<size_t>(block * block_size_ + position % block_size_));
    }

    int block_size_;
    std::vector<int32_t> slots_;
};

struct Bench {
    explicit Bench(const SchedulerConfig& config)
        : config(config), scheduler(config, BlockHasher(1, 2)), cache(config) {}

    // One step; returns the ids that finished, whose outputs go to `outputs`.
    std::vector<std::string> step() {
        auto plan = scheduler.schedule(++now);
        int tokens = 0;
        std::set<const Request*> seen;
        for (const ScheduledRequest& entry : plan) {
            tokens += entry.num_tokens;
            EXPECT_TRUE(seen.insert(entry.request).second);
            EXPECT_EQ(entry.samples, entry.request->num_computed + entry.num_tokens == entry.request->num_tokens());
        }
        EXPECT_LE(tokens, config.max_num_batched_tokens);
        EXPECT_LE(static_cast<int>(plan.size()), config.max_num_seqs);
        cache.execute(plan);
        scheduler.commit(plan);
        std::vector<std::string> finished;
        for (const ScheduledRequest& entry : plan) {
            if (entry.request->finish_reason) finished.push_back(entry.request->id);
        }
        for (const std::string& id : finished) {
            auto request = scheduler.remove(id);
            outputs[id] = {request->output().begin(), request->output().end()};
        }
        return finished;
    }

    void run_to_end() {
        for (int steps = 0; !scheduler.empty(); ++steps) {
            ASSERT_LT(steps, 100000) << "the scheduler does not come to an end";
            step();
        }
    }

    SchedulerConfig config;
    Scheduler scheduler;
    FakeCache cache;
    double now = 0;
    std::map<std::string, std::vector<int32_t>> outputs;
};

std::vector<int32_t> expected_output(std::vector<int32_t> tokens, int count) {
    std::vector<int32_t> output;
    for (int i = 0; i < count; ++i) {
        int32_t next = 17;
        for (int32_t token : tokens) next = (next * 31 + token) % 1000;
        tokens.push_back(next);
        output.push_back(next);
    }
    return output;
}

TEST(Scheduler, ChunksLongPromptsWithinTheTokenBudget) {
    SchedulerConfig config = small_config();
    config.max_num_batched_tokens = 10;
    Bench bench(config);
    bench.scheduler.add(make_request("long", iota_prompt(25), 2), 0);
    auto plan = bench.scheduler.schedule(1);
    ASSERT_EQ(plan.size(), 1u);
    EXPECT_EQ(plan[0].num_tokens, 10);
    EXPECT_FALSE(plan[0].samples);
    bench.cache.execute(plan);
    bench.scheduler.commit(plan);
    bench.run_to_end();
    EXPECT_EQ(bench.outputs["long"], expected_output(iota_prompt(25), 2));
}

TEST(Scheduler, DecodesAndPrefillsInOneStep) {
    Bench bench(small_config());
    bench.scheduler.add(make_request("a", iota_prompt(5), 5), 0);
    bench.step();
    bench.scheduler.add(make_request("b", iota_prompt(6, 100), 5), 0);
    auto plan = bench.scheduler.schedule(2);
    ASSERT_EQ(plan.size(), 2u);
    EXPECT_EQ(plan[0].num_tokens, 1);
    EXPECT_EQ(plan[1].num_tokens, 6);
}

TEST(Scheduler, ReusesAPrefixButAlwaysComputesTheLastToken) {
    Bench bench(small_config());
    bench.scheduler.add(make_request("first", iota_prompt(12), 1), 0);
    bench.run_to_end();
    PrefixCacheStats stats = bench.scheduler.take_prefix_cache_stats();
    EXPECT_EQ(stats.requests, 1);
    EXPECT_EQ(stats.queries, 12);
    EXPECT_EQ(stats.hits, 0);

    bench.scheduler.add(make_request("same", iota_prompt(12), 1), 0);
    auto plan = bench.scheduler.schedule(9);
    ASSERT_EQ(plan.size(), 1u);
    EXPECT_EQ(plan[0].num_tokens, 4);  // two of three blocks: a hit never covers the whole prompt
    EXPECT_EQ(plan[0].request->prefill_stats.num_cached_tokens, 8);
    EXPECT_EQ(plan[0].request->prefill_stats.num_computed_tokens, 4);
    EXPECT_EQ(plan[0].request->prefill_stats.num_cache_creation_tokens, 4);
    bench.cache.execute(plan);
    bench.scheduler.commit(plan);
    stats = bench.scheduler.take_prefix_cache_stats();
    EXPECT_EQ(stats.hits, 8);

    auto salted = make_request("salted", iota_prompt(12), 1);
    salted->cache_salt = "pepper";
    bench.scheduler.add(std::move(salted), 0);
    auto unread = make_request("unread", iota_prompt(12), 1);
    unread->params.skip_reading_prefix_cache = true;
    bench.scheduler.add(std::move(unread), 0);
    plan = bench.scheduler.schedule(10);
    ASSERT_EQ(plan.size(), 2u);
    EXPECT_EQ(plan[0].num_tokens, 12);
    EXPECT_EQ(plan[1].num_tokens, 12);
}

TEST(Scheduler, PreemptsTheYoungestAndFinishesEveryoneCorrectly) {
    SchedulerConfig config = small_config();
    config.num_blocks = 16;  // 64 tokens: three sequences of up to 36 do not fit
    config.prefix_caching = false;
    Bench bench(config);
    for (int i = 0; i < 3; ++i) {
        bench.scheduler.add(make_request(std::to_string(i), iota_prompt(16, i * 50), 20), 0);
    }
    bool preempted = false;
    while (!bench.scheduler.empty()) {
        bench.step();
        for (const auto& [id, request] : bench.scheduler.requests()) {
            if (request->num_preemptions > 0) {
                preempted = true;
                EXPECT_NE(id, "0");
                EXPECT_EQ(request->events[2].type, RequestEventType::preempted);
            }
        }
    }
    EXPECT_TRUE(preempted);
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(bench.outputs[std::to_string(i)], expected_output(iota_prompt(16, i * 50), 20));
    }
    EXPECT_EQ(bench.scheduler.blocks().num_free(), 16);
}

TEST(Scheduler, PriorityDecidesWhoRunsAndWhoIsPreempted) {
    SchedulerConfig config = small_config();
    config.priority_policy = true;
    config.prefix_caching = false;
    config.max_num_seqs = 2;
    Bench bench(config);
    auto add = [&](const std::string& id, int64_t priority, int prompt) {
        auto request = make_request(id, iota_prompt(prompt, 40), 20);
        request->priority = priority;
        bench.scheduler.add(std::move(request), 0);
    };
    add("low", 5, 16);
    add("high", -1, 16);
    add("middle", 0, 16);
    auto plan = bench.scheduler.schedule(1);
    ASSERT_EQ(plan.size(), 2u);
    EXPECT_EQ(plan[0].request->id, "high");
    EXPECT_EQ(plan[1].request->id, "middle");
    bench.cache.execute(plan);
    bench.scheduler.commit(plan);
    // 16 blocks of 4 hold two sequences of 32 tokens, not of 36: the less important one has to give way.
    std::vector<std::string> order;
    while (!bench.scheduler.empty()) {
        for (const std::string& id : bench.step()) order.push_back(id);
        auto high = bench.scheduler.requests().find("high");
        if (high != bench.scheduler.requests().end()) {
            EXPECT_EQ(high->second->num_preemptions, 0);
        }
    }
    EXPECT_EQ(order, (std::vector<std::string>{"high", "middle", "low"}));
}

TEST(Scheduler, EndsRequestsForTheRightReason) {
    Bench bench(small_config());
    auto expect_end = [&](auto change, FinishReason reason, std::optional<int32_t> stop_token, size_t tokens) {
        auto request = make_request("r", iota_prompt(5), 6);
        change(*request);
        Request* raw = request.get();
        bench.scheduler.add(std::move(request), 0);
        for (int i = 0; i < 100 && !raw->finish_reason; ++i) {
            auto plan = bench.scheduler.schedule(1);
            bench.cache.execute(plan);
            bench.scheduler.commit(plan);
        }
        EXPECT_EQ(raw->finish_reason, reason);
        EXPECT_EQ(raw->stop_token, stop_token);
        EXPECT_EQ(raw->output().size(), tokens);
        bench.scheduler.remove("r");
    };
    std::vector<int32_t> output = expected_output(iota_prompt(5), 70);
    expect_end([](Request&) {}, FinishReason::length, {}, 6);
    expect_end([&](Request& r) { r.params.eos_token_id = output[2]; }, FinishReason::stop, {}, 3);
    expect_end([&](Request& r) { r.params.stop_token_ids = {output[1]}; }, FinishReason::stop, output[1], 2);
    // Before min_tokens nothing stops; the token cannot be sampled then, but the fake cache does not know.
    expect_end(
        [&](Request& r) {
            r.params.eos_token_id = output[1];
            r.params.min_tokens = 4;
        },
        FinishReason::length, {}, 6);
    // max_model_len ends what max_tokens and min_tokens would not.
    expect_end([](Request& r) { r.params.max_tokens.reset(); }, FinishReason::length, {}, 64 - 5);
    expect_end(
        [](Request& r) {
            r.params.max_tokens.reset();
            r.params.min_tokens = 1000;
        },
        FinishReason::length, {}, 64 - 5);
    EXPECT_EQ(bench.scheduler.blocks().num_free(), 16);
}

TEST(Scheduler, PauseHoldsBackWhatItShould) {
    Bench bench(small_config());
    bench.scheduler.add(make_request("before", iota_prompt(5), 3), 0);
    bench.step();
    bench.scheduler.pause(PauseState::frozen);
    EXPECT_FALSE(bench.scheduler.has_runnable());
    EXPECT_TRUE(bench.scheduler.schedule(1).empty());
    bench.scheduler.pause(PauseState::finish_current);
    bench.scheduler.add(make_request("after", iota_prompt(5), 3), 0);
    EXPECT_TRUE(bench.scheduler.has_runnable());
    bench.step();
    bench.step();
    EXPECT_TRUE(bench.outputs.contains("before"));
    EXPECT_FALSE(bench.scheduler.has_runnable());
    EXPECT_EQ(bench.scheduler.num_waiting(), 1);
    bench.scheduler.resume();
    bench.run_to_end();
    EXPECT_EQ(bench.outputs["after"], expected_output(iota_prompt(5), 3));
}

TEST(Scheduler, RefusesAnIdThatIsInUse) {
    Bench bench(small_config());
    EXPECT_TRUE(bench.scheduler.add(make_request("r", iota_prompt(5), 3), 0));
    EXPECT_FALSE(bench.scheduler.add(make_request("r", iota_prompt(7), 3), 0));
    bench.run_to_end();
    EXPECT_EQ(bench.outputs["r"], expected_output(iota_prompt(5), 3));
}

class SchedulerSoak : public ::testing::TestWithParam<bool> {};

// Random adds, aborts, preemptions and cache resets over a cache that is far too small: everyone who is not aborted
// gets exactly the right tokens, and all blocks come back.
TEST_P(SchedulerSoak, AccountsForEveryBlock) {
    SchedulerConfig config = small_config();
    config.priority_policy = GetParam();
    Bench bench(config);
    std::mt19937 random(42);
    std::map<std::string, std::pair<std::vector<int32_t>, int>> asked;
    std::vector<std::string> alive;
    int64_t preemptions = 0, hits = 0;
    for (int step = 0; step < 10000; ++step) {
        if (random() % 4 == 0 && alive.size() < 20) {
            std::string id = "r" + std::to_string(step);
            // Few distinct beginnings, so that prefixes are shared often.
            std::vector<int32_t> prompt =
                iota_prompt(1 + static_cast<int>(random() % 30), static_cast<int32_t>(random() % 3));
            int max_tokens = 1 + static_cast<int>(random() % 30);
            asked[id] = {prompt, max_tokens};
            auto request = make_request(id, prompt, max_tokens);
            request->priority = static_cast<int64_t>(random() % 3);
            if (random() % 8 == 0) request->params.skip_reading_prefix_cache = true;
            ASSERT_TRUE(bench.scheduler.add(std::move(request), step));
            alive.push_back(id);
        }
        if (random() % 20 == 0 && !alive.empty()) {
            size_t victim = random() % alive.size();
            auto aborted = bench.scheduler.remove(alive[victim]);
            ASSERT_TRUE(aborted);
            preemptions += aborted->num_preemptions;
            asked.erase(alive[victim]);
            alive.erase(alive.begin() + static_cast<ptrdiff_t>(victim));
        }
        if (random() % 500 == 0) bench.scheduler.preempt_all(step);
        if (random() % 100 == 0) bench.scheduler.reset_prefix_cache();
        for (const std::string& id : bench.step()) {
            std::erase(alive, id);
            ASSERT_EQ(bench.outputs[id], expected_output(asked[id].first, asked[id].second)) << id;
        }
        PrefixCacheStats stats = bench.scheduler.take_prefix_cache_stats();
        preemptions += stats.preempted_requests;
        hits += stats.hits;
        ASSERT_FALSE(::testing::Test::HasFailure());
    }
    bench.run_to_end();
    EXPECT_GT(preemptions, 50);
    EXPECT_GT(hits, 1000);
    EXPECT_EQ(bench.scheduler.num_running(), 0);
    EXPECT_EQ(bench.scheduler.num_waiting(), 0);
    EXPECT_EQ(bench.scheduler.blocks().num_free(), config.num_blocks);
    EXPECT_TRUE(bench.scheduler.reset_prefix_cache());
}

INSTANTIATE_TEST_SUITE_P(Policies, SchedulerSoak, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Priority" : "FirstCome"; });

}  // namespace
}  // namespace blas_engine
