// The real engine process, from handshake to exit, under a scripted frontend.
#include <gtest/gtest.h>
#include <signal.h>

#include <set>

#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::EngineProcess;
using testing::Outputs;
using testing::pack_array;
using testing::pack_bool;
using testing::pack_int;
using testing::pack_ints;
using testing::pack_string;
using testing::ScriptedFrontend;

using Answer = std::vector<std::string>;

double timestamp(const Outputs& outputs) { return std::stod(outputs.envelope.at(3)); }

TEST(EngineProcess, ShakesHandsAsVllmDoes) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--engine-index", "258", "--max-num-seqs", "7"}));
    EXPECT_EQ(testing::describe(frontend.receive_hello()),
              testing::describe(testing::captured_output("001").frames[0]));
    EXPECT_EQ(frontend.identity, (Bytes{0x02, 0x01}));
    frontend.send_init();
    auto registration = testing::describe_map(frontend.receive_registration());
    EXPECT_EQ(registration["max_model_len"], "4096");
    EXPECT_EQ(registration["max_num_seqs"], "7");
    EXPECT_EQ(registration["data_parallel_rank"], "258");
    EXPECT_EQ(testing::describe(frontend.receive_ready()),
              testing::describe(testing::captured_output("003").frames[0]));
    EXPECT_NE(engine.log().find("ready in"), std::string::npos);
}

TEST(EngineProcess, SaysWhenItIsLocal) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--local"}));
    EXPECT_EQ(testing::describe(frontend.receive_hello()), R"({"headless":false,"local":true,"status":"HELLO"})");
}

TEST(EngineProcess, ARequestLivesAsInVllm) {
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

TEST(EngineProcess, ServesEveryCapturedRequest) {
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

TEST(EngineProcess, AbortsSilentlyAndFreesTheBlocks) {
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

TEST(EngineProcess, OneBadRequestHurtsNobody) {
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

TEST(EngineProcess, ARequestIdInUseKeepsItsRequest) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "5"}));
    frontend.accept_engine();
    frontend.add("twice", 10);
    frontend.add("twice", 3);
    std::string finish;
    EXPECT_EQ(frontend.collect("twice", &finish).size(), 10u);
    EXPECT_EQ(finish, "1");
}

TEST(EngineProcess, AnswersEveryUtilityCall) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--protocol-version", "0.32"}));
    frontend.accept_engine();
    Bytes none = {0x90};
    auto arguments = [](std::vector<Bytes> values) { return pack_array(values); };
    const std::tuple<std::string, Bytes, std::string> cases[] = {
        {"get_supported_tasks", none, R"([nil,["generate"]])"},
        {"reset_mm_cache", none, "[nil,nil]"},
        {"reset_encoder_cache", none, "[nil,nil]"},
        {"execute_dummy_batch", none, "[nil,nil]"},
        {"reset_prefix_cache", arguments({pack_bool(false), pack_bool(false)}), "[nil,true]"},
        {"is_sleeping", none, "[nil,false]"},
        {"sleep", arguments({pack_int(1), pack_string("abort")}), "[nil,nil]"},
        {"is_sleeping", none, "[nil,true]"},
        {"wake_up", arguments({pack_array({pack_string("weights")})}), "[nil,false]"},
        {"is_sleeping", none, "[nil,true]"},
        {"wake_up", arguments({{0xc0}}), "[nil,true]"},
        {"is_sleeping", none, "[nil,false]"},
        {"is_scheduler_paused", none, "[nil,false]"},
        {"pause_scheduler", arguments({pack_string("wait"), pack_bool(true)}), "[nil,nil]"},
        {"is_scheduler_paused", none, "[nil,true]"},
        {"resume_scheduler", none, "[nil,nil]"},
        {"is_scheduler_paused", none, "[nil,false]"},
        {"get_weight_version", none, R"([nil,"default"])"},
        {"set_weight_version", arguments({pack_string("w2")}), "[nil,nil]"},
        {"get_weight_version", none, R"([nil,"w2"])"},
        {"collective_rpc", arguments({pack_string("check_health"), {0xc0}, none, {0xc0}}), "[nil,[nil]]"},
        {"get_kv_cache_group_metadata", none,
         R"([nil,[{"block_size":16,"group_idx":0,"kind":"full_attention","sliding_window":nil}]])"},
    };
    for (const auto& [method, args, result] : cases) {
        Answer answer = frontend.call(method, args);
        EXPECT_EQ(answer[1], "nil") << method;
        EXPECT_EQ(answer[2], result) << method;
    }
    auto failure = [&](const std::string& method, const Bytes& args) {
        Answer answer = frontend.call(method, args);
        EXPECT_EQ(answer[2], "nil") << method;
        return answer[1];
    };
    // These texts are vLLM's own.
    EXPECT_EQ(failure("no_such_method", none),
              testing::describe_elements(testing::elements(testing::captured_output("189").frames[0])[4])[1]);
    EXPECT_EQ(
        failure("pause_generation", none),
        "\"Call to pause_generation method failed: 'EngineCoreProc' object has no attribute 'pause_generation'\"");
    for (const char* method : {"add_lora", "remove_lora", "list_loras", "pin_lora", "profile", "save_sharded_state",
                               "compute_weight_checksums", "release_kv_cache_memory", "handle_fault"}) {
        EXPECT_EQ(failure(method, none).find("\"Call to " + std::string(method) + " method failed: "), 0u) << method;
    }
    EXPECT_NE(failure("sleep", arguments({pack_string("one")})).find("bad arguments"), std::string::npos);
    EXPECT_NE(failure("sleep", arguments({pack_int(9)})).find("level"), std::string::npos);
    EXPECT_NE(failure("pause_scheduler", arguments({pack_string("perhaps")})).find("mode"), std::string::npos);
    EXPECT_NE(failure("wake_up", arguments({pack_array({pack_string("x")})})).find("tag"), std::string::npos);
    EXPECT_NE(failure("collective_rpc", arguments({pack_string("f")})).find("has no attribute 'f'"), std::string::npos);
    // Python's call ids use all 64 bits.
    frontend.send(3, pack_array({pack_int(0), {0xcf, 0xfe, 1, 2, 3, 4, 5, 6, 7}, pack_string("is_sleeping"), none}));
    Outputs outputs = frontend.next();
    EXPECT_NE(outputs.envelope[4].find("[nil,false]"), std::string::npos);
}

