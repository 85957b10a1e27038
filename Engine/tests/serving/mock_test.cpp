// The mock and the replay of recordings, in the real engine process under a scripted frontend.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <set>

#include "core/recording.h"
#include "mock/distribution.h"
#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::EngineProcess;
using testing::Outputs;
using testing::pack_bool;
using testing::pack_int;
using testing::pack_ints;
using testing::ScriptedFrontend;

double timestamp(const Outputs& outputs) { return std::stod(outputs.envelope.at(3)); }

// The clock of the engine's timestamps, in seconds.
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Times of a request's outputs after a moment before it was sent, in seconds: later than after its arrival.
std::vector<double> output_times(ScriptedFrontend& frontend, double sent) {
    std::vector<double> times;
    for (;;) {
        Outputs outputs = frontend.next();
        for (const auto& request : outputs.requests) {
            times.push_back(timestamp(outputs) - sent);
            if (request.size() > 5 && request[5] != "nil") return times;
        }
    }
}

TEST(Mock, FailsRequests) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-fault", "error-request=2"}));
    frontend.accept_engine();
    std::string finish;
    for (int i = 1; i <= 4; ++i) {
        frontend.add("r" + std::to_string(i), 5);
        size_t tokens = frontend.collect("r" + std::to_string(i), &finish).size();
        EXPECT_EQ(finish, i % 2 ? "1" : "3");
        EXPECT_EQ(tokens, i % 2 ? 5u : 0u);
    }
}

TEST(Mock, KeepsItsTimes) {
    ScriptedFrontend frontend;
    EngineProcess engine(
        frontend.arguments({"--mock-ttft-ms", "60", "--mock-itl-ms", "20", "--mock-tokens-per-step", "3"}));
    frontend.accept_engine();
    const double sent = now();
    frontend.add("timed", 15);
    const std::vector<double> times = output_times(frontend, sent);
    ASSERT_EQ(times.size(), 5u);
    // Steps keep to a grid: a late one is followed by one in time, but none comes early.
    for (size_t i = 0; i < times.size(); ++i) EXPECT_GE(times[i], 0.060 + 0.020 * static_cast<double>(i));
}

TEST(Mock, TokensDependOnSeedAndPromptOnly) {
    auto run = [](const std::string& seed, bool company) {
        ScriptedFrontend frontend;
        EngineProcess engine(frontend.arguments({"--seed", seed, "--mock-vocab-size", "500"}));
        frontend.accept_engine();
        if (company) frontend.add("company", 4000, {}, 0, {9, 9});
        frontend.add("r", 40);
        std::vector<int> tokens = frontend.collect("r");
        EXPECT_TRUE(std::all_of(tokens.begin(), tokens.end(), [](int t) { return t >= 3 && t < 500; }));
        return tokens;
    };
    std::vector<int> alone = run("1", false);
    EXPECT_EQ(alone.size(), 40u);
    EXPECT_EQ(alone, run("1", true));
    EXPECT_NE(alone, run("2", false));
}

TEST(Mock, HonoursStopAndAllowedIds) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-output-tokens", "7"}));
    frontend.accept_engine();
    std::string finish;
    frontend.add("eos", 50, {{"_eos_token_id", pack_int(2)}});
    std::vector<int> tokens = frontend.collect("eos", &finish);
    EXPECT_EQ(finish, "0");
    EXPECT_EQ(tokens.size(), 8u);
    EXPECT_EQ(tokens.back(), 2);
    frontend.add("allowed", 9, {{"allowed_token_ids", pack_ints({40, 41})}, {"ignore_eos", pack_bool(true)}});
    tokens = frontend.collect("allowed", &finish);
    EXPECT_EQ(finish, "1");
    EXPECT_EQ(std::set<int>(tokens.begin(), tokens.end()), (std::set<int>{40, 41}));
    frontend.add(
        "stop", 9,
        {{"allowed_token_ids", pack_ints({40})}, {"stop_token_ids", pack_ints({40})}, {"min_tokens", pack_int(1)}});
    tokens = frontend.collect("stop", &finish);
    EXPECT_EQ(finish, "0");
}

