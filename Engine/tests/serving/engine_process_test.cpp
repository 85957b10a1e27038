// The real engine process under a scripted frontend: handshake, signals, frontends that come and go, its end.
#include <gtest/gtest.h>
#include <signal.h>

#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::EngineProcess;
using testing::Outputs;
using testing::pack_int;
using testing::pack_string;
using testing::ScriptedFrontend;

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
    std::vector<std::string> answer;
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
    Outputs outputs;
    do outputs = frontend.next();
    while (outputs.requests.empty());
    // What was left for the old frontend is not for the new one.
    EXPECT_EQ(outputs.requests[0][0], "\"new\"");
    EXPECT_EQ(frontend.collect("new").size(), 4u);
    do outputs = frontend.next();
    while (!outputs.requests.empty());
    EXPECT_EQ(outputs.stat("num_running_reqs"), "0");
    EXPECT_NE(engine.log().find("aborted 1 requests of frontend 0"), std::string::npos);
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
    // Slow enough for the orphan not to end by itself.
    EngineProcess engine(frontend.arguments({"--control", "--mock-itl-ms", "2"}));
    frontend.accept_engine();
    // Nothing is told before the first command: vLLM's frontends would take it for a broken handshake.
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

TEST(EngineProcess, AClosedHandshakePortIsNoted) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--control"}));
    frontend.accept_engine();
    frontend.close_handshake();
    while (engine.log().find("is closed: it is dialled again") == std::string::npos) frontend.call("is_sleeping");
    frontend.add("a", 3);
    EXPECT_EQ(frontend.collect("a").size(), 3u);
    engine.signal(SIGTERM);
    EXPECT_EQ(engine.wait(), 0);
}

TEST(EngineProcess, BadControlMessagesAreRefused) {
    ScriptedFrontend frontend;
    EngineProcess engine(frontend.arguments({"--control"}));
    frontend.accept_engine();
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