TEST(EngineProcess, PauseModes) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--protocol-version", "0.33", "--mock-itl-ms", "2"}));
    frontend.accept_engine();
    auto arguments = [](const char* mode) { return pack_array({pack_string(mode), pack_bool(false)}); };
    std::string finish;

    // keep: the request stops where it is and goes on after the resume.
    frontend.add("kept", 30);
    frontend.next();
    EXPECT_EQ(frontend.call("pause_scheduler", arguments("keep"))[1], "nil");
    EXPECT_EQ(frontend.call("resume_scheduler")[1], "nil");
    frontend.collect("kept", &finish);
    EXPECT_EQ(finish, "1");

    // wait: the answer comes after the last token of what was running, and later requests wait for the resume.
    frontend.add("waited", 30);
    frontend.next();
    frontend.send_call(77, "pause_scheduler", arguments("wait"));
    frontend.add("later", 3);
    frontend.collect("waited", &finish);
    EXPECT_EQ(finish, "1");
    Outputs outputs = frontend.next();
    while (outputs.envelope.size() < 5 || outputs.envelope[4] == "nil") outputs = frontend.next();
    EXPECT_EQ(outputs.envelope[4], "[77,nil,[nil,nil]]");
    EXPECT_EQ(frontend.call("is_scheduler_paused")[2], "[nil,true]");
    EXPECT_TRUE(frontend.quiet());
    EXPECT_EQ(frontend.call("resume_scheduler")[1], "nil");
    frontend.collect("later", &finish);
    EXPECT_EQ(finish, "1");

    // abort: what runs is told so.
    frontend.add("aborted", 4000);
    frontend.next();
    EXPECT_EQ(frontend.call("pause_generation", arguments("abort"))[1], "nil");
    frontend.collect("aborted", &finish);
    EXPECT_EQ(finish, "2");
    // 0.33 turns new requests away while paused.
    frontend.add("refused", 3);
    do outputs = frontend.next();
    while (outputs.requests.empty());
    EXPECT_EQ(outputs.requests[0].at(5), "3");
    EXPECT_NE(outputs.requests[0].at(18).find("\"engine_paused\""), std::string::npos);
    EXPECT_NE(outputs.requests[0].at(18).find("\"retryable\":true"), std::string::npos);
    EXPECT_EQ(frontend.call("resume_scheduler")[1], "nil");
    frontend.add("served", 3);
    frontend.collect("served", &finish);
    EXPECT_EQ(finish, "1");
}

