// Requests from ADD to their last output, in the real engine process under a scripted frontend.
#include <gtest/gtest.h>

#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::EngineProcess;
using testing::Outputs;
using testing::pack_array;
using testing::pack_ints;
using testing::pack_string;
using testing::ScriptedFrontend;

double timestamp(const Outputs& outputs) { return std::stod(outputs.envelope.at(3)); }

TEST(EngineRequests, ARequestLivesAsInVllm) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--protocol-version", "0.32"}));
    frontend.accept_engine();
    frontend.send_frames(testing::captured_requests().front().frames);  // greedy-1, three tokens

    Outputs first = frontend.next();
    ASSERT_EQ(first.envelope.size(), 9u);
    EXPECT_EQ(first.envelope[8], "\"default\"");
    ASSERT_EQ(first.requests.size(), 1u);
    const auto& request = first.requests[0];
    ASSERT_EQ(request.size(), 12u);
    EXPECT_EQ(request[0], "\"greedy-1\"");
    EXPECT_NE(request[7].find("\"type\":1"), std::string::npos);
    EXPECT_NE(request[7].find("\"type\":2"), std::string::npos);
    EXPECT_NE(request[11].find("\"num_prompt_tokens\":7"), std::string::npos);
    EXPECT_EQ(first.stat("num_running_reqs"), "1");
    EXPECT_NE(first.stat("prefix_cache_stats").find("\"queries\":7"), std::string::npos);

    Outputs second = frontend.next();
    EXPECT_EQ(second.requests.at(0).size(), 2u);
    EXPECT_NE(second.stat("prefix_cache_stats").find("\"queries\":0"), std::string::npos);
    Outputs third = frontend.next();
    EXPECT_EQ(third.requests.at(0).at(5), "1");
    EXPECT_EQ(third.stat("num_running_reqs"), "0");
    EXPECT_LE(timestamp(first), timestamp(third));
    Outputs last = frontend.next();
    EXPECT_TRUE(last.requests.empty());
    EXPECT_EQ(last.stat("kv_cache_usage"), "0.");
    // Then nothing until something happens.
    EXPECT_EQ(frontend.call("is_sleeping")[2], "[nil,false]");
    EXPECT_TRUE(frontend.quiet());
}

TEST(EngineRequests, ServesEveryCapturedRequest) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments());
    frontend.accept_engine();
    std::map<std::string, const testing::Captured*> open;
    for (const auto& captured : testing::captured_requests()) {
        if (captured.kind != "ADD") continue;
        // Requests that never end by themselves, or must not be answered.
        if (captured.facts.at("abort_immediately") == "1") continue;
        frontend.send_frames(captured.frames);
        open["\"" + captured.facts.at("id") + "\""] = &captured;
    }
    ASSERT_GE(open.size(), 100u);
    std::map<std::string, int> finish_counts;
    std::map<std::string, size_t> tokens;
    while (!open.empty()) {
        for (const auto& request : frontend.next().requests) {
            ASSERT_TRUE(open.contains(request[0])) << request[0];
            const testing::Captured& captured = *open[request[0]];
            if (request[1] != "[]") tokens[request[0]] += 1;
            if (request.size() <= 5 || request[5] == "nil") continue;
            bool unsupported =
                captured.facts.at("structured") == "1" || captured.name.find("thinking-budget") != std::string::npos;
            if (unsupported) {
                EXPECT_EQ(request[5], "3") << captured.name;
                EXPECT_EQ(tokens[request[0]], 0u);
            } else {
                EXPECT_NE(request[5], "3") << captured.name;
                EXPECT_LE(std::to_string(tokens[request[0]]).size(), captured.facts.at("max_tokens").size());
                if (request[5] == "1") {
                    EXPECT_EQ(std::to_string(tokens[request[0]]), captured.facts.at("max_tokens")) << captured.name;
                }
            }
            ++finish_counts[request[5]];
            open.erase(request[0]);
        }
    }
    EXPECT_GT(finish_counts["0"], 0);
    EXPECT_GT(finish_counts["1"], 50);
    EXPECT_GT(finish_counts["3"], 10);
    EXPECT_GT(finish_counts["4"], 0);
}