std::vector<int> answer(ScriptedFrontend& frontend, const std::string& id, int max_tokens,
                        std::vector<int32_t> prompt) {
    frontend.add(id, max_tokens, {}, 0, std::move(prompt));
    return frontend.collect(id);
}

TEST(Mock, DrawsTimesFromASeed) {
    const Distribution normal = *Distribution::parse("normal:20,5"),
                       lognormal = *Distribution::parse("lognormal:20,0.5");
    const Distribution uniform = *Distribution::parse("uniform:10,30"),
                       exponential = *Distribution::parse("exponential:20");
    constexpr int draws = 20000;
    const auto mean = [](const Distribution& distribution, auto value) {
        double sum = 0;
        for (uint64_t i = 0; i < draws; ++i) sum += value(distribution.sample(7, i));
        return sum / draws;
    };
    const auto itself = [](double x) { return x; };
    EXPECT_NEAR(mean(normal, itself), 0.020, 0.0005);
    EXPECT_NEAR(mean(normal, [](double x) { return (x - 0.020) * (x - 0.020); }), 25e-6, 2e-6);
    EXPECT_NEAR(mean(lognormal, [](double x) { return x < 0.020 ? 1.0 : 0.0; }), 0.5, 0.02);
    EXPECT_NEAR(mean(lognormal, [](double x) { return std::log(x / 0.020) * std::log(x / 0.020); }), 0.25, 0.02);
    EXPECT_NEAR(mean(uniform, itself), 0.020, 0.0005);
    EXPECT_NEAR(mean(exponential, itself), 0.020, 0.001);
    for (uint64_t i = 0; i < 1000; ++i) {
        EXPECT_GE(normal.sample(1, i), 0);
        EXPECT_TRUE(uniform.sample(1, i) >= 0.010 && uniform.sample(1, i) <= 0.030);
        EXPECT_EQ(lognormal.sample(1, i), lognormal.sample(1, i));
    }
    EXPECT_EQ(Distribution::parse("20")->sample(1, 1), 0.020);
    for (const char* bad : {"", "x", "-1", "nan", "normal:20", "normal:20,5,1", "constant:1,2", "uniform:3,2",
                            "gamma:1,1", "lognormal:20,1e9", "exponential:", "1e99"}) {
        EXPECT_FALSE(Distribution::parse(bad)) << bad;
    }
}

TEST(Mock, RequestsMayKeepTheirOwnPace) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-pace", "request", "--mock-itl-ms", "uniform:1,3"}));
    frontend.accept_engine();
    const double sent = now();
    frontend.add("a", 20);
    const std::vector<double> times = output_times(frontend, sent);
    ASSERT_EQ(times.size(), 20u);
    for (size_t i = 1; i < times.size(); ++i) EXPECT_GE(times[i], 0.001 * static_cast<double>(i));
}

TEST(Mock, MakesUpWordsOfATokenizer) {
    const std::string path = ::testing::TempDir() + "/words.json";
    std::ofstream(path) << R"({"added_tokens": [{"id": 4, "content": "\u0120added"}], "model": {"vocab": {
        "\u0120word": 11, "\u0120two": 12, "\u0120x": 13, "bare": 14, "\u0120n1": 15, "\u2581three": 16, "\u0120added": 4}}})";
    {
        ScriptedFrontend frontend;
        EngineProcess engine(frontend.arguments({"--mock-words", path}));
        frontend.accept_engine();
        const std::vector<int> tokens = answer(frontend, "a", 200, {5, 6});
        EXPECT_EQ(std::set<int>(tokens.begin(), tokens.end()), (std::set<int>{11, 12, 16}));
    }
    for (const auto& [arguments, reason] : std::vector<std::pair<std::vector<std::string>, std::string>>{
             {{"--mock-words", path, "--mock-vocab-size", "12"}, "is not below --mock-vocab-size 12"},
             {{"--mock-words", "/nonexistent"}, "cannot read"},
             {{"--mock-words", BLAS_ENGINE_BINARY}, "--mock-words"}}) {
        ScriptedFrontend frontend;
        EngineProcess engine(frontend.arguments(arguments));
        frontend.receive_hello();
        frontend.send_init();
        EXPECT_EQ(engine.wait(), 1);
        EXPECT_NE(engine.log().find(reason), std::string::npos) << engine.log();
    }
}