TEST(EngineProcess, SleepKeepsRequestsForLater) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "2"}));
    frontend.accept_engine();
    frontend.add("dreamer", 20);
    frontend.next();
    EXPECT_EQ(frontend.call("sleep", pack_array({pack_int(1), pack_string("keep")}))[1], "nil");
    frontend.add("queued", 3);
    EXPECT_EQ(frontend.call("is_sleeping")[2], "[nil,true]");
    EXPECT_EQ(frontend.call("wake_up", pack_array({{0xc0}}))[2], "[nil,true]");
    std::string finish;
    frontend.collect("dreamer", &finish);
    EXPECT_EQ(finish, "1");
}

TEST(EngineProcess, SigtermAbortsWithATerminalOutput) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "1"}));
    frontend.accept_engine();
    frontend.add("running", 4000);
    frontend.next();
    engine.signal(SIGTERM);
    Outputs outputs = frontend.next();
    while (outputs.envelope.size() < 6) outputs = frontend.next();
    EXPECT_EQ(outputs.requests.at(0).at(1), "[]");
    EXPECT_EQ(outputs.requests[0].at(5), "2");
    EXPECT_EQ(outputs.envelope[2], "nil");
    EXPECT_EQ(outputs.envelope[5], "[\"running\"]");
    EXPECT_EQ(engine.wait(), 0);
}

TEST(EngineProcess, SigtermDrainsWhenItHasTime) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "10", "--shutdown-timeout", "60"}));
    frontend.accept_engine();
    frontend.add("running", 30);
    frontend.next();
    engine.signal(SIGTERM);
    // The first refusal shows that the signal has arrived.
    Answer answer;
    do answer = frontend.call("is_sleeping");
    while (answer[1] == "nil");
    EXPECT_EQ(answer[1], "\"Server shutting down\"");
    frontend.add("late", 5);
    std::string finish;
    std::map<std::string, std::string> finished;
    while (finished.size() < 2) {
        for (const auto& request : frontend.next().requests) {
            if (request.size() > 5 && request[5] != "nil") finished[request[0]] = request[5];
        }
    }
    EXPECT_EQ(finished["\"late\""], "2");
    EXPECT_EQ(finished["\"running\""], "1");
    EXPECT_EQ(engine.wait(), 0);
}

TEST(EngineProcess, DrainEndsAtItsDeadline) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "10", "--shutdown-timeout", "0.2"}));
    frontend.accept_engine();
    frontend.add("running", 4000);
    frontend.next();
    engine.signal(SIGINT);
    std::string finish;
    frontend.collect("running", &finish);
    EXPECT_EQ(finish, "2");
    EXPECT_EQ(engine.wait(), 0);
}

TEST(EngineProcess, SecondSignalIsImmediate) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "10", "--shutdown-timeout", "60"}));
    frontend.accept_engine();
    frontend.add("running", 4000);
    frontend.next();
    engine.signal(SIGTERM);
    while (frontend.call("is_sleeping")[1] == "nil") {
    }
    engine.signal(SIGTERM);
    EXPECT_EQ(engine.wait(), 128 + SIGTERM);
}

TEST(EngineProcess, DiesWithItsSupervisor) {
    ScriptedFrontend frontend;
    EngineProcess serving(frontend.arguments({"--mock-itl-ms", "10"}), true);
    frontend.accept_engine();
    frontend.add("running", 4000);
    frontend.next();
    serving.close_death_pipe();
    EXPECT_EQ(serving.wait(), 1);

    ScriptedFrontend silent;
    EngineProcess waiting(silent.arguments(), true);
    silent.receive_hello();
    waiting.close_death_pipe();
    EXPECT_EQ(waiting.wait(), 1);
}

TEST(EngineProcess, ASignalWhileWaitingForAFrontendEndsIt) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments());
    frontend.receive_hello();
    engine.signal(SIGTERM);
    EXPECT_EQ(engine.wait(), 0);
}

TEST(EngineProcess, FatalErrorsAreAnnounced) {
    ScriptedFrontend frontend(2);
    EngineProcess engine(frontend.arguments({"--mock-fault", "die-after-tokens=5"}));
    frontend.accept_engine();
    frontend.add("doomed", 4000);
    Outputs outputs = frontend.next(0);
    while (!outputs.dead) outputs = frontend.next(0);
    EXPECT_EQ(outputs.frames, 1u);
    EXPECT_TRUE(frontend.next(1).dead);
    EXPECT_EQ(engine.wait(), 1);
    EXPECT_NE(engine.log().find("ERROR"), std::string::npos);
}

