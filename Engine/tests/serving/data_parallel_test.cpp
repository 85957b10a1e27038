// The real engine process under a scripted coordinator.
#include <gtest/gtest.h>
#include <zmq.h>

#include <memory>

#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::EngineProcess;
using testing::Outputs;
using testing::pack_int;
using testing::pack_string;
using testing::ScriptedFrontend;

TEST(DataParallel, WaitsForTheCoordinator) {
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
    // So are aborted ones, though nothing else is said of them.
    frontend.add("aborted", 4000);
    frontend.next();
    frontend.abort({"aborted", "nobody"});
    do outputs = frontend.next();
    while (outputs.envelope.size() < 6);
    EXPECT_EQ(outputs.envelope[1], "[]");
    EXPECT_EQ(outputs.envelope[5], "[\"aborted\"]");
    // Waves are for engines in lockstep; this one goes on.
    frontend.coordinator_input().send(std::vector<Bytes>{{2}, {0x92, 0x01, 0xc0}});
    frontend.add("s", 3);
    EXPECT_EQ(frontend.collect("s").size(), 3u);
}

// An engine in lockstep with another one, its frontend, and the coordinator's side of its sockets.
struct Rank {
    Rank(int index, int port, const std::vector<std::string>& arguments) : frontend(1, true) {
        frontend.parallel_config = {0x83};
        for (const Bytes& part :
             {pack_string("data_parallel_size"), pack_int(2), pack_string("data_parallel_master_ip"),
              pack_string("127.0.0.1"), pack_string("data_parallel_master_port"), pack_int(port)}) {
            frontend.parallel_config.insert(frontend.parallel_config.end(), part.begin(), part.end());
        }
        std::vector<std::string> all = arguments;
        all.insert(all.end(), {"--engine-index", std::to_string(index)});
        process = std::make_unique<EngineProcess>(frontend.arguments(all));
        frontend.receive_hello();
        frontend.send_init();
        EXPECT_EQ(testing::describe_map(frontend.receive_registration())["data_parallel_size"], "2");
        ZmqSocket::Message subscription;
        frontend.coordinator_input().wait_readable(20000);
        frontend.coordinator_input().receive(subscription, 1, 100);
        frontend.coordinator_input().send(Bytes{'R', 'E', 'A', 'D', 'Y'});
        frontend.receive_ready();
    }

    // The next wave_complete (6) or start_wave (7) sent to the coordinator.
    std::string next_wave(size_t position) {
        for (;;) {
            if (!frontend.coordinator_output().wait_readable(20000)) return "nothing";
            ZmqSocket::Message message;
            frontend.coordinator_output().receive(message, 1, 10000);
            const auto envelope = testing::describe_elements(message.frames[0]);
            EXPECT_EQ(envelope.at(1), "[]");
            if (envelope[2] != "nil") continue;  // counts
            EXPECT_EQ(envelope[13 - position], "nil");
            return envelope[position];
        }
    }
    void start_wave(uint8_t wave, uint8_t excluded) {
        frontend.coordinator_input().send(std::vector<Bytes>{{2}, {0x92, wave, excluded}});
    }

    ScriptedFrontend frontend;
    std::unique_ptr<EngineProcess> process;
};

int free_port() {
    ZmqContext context;
    ZmqSocket socket(context, ZMQ_ROUTER);
    socket.bind("tcp://127.0.0.1:*");
    char endpoint[64];
    size_t size = sizeof endpoint;
    EXPECT_EQ(zmq_getsockopt(socket.get(), ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
    return std::stoi(std::string(endpoint).substr(std::string(endpoint).rfind(':') + 1));
}

TEST(DataParallel, RanksInLockstepStartAndEndWavesTogether) {
    const int port = free_port();
    Rank zero(0, port, {"--protocol-version", "0.33"}), one(1, port, {"--protocol-version", "0.33"});
    // The idle rank starts the wave; the coordinator tells the other one; rank 0 says when all are idle again.
    one.frontend.add("a", 3);
    EXPECT_EQ(one.next_wave(7), "0");
    zero.start_wave(0, 1);
    one.start_wave(0, 1);
    EXPECT_EQ(one.frontend.collect("a").size(), 3u);
    EXPECT_EQ(zero.next_wave(6), "0");
    // The next one, started by rank 0 itself. The frontends of both still say wave 0.
    zero.frontend.add("b", 3);
    EXPECT_EQ(zero.next_wave(7), "1");
    one.start_wave(1, 0);
    EXPECT_EQ(zero.frontend.collect("b").size(), 3u);
    EXPECT_EQ(zero.next_wave(6), "1");
}

TEST(DataParallel, AWaveLastsAsLongAsAnyRankIsBusy) {
    const int port = free_port();
    const std::vector<std::string> options = {"--protocol-version", "0.32", "--mock-itl-ms", "2"};
    Rank zero(0, port, options), one(1, port, options);
    // Before 0.33 frontends tell the coordinator; the engine's own request is not news.
    one.frontend.add("long", 4000);
    one.frontend.next();
    zero.start_wave(0, 1);
    zero.frontend.add("short", 3);
    EXPECT_EQ(zero.frontend.collect("short").size(), 3u);
    one.frontend.abort({"long"});
    EXPECT_EQ(zero.next_wave(6), "0");
    // A frontend that has not heard of the end sends in the old wave.
    zero.frontend.add("stale", 3);
    EXPECT_EQ(zero.next_wave(7), "1");
    one.start_wave(1, 0);
    EXPECT_EQ(zero.frontend.collect("stale").size(), 3u);
    EXPECT_EQ(zero.next_wave(6), "1");
}

}  // namespace
}  // namespace blas_engine