TEST(Mock, DiesAfterRequestsAndStallsOnce) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-fault", "exit-after-requests=3", "--mock-fault",
                                             "stall-after-tokens=4:0.05", "--mock-pace", "request"}));
    frontend.accept_engine();
    const double sent = now();
    frontend.add("a", 8);
    const std::vector<double> times = output_times(frontend, sent);
    EXPECT_GE(times.at(3), 0.05);
    EXPECT_EQ(answer(frontend, "b", 3, {1}).size(), 3u);
    frontend.add("c", 3);
    EXPECT_EQ(engine.wait(), 1);
}

TEST(Replay, GivesTheRecordedAnswersAtTheirTimes) {
    const std::string path = ::testing::TempDir() + "/replayed.txt";
    std::vector<std::vector<int>> recorded;
    {
        ScriptedFrontend frontend;
        EngineProcess engine(
            frontend.arguments({"--record", path, "--mock-ttft-ms", "30", "--mock-itl-ms", "normal:5,2",
                                "--mock-tokens-per-step", "2", "--mock-vocab-size", "777"}));
        frontend.accept_engine();
        recorded.push_back(answer(frontend, "a", 12, {5, 6, 7}));
        recorded.push_back(answer(frontend, "b", 6, {8, 9}));
        engine.signal(SIGTERM);
        EXPECT_EQ(engine.wait(), 0);
    }
    const Recording recording = Recording::read(path);
    EXPECT_EQ(recording.vocab_size, 777);
    ASSERT_EQ(recording.answers.size(), 2u);
    EXPECT_EQ(recording.answers[0].ends, (std::vector<uint32_t>{2, 4, 6, 8, 10, 12}));

    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-replay", path}));
    frontend.accept_engine();
    // By prompt first; then in the order of the recording, from its beginning again.
    EXPECT_EQ(answer(frontend, "1", 6, {8, 9}), recorded[1]);
    EXPECT_EQ(answer(frontend, "2", 6, {8, 9}), recorded[1]);
    EXPECT_EQ(answer(frontend, "3", 12, {1}), recorded[0]);
    EXPECT_EQ(answer(frontend, "4", 6, {2}), recorded[1]);
    // More than was recorded begins again; less ends where the request says.
    std::vector<int> twice = recorded[1];
    twice.insert(twice.end(), recorded[1].begin(), recorded[1].end());
    EXPECT_EQ(answer(frontend, "5", 12, {8, 9}), twice);
    EXPECT_EQ(answer(frontend, "6", 1, {8, 9}), std::vector<int>(recorded[1].begin(), recorded[1].begin() + 1));
    const double sent = now();
    frontend.add("7", 12, {}, 0, {5, 6, 7});
    const std::vector<double> times = output_times(frontend, sent);
    ASSERT_EQ(times.size(), 6u);
    for (size_t i = 0; i < times.size(); ++i) EXPECT_GE(times[i], recording.answers[0].times[i] - 2e-6);
}

TEST(Replay, RefusesWhatIsNoRecording) {
    const std::string path = ::testing::TempDir() + "/bad-recording.txt";
    const std::string header = "blas-engine-recording 1 100 4096 bfloat16\n";
    for (const std::string& text :
         {std::string(), std::string("hello"), std::string("blas-engine-recording 2 100 4096 bfloat16\n"), header,
          header + "request 1 zz 3\n", header + "request 1 ab 3\nrequest 1 ab 3\n", header + "step 1 5 6\n",
          header + "request 1 ab 3\nstep 1 5\n", header + "request 1 ab 3\nstep 1 5 100\n",
          header + "request 1 ab 3\nstep 1 5 6\nstep 1 4 6\n", header + "request 1 ab 3\nstep 1 5 6\ndance 1\n"}) {
        std::ofstream(path) << text;
        EXPECT_THROW(Recording::read(path), std::runtime_error) << text;
    }
    EXPECT_THROW(Recording::read("/nonexistent"), std::runtime_error);
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-replay", path}));
    frontend.receive_hello();
    frontend.send_init();
    EXPECT_EQ(engine.wait(), 1);
    EXPECT_NE(engine.log().find("line 4: unknown record"), std::string::npos) << engine.log();
}

}  // namespace
}  // namespace blas_engine