TEST(EngineProcess, ScriptedRequestErrors) {
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

TEST(EngineProcess, EachFrontendGetsItsOwnOutputs) {
    ScriptedFrontend frontend(2);
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "1"}));
    frontend.accept_engine();
    frontend.add("zero", 50, {}, 0);
    frontend.add("one", 50, {}, 1);
    EXPECT_EQ(frontend.collect("zero", nullptr, 0).size(), 50u);
    EXPECT_EQ(frontend.collect("one", nullptr, 1).size(), 50u);
    EXPECT_EQ(frontend.call("is_sleeping", {0x90}, 1)[2], "[nil,false]");
}

TEST(EngineProcess, WaitsForTheCoordinator) {
    ScriptedFrontend frontend(1, true);
    EngineProcess engine(frontend.arguments());
    frontend.receive_hello();
    frontend.send_init();
    frontend.receive_registration();
    ASSERT_TRUE(frontend.coordinator_input().wait_readable(20000));
    ZmqSocket::Message subscription;
    ASSERT_TRUE(frontend.coordinator_input().receive(subscription, 1, 100));
    EXPECT_EQ(subscription.frames[0], (Bytes{1}));
    frontend.coordinator_input().send(Bytes{'R', 'E', 'A', 'D', 'Y'});
    frontend.receive_ready();

    frontend.add("r", 3);
    ASSERT_TRUE(frontend.coordinator_output().wait_readable(20000));
    ZmqSocket::Message counts;
    ASSERT_TRUE(frontend.coordinator_output().receive(counts, 1, 10000));
    auto envelope = testing::elements(counts.frames[0]);
    EXPECT_EQ(testing::describe(envelope[1]), "[]");
    EXPECT_EQ(testing::describe_map(envelope[2])["num_waiting_reqs"], "1");
    Outputs outputs;
    do outputs = frontend.next();
    while (outputs.envelope.size() < 6);
    EXPECT_EQ(outputs.envelope[5], "[\"r\"]");
    // Waves are for mixture-of-experts engines; this one goes on.
    frontend.coordinator_input().send(std::vector<Bytes>{{2}, {0x92, 0x01, 0xc0}});
    frontend.add("s", 3);
    EXPECT_EQ(frontend.collect("s").size(), 3u);
}

TEST(EngineProcess, RegistersAgainWithARestartedFrontend) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-itl-ms", "5"}));
    frontend.accept_engine();
    frontend.add("orphan", 4000);
    frontend.next();
    frontend.restart_client(0);
    auto registration = testing::describe_map(frontend.receive_registration());
    EXPECT_EQ(registration["max_model_len"], "4096");
    frontend.add("new", 5);
    // Outputs sent to the old frontend may still arrive first.
    EXPECT_EQ(frontend.collect("new").size(), 5u);
    Outputs outputs;
    do outputs = frontend.next();
    while (!outputs.requests.empty());
    EXPECT_EQ(outputs.stat("num_running_reqs"), "0");
    EXPECT_NE(engine.log().find("aborted 1 requests of frontend 0"), std::string::npos);
}

TEST(EngineProcess, MockKeepsItsTimes) {
    ScriptedFrontend frontend;
    EngineProcess engine(
        frontend.arguments({"--mock-ttft-ms", "60", "--mock-itl-ms", "20", "--mock-tokens-per-step", "3"}));
    frontend.accept_engine();
    frontend.add("timed", 15);
    std::vector<double> stamps;
    double queued = 0;
    for (bool finished = false; !finished;) {
        Outputs outputs = frontend.next();
        for (const auto& request : outputs.requests) {
            if (stamps.empty()) queued = std::stod(request.at(7).substr(request[7].find("timestamp\":") + 11));
            stamps.push_back(timestamp(outputs));
            finished = request.size() > 5 && request[5] == "1";
        }
    }
    ASSERT_EQ(stamps.size(), 5u);
    // Steps keep to a grid: a late one is followed by one in time, but none comes early.
    for (size_t i = 0; i < stamps.size(); ++i) EXPECT_GE(stamps[i] - queued, 0.060 + 0.020 * static_cast<double>(i));
}

