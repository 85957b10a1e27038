// The rules of waves, one rank's view at a time.
#include "core/wave.h"

#include <gtest/gtest.h>

namespace blas_engine {
namespace {

TEST(Wave, AnIdleEngineStartsItsWave) {
    Wave wave(1, 2, true);
    EXPECT_EQ(wave.request_added(0, false), 0);
    EXPECT_TRUE(wave.running());
    EXPECT_EQ(wave.request_added(0, false), std::nullopt);  // it runs already
    Wave paused(1, 2, true);
    EXPECT_EQ(paused.request_added(0, true), std::nullopt);
}

TEST(Wave, BeforeRelease33OnlyStaleRequestsStartIt) {
    Wave wave(0, 1, false);
    EXPECT_EQ(wave.request_added(3, false), std::nullopt);  // a newer wave is adopted
    EXPECT_EQ(wave.current(), 3);
    wave.take(*wave.report(false));
    EXPECT_EQ(wave.finish_if_idle()->wave, 3);
    EXPECT_EQ(wave.current(), 4);
    EXPECT_EQ(wave.request_added(3, false), 4);
}

TEST(Wave, StartsOfOthersAreFollowed) {
    Wave wave(1, 3, true);
    wave.start({5, 1});  // asked for by this rank, which runs already
    EXPECT_FALSE(wave.running());
    wave.start({5, 2});
    EXPECT_TRUE(wave.running());
    EXPECT_EQ(wave.current(), 5);
    EXPECT_EQ(wave.completed({5}, false), std::nullopt);
    EXPECT_EQ(wave.current(), 6);
    wave.start({5, std::nullopt});  // over
    EXPECT_FALSE(wave.running());
}

TEST(Wave, EndsWhenEveryRankIsIdleInIt) {
    Wave zero(0, 3, true);
    zero.start({0, 2});
    zero.take(*zero.report(false));
    EXPECT_FALSE(zero.report(false));  // told once
    zero.take({1, 0, true});
    EXPECT_FALSE(zero.finish_if_idle());
    zero.take({2, 0, true});
    zero.take({1, 0, false});  // busy again
    zero.take({7, 0, true});   // no such rank
    zero.take({-1, 0, true});
    EXPECT_FALSE(zero.finish_if_idle());
    zero.take({1, 0, true});
    EXPECT_EQ(zero.finish_if_idle()->wave, 0);
    EXPECT_FALSE(zero.finish_if_idle());
    // The next one needs new reports.
    zero.start({1, std::nullopt});
    EXPECT_FALSE(zero.finish_if_idle());
}

TEST(Wave, ARequestThatMissedTheEndStartsTheNextOne) {
    Wave wave(1, 2, true);
    wave.start({0, 0});
    EXPECT_TRUE(wave.report(false)->idle);
    EXPECT_EQ(wave.request_added(0, false), std::nullopt);
    EXPECT_FALSE(wave.report(true)->idle);
    EXPECT_EQ(wave.completed({0}, true), 1);
    EXPECT_TRUE(wave.running());
    EXPECT_EQ(wave.report(true)->wave, 1);
}

TEST(Wave, ARequestThatKnowsOfTheEndFirstStartsTheNextOne) {
    Wave wave(1, 2, true);
    wave.start({0, 0});
    EXPECT_EQ(wave.request_added(1, false), 1);
    EXPECT_EQ(wave.completed({0}, true), std::nullopt);  // known by now
    EXPECT_TRUE(wave.running());
    Wave told(1, 2, false);
    told.start({0, 0});
    EXPECT_EQ(told.request_added(1, false), std::nullopt);  // the frontend tells the others
    EXPECT_TRUE(told.running());
}

}  // namespace
}  // namespace blas_engine
