// Utility calls to the real engine process under a scripted frontend.
#include <gtest/gtest.h>

#include <tuple>

#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::EngineProcess;
using testing::Outputs;
using testing::pack_array;
using testing::pack_bool;
using testing::pack_int;
using testing::pack_string;
using testing::ScriptedFrontend;

using Answer = std::vector<std::string>;

TEST(EngineUtility, AnswersEveryUtilityCall) {
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

TEST(EngineUtility, PauseModes) {
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

TEST(EngineUtility, PauseWithoutAWayToSayWhyKeepsNewRequests) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({}));  // the frontend's release is not known
    frontend.accept_engine();
    EXPECT_EQ(frontend.call("pause_generation", pack_array({pack_string("abort"), pack_bool(false)}))[1], "nil");
    frontend.add("patient", 3);
    EXPECT_EQ(frontend.call("is_scheduler_paused")[2], "[nil,true]");
    EXPECT_TRUE(frontend.quiet());
    EXPECT_EQ(frontend.call("resume_scheduler")[1], "nil");
    std::string finish;
    frontend.collect("patient", &finish);
    EXPECT_EQ(finish, "1");
}

TEST(EngineUtility, SleepKeepsRequestsForLater) {
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

TEST(EngineUtility, HeartbeatIsAnsweredWhileTheLoopHangs) {
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

}  // namespace
}  // namespace blas_engine