TEST(EngineProcess, MockTokensDependOnSeedAndPromptOnly) {
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

Bytes control_message(const std::string& command, int client, const ScriptedFrontend& frontend) {
    Bytes bytes = {0x84};
    for (const Bytes& part : {pack_string("command"), pack_string(command), pack_string("client_index"),
                              pack_int(client), pack_string("input"), pack_string(frontend.input_address(client)),
                              pack_string("output"), pack_string(frontend.output_address(client))}) {
        bytes.insert(bytes.end(), part.begin(), part.end());
    }
    return bytes;
}

TEST(EngineProcess, FrontendsJoinAndLeaveUnderControl) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--control"}));
    frontend.accept_engine();
    EXPECT_EQ(frontend.receive_control()["status"], "\"FRONTEND_REGISTERED\"");

    int second = frontend.add_client();
    frontend.send_control(control_message("connect_frontend", second, frontend));
    frontend.receive_registration(second);
    auto event = frontend.receive_control();
    EXPECT_EQ(event["status"], "\"FRONTEND_REGISTERED\"");
    EXPECT_EQ(event["client_index"], "1");
    frontend.add("first", 5);
    frontend.add("second", 5, {}, second);
    EXPECT_EQ(frontend.collect("second", nullptr, second).size(), 5u);
    EXPECT_EQ(frontend.collect("first").size(), 5u);

    // The place of client 0 is free afterwards; its running request is gone, and the others go on.
    frontend.add("orphan", 4000);
    frontend.next();
    frontend.send_control(control_message("disconnect_frontend", 0, frontend));
    EXPECT_EQ(frontend.receive_control()["status"], "\"FRONTEND_CLOSED\"");
    frontend.add("later", 5, {}, second);
    EXPECT_EQ(frontend.collect("later", nullptr, second).size(), 5u);
    EXPECT_NE(engine.log().find("aborted 1 requests of frontend 0"), std::string::npos);

    frontend.restart_client(0);
    frontend.send_control(control_message("connect_frontend", 0, frontend));
    frontend.receive_registration(0);
    EXPECT_EQ(frontend.receive_control()["client_index"], "0");
    frontend.add("again", 5);
    EXPECT_EQ(frontend.collect("again").size(), 5u);
}

TEST(EngineProcess, BadControlMessagesAreRefused) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--control"}));
    frontend.accept_engine();
    frontend.receive_control();
    for (const Bytes& bad :
         {Bytes{}, Bytes{0xc1}, Bytes{0x80}, Bytes(70000, 0x90), control_message("dance", 1, frontend),
          control_message("connect_frontend", 0, frontend), control_message("connect_frontend", 64, frontend),
          control_message("connect_frontend", -1, frontend), control_message("disconnect_frontend", 1, frontend)}) {
        frontend.send_control(bad);
        auto event = frontend.receive_control();
        EXPECT_EQ(event["status"], "\"CONTROL_ERROR\"");
        EXPECT_NE(event["error"], "nil");
    }
    frontend.add("a", 3);
    EXPECT_EQ(frontend.collect("a").size(), 3u);
}

TEST(EngineProcess, HeartbeatIsAnsweredWhileTheLoopHangs) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--mock-fault", "hang-after-tokens=1"}));
    frontend.accept_engine();
    // [nil,[turns,seconds in this turn,CPU seconds]]
    auto beat = [&] {
        Answer answer = frontend.call("heartbeat");
        EXPECT_EQ(answer[1], "nil");
        size_t first = answer[2].find(',') + 2;
        size_t second = answer[2].find(',', first) + 1;
        size_t third = answer[2].find(',', second) + 1;
        return std::tuple(std::stoi(answer[2].substr(first)), std::stod(answer[2].substr(second)),
                          std::stod(answer[2].substr(third)));
    };
    frontend.add("r", 100);
    while (std::get<1>(beat()) < 0.1) {
    }
    auto [turns, busy, cpu] = beat();
    auto [later_turns, later_busy, later_cpu] = beat();
    EXPECT_EQ(turns, later_turns);
    EXPECT_GT(later_busy, busy);
    EXPECT_GE(later_cpu, cpu);
    EXPECT_TRUE(frontend.quiet());
}

TEST(EngineProcess, MockHonoursStopAndAllowedIds) {
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

TEST(EngineProcess, WrongCommandLinesAndFoldersEndWithAReason) {
    EngineProcess unknown({"--modle", "mock"});
    EXPECT_EQ(unknown.wait(), 2);
    EXPECT_NE(unknown.log().find("did you mean --model?"), std::string::npos);
    EngineProcess help({"--help"});
    EXPECT_EQ(help.wait(), 0);
    ScriptedFrontend frontend;
    EngineProcess missing({"--model", "/nonexistent/folder", "--handshake-address", frontend.handshake_address()});
    frontend.receive_hello();
    frontend.send_init();
    EXPECT_EQ(missing.wait(), 1);
    EXPECT_NE(missing.log().find("ERROR"), std::string::npos);
}

}  // namespace
}  // namespace blas_engine