TEST(EngineRequests, AbortsSilentlyAndFreesTheBlocks) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments());
    frontend.accept_engine();
    frontend.add("endless", 4000);
    frontend.next();
    frontend.abort({"endless", "unknown"});
    EXPECT_EQ(frontend.call("is_scheduler_paused")[2], "[nil,false]");
    // Everything up to the abort has arrived by now; the last word is that the engine is empty.
    Outputs outputs;
    do {
        outputs = frontend.next();
        for (const auto& request : outputs.requests) EXPECT_TRUE(request.size() <= 5 || request[5] == "nil");
    } while (outputs.stat("num_running_reqs") != "0");
    EXPECT_EQ(outputs.stat("kv_cache_usage"), "0.");
    EXPECT_TRUE(outputs.requests.empty());
}

TEST(EngineRequests, OneBadRequestHurtsNobody) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--protocol-version", "0.33", "--mock-vocab-size", "100"}));
    frontend.accept_engine();
    auto refused = [&](const std::string& id) {
        Outputs outputs = frontend.next();
        ASSERT_EQ(outputs.requests.size(), 1u) << id;
        const auto& request = outputs.requests[0];
        EXPECT_EQ(request[0], "\"" + id + "\"");
        EXPECT_EQ(request[1], "[]");
        EXPECT_EQ(request.at(5), "3");
        EXPECT_NE(request.at(18).find("\"code\":\"validation_error\""), std::string::npos);
        EXPECT_NE(request.at(18).find("\"retryable\":false"), std::string::npos);
        EXPECT_EQ(outputs.envelope.at(5), "[\"" + id + "\"]");
    };
    // Eight elements, of which nine are required.
    frontend.send(0,
                  pack_array({pack_string("short"), pack_ints({5}), {0xc0}, {0x80}, {0xc0}, {0x01}, {0xc0}, {0xc0}}));
    refused("short");
    frontend.add("vocabulary", 5, {}, 0, {5, 100});
    refused("vocabulary");
    frontend.add("empty", 5, {}, 0, {});
    refused("empty");
    frontend.add("long", 5, {}, 0, std::vector<int32_t>(4096, 5));
    refused("long");
    frontend.add("zero", 0);
    refused("zero");
    frontend.add("float", 5, {{"top_k", {0xca, 0x42, 0x20, 0, 0}}});
    refused("float");
    // Nothing to answer: dropped with a line in the log.
    for (const std::vector<Bytes>& frames : std::vector<std::vector<Bytes>>{{{}},
                                                                            {{0}},
                                                                            {{0}, {}},
                                                                            {{0}, {0xc1}},
                                                                            {{9}, {0x90}},
                                                                            {{4}, {0xc0}},
                                                                            {{1}, {0xc0}},
                                                                            {{3}, {0x90}},
                                                                            {{0}, Bytes(100000, 0x91)}}) {
        frontend.send_frames(frames);
    }
    std::string finish;
    frontend.add("good", 5);
    EXPECT_EQ(frontend.collect("good", &finish).size(), 5u);
    EXPECT_EQ(finish, "1");
    EXPECT_NE(engine.log().find("dropped a message of frontend 0"), std::string::npos);
}

TEST(EngineRequests, ARequestIdInUseKeepsItsRequest) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "5"}));
    frontend.accept_engine();
    frontend.add("twice", 10);
    frontend.add("twice", 3);
    std::string finish;
    EXPECT_EQ(frontend.collect("twice", &finish).size(), 10u);
    EXPECT_EQ(finish, "1");
}

TEST(EngineRequests, EachFrontendGetsItsOwnOutputs) {
    ScriptedFrontend frontend(2);
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "1"}));
    frontend.accept_engine();
    frontend.add("zero", 50, {}, 0);
    frontend.add("one", 50, {}, 1);
    EXPECT_EQ(frontend.collect("zero", nullptr, 0).size(), 50u);
    EXPECT_EQ(frontend.collect("one", nullptr, 1).size(), 50u);
    EXPECT_EQ(frontend.call("is_sleeping", {0x90}, 1)[2], "[nil,false]");
}

}  // namespace
}  // namespace blas_engine
