// The real engine process under a scripted coordinator.
#include <gtest/gtest.h>

#include "scripted_frontend.h"

namespace blas_engine {
namespace {

using testing::Bytes;
using testing::EngineProcess;
using testing::Outputs;
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
    // Waves are for mixture-of-experts engines; this one goes on.
    frontend.coordinator_input().send(std::vector<Bytes>{{2}, {0x92, 0x01, 0xc0}});
    frontend.add("s", 3);
    EXPECT_EQ(frontend.collect("s").size(), 3u);
}

}  // namespace
}  // namespace blas_engine
